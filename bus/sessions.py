"""Sign and verify a technician's session.

A session is a JSON web token signed with Ed25519 (RFC 7519, RFC 8037), bound to the machine and
the site. Each copy of the auth service signs with a key of its own that never leaves its memory;
the public key stands in the bucket ``imaging_keys`` until the last session it signed has ended. So
a key is as young as its process, and no copy needs another's secret.
"""

import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

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
from bus.problems import Problem

LIFETIME: Final = 3600.0
"""Seconds that a session is valid."""

_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "imageinvoker"
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
_CLOCKS_DIFFER: Final = 30
"""Seconds by which the clocks of two copies may differ."""


class PublicKey(Struct, frozen=True, kw_only=True):
    """What verifies sessions, as the bucket keeps it: 32 bytes, and the second it ends to count."""

    key: bytes
    expires_at: float


class Claims(Struct, frozen=True, kw_only=True):
    """What a verified session says of the technician; with one shared password there is no name."""

    username: str | None
    protection: Protection


_public_key = decoder(PublicKey)


class Signer:
    """Makes sessions with a key of its own."""

    def __init__(self, site: str, lifetime: float = LIFETIME) -> None:
        self._site = site
        self._lifetime = lifetime
        self._private = Ed25519PrivateKey.generate()
        self.key_id: Final = secrets.token_hex(8)

    async def publish(self, connection: Connection) -> None:
        """Lets everybody verify what is signed from now until half a lifetime from now, or later.

        To be called again at least that often, for as long as this key signs.
        """
        key = PublicKey(
            key=self._private.public_key().public_bytes_raw(),
            expires_at=time.time() + 2 * self._lifetime,
        )
        bucket = await connection.jetstream().key_value(subjects.KEYS)
        await bucket.put(subjects.site_key(self._site, self.key_id), encode(key))

    @property
    def publish_every(self) -> float:
        """Seconds between two calls of ``publish``."""
        return self._lifetime / 2

    def session(self, machine: str, protection: Protection, username: str | None) -> Session:
        """A session for a technician who passed this protection at a machine."""
        now = time.time()
        claims = {
            "iss": _ISSUER,
            "aud": self._site,
            "sub": machine,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "name": username,
            "protection": protection,
        }
        token = jwt.encode(claims, self._private, _ALGORITHM, headers={"kid": self.key_id})
        return Session(
            token=token,
            username=username,
            expires_at=datetime.fromtimestamp(int(now + self._lifetime), UTC),
        )


class Verifier:
    """Tells whether a session is good, with the site's public keys always at hand."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._site = site
        self._keys: dict[str, tuple[Ed25519PublicKey, float]] = {}
        self._mirror = Mirror(connection, subjects.KEYS, site, self._replace)
        self._log = structlog.get_logger("sessions").bind(site=site)

    async def start(self) -> None:
        """Returns when the keys have been read."""
        await self._mirror.start()

    async def stop(self) -> None:
        """Watches no longer."""
        await self._mirror.stop()

    async def admit(self, token: str | None, machine: str, protection: Protection) -> Claims | None:
        """What the session says, if the site is protected; None where nobody needs to sign in.

        A session made under another protection is none: a site that is closed is closed at once.

        Raises:
            Problem: ``login_required`` or ``session_expired``.
        """
        if protection == "none":
            return None
        if not token:
            raise Problem("login_required")
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=self._site,
                issuer=_ISSUER,
                subject=machine,
                leeway=_CLOCKS_DIFFER,
                options={"require": ["exp", "aud", "sub", "iss"]},
            )
        except jwt.ExpiredSignatureError:
            raise Problem("session_expired") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            # PyJWT lets the errors of decoding text and, before 2.11, of deep nesting through.
            raise Problem("login_required") from None
        try:
            said = msgspec.convert({"username": claims["name"], **claims}, Claims)
        except (KeyError, msgspec.ValidationError):
            raise Problem("login_required") from None
        if said.protection != protection:
            raise Problem("login_required")
        return said

    async def _key(self, key_id: str) -> Ed25519PublicKey:
        if key_id not in self._keys and _KEY_ID.match(key_id):
            # A copy of the auth service that has just started may be ahead of the watch.
            try:
                value = await self._mirror.fetch(key_id)
            except nats.errors.Error:
                value = None
            if value:
                self._keys |= self._read({key_id: value})
        if key_id not in self._keys:
            raise Problem("login_required")
        key, expires_at = self._keys[key_id]
        if expires_at < time.time():
            raise Problem("session_expired")
        return key

    def _replace(self, values: Mapping[str, bytes]) -> None:
        self._keys = self._read(values)

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
