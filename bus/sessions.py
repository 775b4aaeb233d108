"""Sign and verify a technician's session.

A session is a JSON web token signed with Ed25519 (RFC 7519, RFC 8037), bound to the machine and
the site. Each copy of the auth service signs with a key of its own that never leaves its memory and
is replaced by a new one every few hours; the public key stands in the bucket ``imaging_keys`` until
the last session it signed has ended. So no copy needs another's secret, and nobody is thrown out
when a key is replaced.
"""

import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import jwt
import msgspec
import nats.errors
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from msgspec import Struct

from bus import subjects
from bus.buckets import Mirror
from bus.connection import Connection
from bus.messages import Protection, Session, decoder, encode
from bus.problems import Code, Problem

LIFETIME: Final = 3600.0
"""Seconds that a session is valid, unless the options say otherwise."""
LONGEST: Final = 86_400.0
"""Seconds that the options allow a session at most."""
PUBLISH_EVERY: Final = 1800.0
"""Seconds between two publications of a key."""
ROTATE_EVERY: Final = 6 * 3600.0
"""Seconds after which a new key signs."""

_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "imageinvoker"
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
_CLOCKS_DIFFER: Final = 30
"""Seconds by which the clocks of two copies may differ."""
_REMEMBERED: Final = 4_000
"""Sessions whose signature has been verified and is not verified again."""

Reason = Literal[
    "missing",
    "malformed",
    "forged",
    "unknown key",
    "not yet valid",
    "expired",
    "other site",
    "other machine",
    "other protection",
    "account changed",
]


class SessionRefused(Problem):
    """A session that does not count; ``reason`` is for the audit, not for the screen."""

    def __init__(self, code: Code, reason: Reason) -> None:
        super().__init__(code)
        self.reason: Reason = reason


class PublicKey(Struct, frozen=True, kw_only=True):
    """What verifies sessions, as the bucket keeps it: 32 bytes, and the second it ends to count."""

    key: bytes
    expires_at: float


class Claims(Struct, frozen=True, kw_only=True):
    """What a verified session says of the technician; with one shared password there is no name.

    ``generation`` is that of the account's password (``bus/technicians.py``).
    """

    username: str | None
    protection: Protection
    generation: int = 0


class _Verified(Struct, frozen=True):
    """A session whose signature is good: what remains to be looked at each time."""

    key_id: str
    machine: str
    expires_at: float
    claims: Claims


_public_key = decoder(PublicKey)


class Signer:
    """Makes sessions with a key of its own."""

    def __init__(self, site: str, rotate_every: float = ROTATE_EVERY) -> None:
        self._site = site
        self._rotate_every = rotate_every
        self._born = time.monotonic()
        self._private = Ed25519PrivateKey.generate()
        self.key_id = secrets.token_hex(8)
        self._key_until = 0.0

    @property
    def key_lasts(self) -> bool:
        """Whether the published key outlives all sessions signed now, since no clock overtook it.

        A clock that jumps ahead may have; then it is to be published at once.
        """
        return time.time() + LONGEST <= self._key_until

    async def publish(self, connection: Connection) -> None:
        """Lets everybody verify what is signed until the next call, which is due in half an hour.

        A key that has signed for long enough is replaced; sessions it has signed stay good.

        Raises:
            nats.errors.Error: the bus did not take the key.
        """
        private, key_id, born = self._private, self.key_id, self._born
        if time.monotonic() - born >= self._rotate_every:
            private, key_id = Ed25519PrivateKey.generate(), secrets.token_hex(8)
            born = time.monotonic()
        key = PublicKey(
            key=private.public_key().public_bytes_raw(),
            # One publication may fail; the last session may be as long as sessions can be.
            expires_at=time.time() + 2 * PUBLISH_EVERY + LONGEST,
        )
        bucket = await connection.jetstream().key_value(subjects.KEYS)
        await bucket.put(subjects.site_key(self._site, key_id), encode(key))
        self._private, self.key_id, self._born = private, key_id, born
        self._key_until = key.expires_at

    def session(self, machine: str, claims: Claims, lifetime: float = LIFETIME) -> Session:
        """A session of some seconds for a technician who passed a protection at a machine."""
        now = int(time.time())
        expires_at = int(now + lifetime)
        said = {
            "iss": _ISSUER,
            "aud": self._site,
            "sub": machine,
            "iat": now,
            "exp": expires_at,
            "name": claims.username,
            "protection": claims.protection,
            "generation": claims.generation,
        }
        token = jwt.encode(said, self._private, _ALGORITHM, headers={"kid": self.key_id})
        return Session(
            token=token,
            username=claims.username,
            expires_at=datetime.fromtimestamp(expires_at, UTC),
        )


