"""What NATS believes of operators, accounts and users: signed claims, as JSON Web Tokens.

The claims are those of github.com/nats-io/jwt, version 2; here stand the ones that an estate needs.
A server trusts one operator. The operator signs accounts, an account (or a signing key of it) its
users. A signing key with a role gives every user that it signs the permissions of its template, and
no others: whoever holds it can make nothing else.
"""

import base64
import hashlib
import time
from typing import Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from bus.messages import decoder, encode
from bus.nkeys import KeyPair, KeyTextError, verified

NO_LIMIT: Final = -1
VERSION: Final = 2
"""Of the claims."""

_HEADER: Final = b'{"typ":"JWT","alg":"ed25519-nkey"}'

ConnectionType = Literal["STANDARD", "WEBSOCKET", "LEAFNODE"]


class ClaimsError(ValueError):
    """A token that is none, or that its issuer has not signed; the text does not repeat it."""


class Subjects(Struct, frozen=True, omit_defaults=True):
    """Subjects, with wildcards, that are allowed or denied; where none is allowed, all are."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Responses(Struct, frozen=True):
    """How often a user may answer where a question asks for it; ``ttl`` in nanoseconds."""

    max: int
    ttl: int


class Permissions(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a user may publish and subscribe to, and how much of it at most; -1 is no limit.

    ``payload`` is in bytes a message, ``data`` is of no use today.
    """

    pub: Subjects = Subjects()
    sub: Subjects = Subjects()
    subs: int
    payload: int
    data: int
    resp: Responses | None = None
    allowed_connection_types: tuple[ConnectionType, ...] = ()


class Role(Struct, frozen=True, kw_only=True, tag_field="kind", tag="user_scope"):
    """A signing key, and the permissions of every user that it signs."""

    key: str
    role: str
    template: Permissions


class Limits(Struct, frozen=True, kw_only=True):
    """What an account may use; -1 is no limit, and JetStream's are 0 where it has none."""

    subs: int = NO_LIMIT
    data: int = NO_LIMIT
    payload: int = NO_LIMIT
    imports: int = NO_LIMIT
    exports: int = NO_LIMIT
    wildcards: bool = True
    conn: int = NO_LIMIT
    leaf: int = NO_LIMIT
    mem_storage: int = 0
    disk_storage: int = 0
    streams: int = 0
    consumer: int = 0


WITH_STREAMS: Final = Limits(
    mem_storage=NO_LIMIT, disk_storage=NO_LIMIT, streams=NO_LIMIT, consumer=NO_LIMIT
)


class Callout(Struct, frozen=True):
    """Who decides who comes in: users of the account, by public key, and where they let people."""

    auth_users: tuple[str, ...]
    allowed_accounts: tuple[str, ...]


class Operator(
    Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="operator"
):
    """Of whom a server takes accounts."""

    version: int
    system_account: str
    signing_keys: tuple[str, ...] = ()


class Account(
    Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="account"
):
    """What shares subjects and streams; ``revocations`` are users by public key, each with the
    second before which its claims were issued, ``*`` for all.
    """

    version: int
    limits: Limits
    default_permissions: dict[str, dict[str, str]]
    signing_keys: tuple[str | Role, ...] = ()
    authorization: Callout | None = None
    revocations: dict[str, int] = {}


class User(
    Permissions, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="user"
):
    """A user with permissions of its own; ``issuer_account`` where a signing key has signed it."""

    version: int
    issuer_account: str | None = None
    bearer_token: bool = False


class UserOfRole(
    Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="user"
):
    """A user with the permissions of the signing key that has signed it."""

    version: int
    issuer_account: str


class Presented(Struct, frozen=True):
    """What a client says to come in."""

    user: str = ""
    password: str = msgspec.field(name="pass", default="")


class Connecting(Struct, frozen=True):
    """From where a client comes, and the number of its connection at the server."""

    host: str = ""
    id: int = 0


class Answering(Struct, frozen=True):
    """The server that asks."""

    id: str


class AuthorizationRequest(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="authorization_request"
):
    """A server asks whether a client may come in; ``user_nkey`` is who the client will be."""

    server_id: Answering
    user_nkey: str
    client_info: Connecting = Connecting()
    connect_opts: Presented = Presented()


class AuthorizationResponse(
    Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="type",
    tag="authorization_response",
):
    """The user that a client is, as a token, or why it may not come in (for the server's log)."""

    version: int
    jwt: str = ""
    error: str = ""


Body = TypeVar("Body", bound=Struct)


class Claims(Struct, Generic[Body], frozen=True, omit_defaults=True, kw_only=True):
    """Who says what of whom; times in seconds since 1970."""

    iss: str
    sub: str
    iat: int
    nats: Body
    name: str = ""
    aud: str = ""
    exp: int = 0
    jti: str = ""


def sign(
    key: KeyPair,
    subject: str,
    body: Struct,
    *,
    name: str = "",
    audience: str = "",
    expires_at: int = 0,
) -> str:
    """The token of what ``key`` says of ``subject``; it is good for ever if it does not expire."""
    claims = Claims(
        iss=key.public,
        sub=subject,
        iat=int(time.time()),
        nats=body,
        name=name,
        aud=audience,
        exp=expires_at,
    )
    digest = hashlib.sha256(encode(claims)).digest()
    claims = msgspec.structs.replace(claims, jti=base64.b32encode(digest).decode().rstrip("="))
    said = f"{_text(_HEADER)}.{_text(encode(claims))}"
    return f"{said}.{_text(key.sign(said.encode()))}"


class Reader(Generic[Body]):
    """Reads the tokens of one kind of claims."""

    def __init__(self, claims: type[Claims[Body]]) -> None:
        """``claims`` with its body: ``Claims[User]``."""
        self._decoder = decoder(claims)

    def read(self, token: str) -> Claims[Body]:
        """The claims of a token; its issuer has signed them, whoever that is.

        Whether they have expired is for the caller to see.

        Raises:
            ClaimsError: it is no token of this kind.
        """
        said, _, signature = token.rpartition(".")
        try:
            claims = self._decoder.decode(_bytes(said.partition(".")[2]))
            good = verified(claims.iss, _bytes(signature), said.encode())
        except (ValueError, KeyTextError, RecursionError):
            raise ClaimsError("this is no token of NATS, or of another kind") from None
        if not good:
            raise ClaimsError("this token is not signed by whom it names")
        return claims


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
