"""What NATS believes: signed claims, read back as they were written, and nothing else."""

import base64
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from bus.claims import (
    NO_LIMIT,
    VERSION,
    WITH_STREAMS,
    Account,
    AuthorizationRequest,
    AuthorizationResponse,
    Callout,
    Claims,
    ClaimsError,
    Limits,
    Operator,
    Permissions,
    Reader,
    Responses,
    Role,
    Subjects,
    User,
    UserOfRole,
    sign,
)
from bus.nkeys import KeyPair

SIGNER = KeyPair.generate("account")
USER = User(
    version=VERSION,
    pub=Subjects(allow=("a.>",)),
    sub=Subjects(deny=("b",)),
    subs=7,
    payload=NO_LIMIT,
    data=NO_LIMIT,
    resp=Responses(max=1, ttl=1_000_000_000),
    allowed_connection_types=("STANDARD",),
)
TEMPLATE = Permissions(pub=Subjects(allow=("x.{{name()}}",)), subs=1, payload=2, data=3)
BODIES = [
    Operator(version=VERSION, system_account="A", signing_keys=("O",)),
    Account(
        version=VERSION,
        limits=WITH_STREAMS,
        default_permissions={"pub": {}, "sub": {}},
        signing_keys=("AKEY", Role(key="B", role="boot", template=TEMPLATE)),
        authorization=Callout(("U",), ("A",)),
        revocations={"*": 5},
    ),
    USER,
    UserOfRole(version=VERSION, issuer_account="A"),
    AuthorizationResponse(version=VERSION, jwt="token"),
    AuthorizationResponse(version=VERSION, error="no"),
]


def said(token: str) -> dict[str, object]:
    middle = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_what_was_signed_is_read_back(body: Struct) -> None:
    token = sign(SIGNER, "subject", body, name="n", audience="a", expires_at=9)
    kind: type[Claims[Struct]] = Claims[type(body)]  # type: ignore[assignment,misc]
    claims = Reader(kind).read(token)
    assert (claims.iss, claims.sub, claims.name) == (SIGNER.public, "subject", "n")
    assert (claims.aud, claims.exp, claims.nats) == ("a", 9, body)
    assert abs(claims.iat - time.time()) < 60
    assert claims.jti


def test_it_is_written_as_nats_reads_it() -> None:
    header, _, _ = sign(SIGNER, "U", USER).split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"typ":"JWT","alg":"ed25519-nkey"}'
    written = said(sign(SIGNER, "U", USER))
    assert "exp" not in written
    assert "aud" not in written
    assert written["nats"] == {
        "type": "user", "version": 2, "subs": 7, "payload": -1, "data": -1,
        "pub": {"allow": ["a.>"]}, "sub": {"deny": ["b"]},
        "resp": {"max": 1, "ttl": 1_000_000_000}, "allowed_connection_types": ["STANDARD"],
    }  # fmt: skip


def test_an_account_says_each_of_its_limits() -> None:
    """A limit that is left out counts as none for one and as 0 for another."""
    account = Account(version=VERSION, limits=Limits(), default_permissions={})
    nats = said(sign(SIGNER, "A", account))["nats"]
    assert isinstance(nats, dict)
    assert set(nats["limits"]) == {
        "subs", "data", "payload", "imports", "exports", "wildcards", "conn", "leaf",
        "mem_storage", "disk_storage", "streams", "consumer",
    }  # fmt: skip


def test_a_user_of_a_role_says_nothing_that_the_role_says() -> None:
    token = sign(SIGNER, "U", UserOfRole(version=VERSION, issuer_account="A"))
    assert said(token)["nats"] == {"type": "user", "version": 2, "issuer_account": "A"}


def test_a_token_with_another_body_is_refused() -> None:
    _, middle, signature = sign(SIGNER, "U", USER).split(".")
    header, other, _ = sign(SIGNER, "another", USER).split(".")
    with pytest.raises(ClaimsError, match="not signed"):
        Reader(Claims[User]).read(f"{header}.{other}.{signature}")
    with pytest.raises(ClaimsError):
        Reader(Claims[User]).read(f"e30.{middle}.{signature}")


def test_a_token_of_another_kind_is_refused() -> None:
    with pytest.raises(ClaimsError, match="another kind"):
        Reader(Claims[AuthorizationRequest]).read(sign(SIGNER, "U", USER))


def test_what_a_server_says_more_is_passed_over() -> None:
    """As servers do in an authorization request, from release to release."""
    body = {
        "type": "authorization_request",
        "version": 2,
        "server_id": {"id": "N", "name": "s", "news": [1]},
        "user_nkey": "U",
        "client_info": {"host": "192.0.2.1", "id": 5, "kind": "Client"},
        "connect_opts": {"user": "m", "pass": "p", "lang": "python3"},
        "client_tls": None,
    }
    now = int(time.time())
    claims = {"iss": SIGNER.public, "sub": "U", "iat": now, "nats": body, "x": 1}

    def text(data: object) -> str:
        raw = base64.urlsafe_b64encode(json.dumps(data).encode())
        return raw.decode().rstrip("=")

    signed = f"{text({'alg': 'ed25519-nkey'})}.{text(claims)}"
    signature = base64.urlsafe_b64encode(SIGNER.sign(signed.encode())).decode().rstrip("=")
    read = Reader(Claims[AuthorizationRequest]).read(f"{signed}.{signature}").nats
    assert (read.server_id.id, read.user_nkey, read.client_info.host) == ("N", "U", "192.0.2.1")
    assert (read.connect_opts.user, read.connect_opts.password) == ("m", "p")


@given(st.text(max_size=120) | st.lists(st.text(max_size=20), max_size=4).map(".".join))
@settings(max_examples=200)
def test_no_text_is_too_strange_to_be_refused(text: str) -> None:
    with pytest.raises(ClaimsError) as caught:
        Reader(Claims[User]).read(text)
    assert not text or len(text) < 20 or text not in str(caught.value)


@given(st.integers(0, 2000), st.sampled_from("ABCxyz019-_"))
@settings(max_examples=200, deadline=None)
def test_a_changed_letter_makes_it_no_token(place: int, letter: str) -> None:
    token = sign(SIGNER, "U", USER)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if token[place] in {".", letter} or place == len(token) - 1:
        return  # the last letter holds bits that nobody needs
    with pytest.raises(ClaimsError):
        Reader(Claims[User]).read(changed)