class Verifier:
    """Tells whether a session is good, with the site's public keys always at hand."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._site = site
        self._keys: dict[str, tuple[Ed25519PublicKey, float]] = {}
        self._verified: dict[str, _Verified] = {}
        self._headers: dict[str, str] = {}
        """The keys that are named by headers whose signature was good."""
        self._mirror = Mirror(connection, subjects.KEYS, site, self._replace)
        self._log = structlog.get_logger("sessions").bind(site=site)

    async def start(self) -> None:
        """Returns when the keys have been read."""
        await self._mirror.start()

    async def stop(self) -> None:
        """Watches no longer."""
        await self._mirror.stop()

    def has_seen(self, token: str) -> bool:
        """Whether this session was verified before."""
        return token in self._verified

    async def admit(self, token: str | None, machine: str, protection: Protection) -> Claims | None:
        """What the session says, if the site is protected; None where nobody needs to sign in.

        A session made under another protection is none: a site that is closed is closed at once.

        Raises:
            SessionRefused: ``login_required`` or ``session_expired``.
        """
        if protection == "none":
            return None
        if not token:
            raise SessionRefused("login_required", "missing")
        # A session is sent with every question, and verifying a signature takes longer than
        # answering. What can change between two questions is looked at each time.
        verified = self._verified.get(token) or await self._verify(token)
        await self._fetch_key(verified.key_id)
        return self._judge(verified, machine, protection)

    def at_hand(self, token: str, machine: str, protection: Protection) -> Claims | None:
        """What `admit` finds without asking anybody; None for what must be asked, or refused."""
        verified = self._verified.get(token)
        if verified is None:
            return None
        try:
            return self._judge(verified, machine, protection)
        except SessionRefused:
            return None

    def _judge(self, verified: _Verified, machine: str, protection: Protection) -> Claims:
        if verified.machine != machine:
            raise SessionRefused("login_required", "other machine")
        self._key(verified.key_id)
        if verified.expires_at + _CLOCKS_DIFFER <= time.time():
            raise SessionRefused("session_expired", "expired")
        if verified.claims.protection != protection:
            raise SessionRefused("login_required", "other protection")
        return verified.claims

    async def _verify(self, token: str) -> _Verified:
        try:
            header = token.partition(".")[0]
            key_id = self._named(header) or str(jwt.get_unverified_header(token).get("kid"))
            await self._fetch_key(key_id)
            claims = jwt.decode(
                token,
                self._key(key_id),
                algorithms=[_ALGORITHM],
                audience=self._site,
                issuer=_ISSUER,
                leeway=_CLOCKS_DIFFER,
                options={"require": ["exp", "aud", "sub", "iss"]},
            )
            said = msgspec.convert({"username": claims["name"], **claims}, Claims)
        except jwt.ExpiredSignatureError:
            raise SessionRefused("session_expired", "expired") from None
        except jwt.ImmatureSignatureError:
            # The clock of the copy that signed it is ahead.
            raise SessionRefused("login_required", "not yet valid") from None
        except jwt.InvalidSignatureError:
            raise SessionRefused("login_required", "forged") from None
        except jwt.InvalidAudienceError:
            raise SessionRefused("login_required", "other site") from None
        except (jwt.InvalidTokenError, KeyError, ValueError, RecursionError):
            # PyJWT lets the errors of decoding text and, before 2.11, of deep nesting through.
            raise SessionRefused("login_required", "malformed") from None
        verified = _Verified(key_id, claims["sub"], float(claims["exp"]), said)
        if len(self._verified) >= _REMEMBERED:
            self._verified.pop(next(iter(self._verified)))
        self._verified[token] = verified
        self._headers[header] = key_id
        return verified

    def _named(self, header: str) -> str | None:
        """The key that a header names, if that is known and counts.

        All sessions that a key signs have one header, which takes a sixth of verifying one to read.
        """
        key_id = self._headers.get(header)
        if key_id is None or key_id not in self._keys or self._keys[key_id][1] < time.time():
            return None
        return key_id

    async def _fetch_key(self, key_id: str) -> None:
        if key_id not in self._keys and _KEY_ID.match(key_id):
            # A copy of the auth service that has just started may be ahead of the watch.
            try:
                await self._mirror.fetch(key_id)
            except (nats.errors.Error, TimeoutError):
                self._log.warning("a session key cannot be asked for", key_id=key_id)

    def _key(self, key_id: str) -> Ed25519PublicKey:
        if key_id not in self._keys:
            raise SessionRefused("login_required", "unknown key")
        key, expires_at = self._keys[key_id]
        if expires_at < time.time():
            raise SessionRefused("session_expired", "expired")
        return key

    def _replace(self, values: Mapping[str, bytes]) -> None:
        self._keys = self._read(values)
        self._headers.clear()

    def _read(self, values: Mapping[str, bytes]) -> dict[str, tuple[Ed25519PublicKey, float]]:
        keys: dict[str, tuple[Ed25519PublicKey, float]] = {}
        for key_id, value in values.items():
            try:
                public = _public_key.decode(value)
                key = Ed25519PublicKey.from_public_bytes(public.key)
            except ValueError:
                self._log.exception("a session key cannot be read", key_id=key_id)
            else:
                keys[key_id] = key, public.expires_at
        return keys
