"""Sessions: signed by any copy of the auth service, good at one machine and site, for a while."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping

import jwt
import nats.errors
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.messages import encode
from bus.options import OptionError, parse
from bus.problems import Problem
from bus.sessions import (
    LONGEST,
    PUBLISH_EVERY,
    Claims,
    PublicKey,
    SessionRefused,
    Signer,
    Verifier,
)
from tests.buses import BusServer
from tests.echo import KEY, until

OTHER = "mac001b21aabbcc"
SHARED = Claims(username=None, protection="hash")


@pytest.fixture
async def verifier(connection: Connection) -> AsyncIterator[Verifier]:
    await prepare(connection.jetstream())
    verifier = Verifier(connection, "main")
    await verifier.start()
    yield verifier
    await verifier.stop()


@pytest.fixture
async def signer(connection: Connection, verifier: Verifier) -> Signer:
    signer = Signer("main")
    await signer.publish(connection)
    return signer


async def _refusal(verifier: Verifier, token: str | None) -> str:
    with pytest.raises(Problem) as caught:
        await verifier.admit(token, KEY, "hash")
    return caught.value.code


def _claims(changes: Mapping[str, object] = {}) -> dict[str, object]:
    now = int(time.time())
    usual: dict[str, object] = {
        "iss": "imageinvoker", "aud": "main", "sub": KEY, "iat": now, "exp": now + 60,
        "name": None, "protection": "hash",
    }  # fmt: skip
    return {name: value for name, value in (usual | dict(changes)).items() if value != "absent"}


async def _own_key(
    connection: Connection, key_id: str = "0123456789abcdef", expires_at: float | None = None
) -> Ed25519PrivateKey:
    """A key that stands in the bucket, so that a test can sign what no signer would."""
    private = Ed25519PrivateKey.generate()
    end = time.time() + 60 if expires_at is None else expires_at
    public = PublicKey(key=private.public_key().public_bytes_raw(), expires_at=end)
    bucket = await connection.jetstream().key_value(subjects.KEYS)
    await bucket.put(subjects.site_key("main", key_id), encode(public))
    return private


def _signed(
    private: Ed25519PrivateKey,
    key_id: str = "0123456789abcdef",
    changes: Mapping[str, object] = {},
) -> str:
    return jwt.encode(_claims(changes), private, "EdDSA", headers={"kid": key_id})


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_a_good_session_is_admitted(verifier: Verifier, signer: Signer) -> None:
    session = signer.session(KEY, SHARED)
    assert await verifier.admit(session.token, KEY, "hash") == SHARED
    assert 3590 < session.expires_at.timestamp() - time.time() <= 3600
    ann = Claims(username="ann", protection="server", generation=7)
    named = signer.session(KEY, ann, lifetime=90)
    assert await verifier.admit(named.token, KEY, "server") == ann
    assert 80 < named.expires_at.timestamp() - time.time() <= 90


async def test_where_nobody_signs_in_nobody_needs_a_session(verifier: Verifier) -> None:
    assert await verifier.admit(None, KEY, "none") is None
    assert await verifier.admit("junk", KEY, "none") is None


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_session_a_sign_in_is_asked_for(
    verifier: Verifier, token: str | None
) -> None:
    assert await _refusal(verifier, token) == "login_required"


async def test_a_session_is_bound_to_its_machine(verifier: Verifier, signer: Signer) -> None:
    assert await _refusal(verifier, signer.session(OTHER, SHARED).token) == "login_required"


async def test_a_session_is_bound_to_its_site(connection: Connection, verifier: Verifier) -> None:
    london = Signer("london")
    await london.publish(connection)
    assert await _refusal(verifier, london.session(KEY, SHARED).token) == "login_required"
    # Not even a key of this site signs for another.
    private = await _own_key(connection)
    assert await _refusal(verifier, _signed(private, changes={"aud": "london"})) == "login_required"


@pytest.mark.parametrize("protection", ["none", "server", "domain"])
async def test_a_session_of_another_protection_is_none(
    verifier: Verifier, connection: Connection, protection: str
) -> None:
    private = await _own_key(connection)
    assert (
        await _refusal(verifier, _signed(private, changes={"protection": protection}))
        == "login_required"
    )


async def test_a_session_ends_with_its_time(verifier: Verifier, connection: Connection) -> None:
    private = await _own_key(connection)
    past = int(time.time()) - 31
    assert await _refusal(verifier, _signed(private, changes={"exp": past})) == "session_expired"
    # Clocks of two copies may differ a little.
    assert await verifier.admit(_signed(private, changes={"exp": past + 20}), KEY, "hash")


async def test_a_session_ends_with_its_key(connection: Connection, verifier: Verifier) -> None:
    end = time.time() + 0.3
    private = await _own_key(connection, expires_at=end)
    token = _signed(private)
    assert await verifier.admit(token, KEY, "hash")
    await until(lambda: time.time() > end)
    assert await _refusal(verifier, token) == "session_expired"


async def test_a_session_that_was_good_is_looked_at_each_time(
    connection: Connection, verifier: Verifier
) -> None:
    private = await _own_key(connection)
    end = int(time.time()) - 30 + 2
    token = _signed(private, changes={"exp": end})
    assert await verifier.admit(token, KEY, "hash")
    assert verifier.has_seen(token)
    with pytest.raises(SessionRefused) as caught:
        await verifier.admit(token, OTHER, "hash")
    assert (caught.value.code, caught.value.reason) == ("login_required", "other machine")
    with pytest.raises(SessionRefused) as caught:
        await verifier.admit(token, KEY, "server")
    assert (caught.value.code, caught.value.reason) == ("login_required", "other protection")
    await until(lambda: time.time() >= end + 30)
    with pytest.raises(SessionRefused) as caught:
        await verifier.admit(token, KEY, "hash")
    assert (caught.value.code, caught.value.reason) == ("session_expired", "expired")


async def test_the_sessions_that_are_remembered_are_bounded(
    verifier: Verifier, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.sessions._REMEMBERED", 3)
    tokens = [signer.session(KEY, SHARED, lifetime=60 + n).token for n in range(5)]
    for token in tokens * 2:
        assert await verifier.admit(token, KEY, "hash")
    assert len(verifier._verified) == 3


async def test_a_key_is_replaced_and_nobody_is_thrown_out(
    connection: Connection, verifier: Verifier
) -> None:
    signer = Signer("main", rotate_every=0)
    ids, tokens = [], []
    for _ in range(3):
        await signer.publish(connection)
        ids.append(signer.key_id)
        tokens.append(signer.session(KEY, SHARED).token)
    assert len(set(ids)) == 3
    for token in tokens:
        assert await verifier.admit(token, KEY, "hash")


async def test_a_key_that_the_bus_did_not_take_does_not_sign(
    bus: BusServer, connection: Connection, verifier: Verifier
) -> None:
    signer = Signer("main", rotate_every=0)
    await signer.publish(connection)
    before = signer.key_id
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await signer.publish(connection)
    assert signer.key_id == before


def test_a_key_outlives_the_longest_session_that_the_options_allow() -> None:
    parse("session_lifetime", str(int(LONGEST)))
    with pytest.raises(OptionError):
        parse("session_lifetime", str(int(LONGEST) + 1))


async def test_a_session_whose_key_is_gone_is_none(
    connection: Connection, verifier: Verifier, signer: Signer
) -> None:
    token = signer.session(KEY, SHARED).token
    assert await verifier.admit(token, KEY, "hash")
    bucket = await connection.jetstream().key_value(subjects.KEYS)
    await bucket.delete(subjects.site_key("main", signer.key_id))
    await until(lambda: signer.key_id not in verifier._keys)
    assert await _refusal(verifier, token) == "login_required"


@pytest.mark.parametrize("claim", ["exp", "aud", "sub", "iss", "protection", "name"])
async def test_a_session_that_leaves_something_out_is_none(
    connection: Connection, verifier: Verifier, claim: str
) -> None:
    private = await _own_key(connection)
    assert await verifier.admit(_signed(private), KEY, "hash")
    assert await _refusal(verifier, _signed(private, changes={claim: "absent"})) == "login_required"


@pytest.mark.parametrize(
    ("claim", "value"), [("name", 7), ("protection", "all"), ("aud", ["x"]), ("iss", "other")]
)
async def test_a_session_that_says_something_odd_is_none(
    connection: Connection, verifier: Verifier, claim: str, value: object
) -> None:
    private = await _own_key(connection)
    assert await _refusal(verifier, _signed(private, changes={claim: value})) == "login_required"


async def test_a_forged_session_is_none(
    connection: Connection, verifier: Verifier, signer: Signer
) -> None:
    good = signer.session(KEY, SHARED).token
    header, payload, signature = good.split(".")
    stranger = Ed25519PrivateKey.generate()
    entry = await (await connection.jetstream().key_value(subjects.KEYS)).get(
        subjects.site_key("main", signer.key_id)
    )
    public = json.loads(entry.value or b"")["key"]
    kid = {"kid": signer.key_id}
    forged = {
        "another's key": _signed(stranger, signer.key_id),
        "an unknown key": _signed(stranger, "f" * 16),
        "a key id that is none": _signed(stranger, "*"),
        "a key id of another key space": _signed(stranger, "main.>"),
        "another payload": f"{header}.{_part(_claims({'name': 'root'}))}.{signature}",
        "no signature": f"{header}.{payload}.",
        "alg none": jwt.encode(_claims(), "", "none", headers=kid),
        "alg none, signed": f"{_part({'alg': 'none', **kid})}.{payload}.{signature}",
        "alg none in other letters": f"{_part({'alg': 'nOnE', **kid})}.{payload}.",
        "HS256 with the public key": jwt.encode(
            _claims(), base64.b64decode(public), "HS256", headers=kid
        ),
        "HS256 with the public key as text": jwt.encode(
            _claims(), public.encode(), "HS256", headers=kid
        ),
        "a key of its own": f"{_part({'alg': 'EdDSA', 'jwk': {}, **kid})}.{payload}.{signature}",
    }
    assert await verifier.admit(good, KEY, "hash")
    assert {
        what: await _refusal(verifier, token) for what, token in forged.items()
    } == dict.fromkeys(forged, "login_required")


junk_headers = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "b64", "crit", "jwk", "x"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just("EdDSA")
    | st.lists(st.text(max_size=3), max_size=2),
)  # fmt: skip
junk_tokens = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="abcZ019-_.=", max_size=60),
    st.builds(lambda header, rest: f"{_part(header)}.{rest}", junk_headers, st.text(max_size=20)),
    st.builds(lambda header, claims: f"{_part(header)}.{_part(claims)}.AAAA", junk_headers,
              junk_headers),
    st.just(f"{_part({})}." + "." * 100),
    st.just(base64.urlsafe_b64encode(b'{"a":' + b"[" * 3000).decode() + ".e30.AA"),
    st.just(base64.urlsafe_b64encode(b'{"a":' + b"9" * 3000 + b"}").decode() + ".e30.AA"),
    st.just("\ud800.\ud800.\ud800"),
)  # fmt: skip


async def test_garbage_is_no_session_and_never_anything_worse(
    verifier: Verifier, signer: Signer
) -> None:
    tokens: list[str] = []

    @given(junk_tokens)
    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    def collect(token: str) -> None:
        tokens.append(token)

    collect()
    kid = {"alg": "EdDSA", "kid": signer.key_id}
    odd: tuple[object, ...] = (None, [], 7, "x", {})
    tokens += [f"{_part(kid)}.{_part(each)}.AAAA" for each in odd]
    codes = {await _refusal(verifier, token) for token in tokens}
    assert codes == {"login_required"}


async def _reason(verifier: Verifier, token: str) -> str:
    with pytest.raises(SessionRefused) as caught:
        await verifier.admit(token, KEY, "hash")
    return caught.value.reason


async def test_a_header_that_was_good_once_vouches_for_nothing(
    connection: Connection, verifier: Verifier
) -> None:
    """What is remembered of headers changes no reason: a verifier that knows none says the same."""
    private = await _own_key(connection)
    past = time.time() + 1
    short = await _own_key(connection, "f" * 16, past)
    good, ends = _signed(private), _signed(short, "f" * 16)
    for token in (good, ends):
        assert await verifier.admit(token, KEY, "hash")
    header, payload, signature = good.split(".")
    stranger = _signed(Ed25519PrivateKey.generate())
    end_header, _, _ = ends.split(".")
    now = int(time.time())
    hostile = {
        "forged": [
            f"{header}.{_part(_claims({'name': 'root'}))}.{signature}",
            f"{header}.{payload}.{stranger.rpartition('.')[2]}",
            f"{header}.{payload}.",
            f"{header}.{payload}.{signature[:-2]}",
            f"{header}..{signature}",
            f"{header}.{_part({})}.{signature}",
            stranger,
        ],
        "malformed": [
            header,
            f"{header}.",
            f"{header}.{signature}",
            f"{header}.{payload}.{signature}.{signature}",
            f"{header}.{payload}.{signature}=",
            f"{header}.{payload}.!",
            f"{header}.\ud800.{signature}",
            f"{header} .{payload}.{signature}",
            f"{header}=.{payload}.{signature}",
            f"{_part({'alg': 'none', 'kid': '0123456789abcdef'})}.{payload}.{signature}",
            _signed(private, changes={"sub": "absent"}),
            _signed(private, changes={"sub": None}),
            _signed(private, changes={"iss": "other"}),
            _signed(private, changes={"protection": "all"}),
            f"{end_header}.!.!",
        ],
        "unknown key": [_signed(private, "e" * 16), _signed(private, "*")],
        "other site": [_signed(private, changes={"aud": "london"})],
        "expired": [_signed(private, changes={"exp": now - 60}), _signed(short, "f" * 16)],
        "not yet valid": [_signed(private, changes={"iat": now + 60})],
    }
    await until(lambda: time.time() > past)
    fresh = Verifier(connection, "main")
    await fresh.start()
    for reason, tokens in hostile.items():
        for token in tokens:
            assert await _reason(fresh, token) == reason, token
            assert await _reason(verifier, token) == reason, token
    await fresh.stop()


async def test_a_key_that_is_replaced_under_its_name_verifies_what_it_signed_and_nothing_else(
    connection: Connection, verifier: Verifier
) -> None:
    first = await _own_key(connection)
    assert await verifier.admit(_signed(first), KEY, "hash")
    known = verifier._keys
    second = await _own_key(connection)
    await until(lambda: verifier._keys != known)
    assert await _reason(verifier, _signed(first, changes={"name": "root"})) == "forged"
    assert await verifier.admit(_signed(second), KEY, "hash")


async def test_a_key_is_found_though_the_watch_has_not_shown_it(
    connection: Connection, verifier: Verifier
) -> None:
    await verifier.stop()
    fresh = Signer("main")
    await fresh.publish(connection)
    assert fresh.key_id not in verifier._keys
    assert await verifier.admit(fresh.session(KEY, SHARED).token, KEY, "hash")


async def test_many_copies_sign_at_once(
    connection: Connection, verifier: Verifier, signer: Signer
) -> None:
    other = Signer("main")
    await other.publish(connection)
    assert other.key_id != signer.key_id
    for each in (signer, other, signer):
        assert await verifier.admit(each.session(KEY, SHARED).token, KEY, "hash")
    await signer.publish(connection)
    assert await verifier.admit(signer.session(KEY, SHARED).token, KEY, "hash")


async def test_a_key_that_cannot_be_read_spoils_no_other(
    connection: Connection, verifier: Verifier, signer: Signer
) -> None:
    bucket = await connection.jetstream().key_value(subjects.KEYS)
    with capture_logs() as lines:
        for number, value in enumerate((b"", b"junk", b'{"key": "AAAA", "expires_at": 9e9}')):
            await bucket.put(f"main.{number:016x}", value)
        await until(lambda: len({line.get("key_id") for line in lines}) == 3)
    assert await verifier.admit(signer.session(KEY, SHARED).token, KEY, "hash")
    stranger = _signed(Ed25519PrivateKey.generate(), f"{1:016x}")
    assert await _refusal(verifier, stranger) == "login_required"


async def test_known_keys_go_on_to_count_while_the_bus_is_away(
    bus: BusServer, connection: Connection, verifier: Verifier, signer: Signer
) -> None:
    token = signer.session(KEY, SHARED).token
    assert await verifier.admit(token, KEY, "hash")
    await until(lambda: signer.key_id in verifier._keys)
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    assert await verifier.admit(token, KEY, "hash")
    assert await _refusal(verifier, Signer("main").session(KEY, SHARED).token)


async def test_the_private_key_never_leaves_the_signer(
    connection: Connection, signer: Signer
) -> None:
    bucket = await connection.jetstream().key_value(subjects.KEYS)
    entry = await bucket.get(subjects.site_key("main", signer.key_id))
    kept = json.loads(entry.value or b"")
    assert set(kept) == {"key", "expires_at"}
    public = signer._private.public_key().public_bytes_raw()
    assert base64.b64decode(kept["key"]) == public
    assert kept["expires_at"] - time.time() > LONGEST + PUBLISH_EVERY
