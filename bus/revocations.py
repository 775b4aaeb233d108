"""The boot images that are revoked: their credentials are good no longer, whenever they expire."""

import asyncio
import contextlib
from datetime import datetime
from typing import Final

import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bus import subjects
from bus.boot_credential import valid_image
from bus.buckets import watch
from bus.connection import Connection
from bus.messages import Time, decoder, encode

_TIMEOUT: Final = 5.0


class Revocation(Struct, frozen=True):
    """Since when an image is revoked."""

    at: Time


_revocation = decoder(Revocation)


def revoked_at(value: bytes) -> float:
    """When an image was revoked, in seconds since 1970; 0 if what the bucket holds is junk."""
    try:
        return _revocation.decode(value).at.timestamp()
    except (ValueError, OverflowError):
        return 0.0


class RevocationStore:
    """Reads and writes the revoked images in their bucket.

    Every method raises nats.errors.Error or TimeoutError when the bus does not answer.
    """

    def __init__(self, stream: JetStreamContext, bucket: KeyValue) -> None:
        self._stream = stream
        self._bucket = bucket

    @classmethod
    async def open(cls, connection: Connection) -> "RevocationStore":
        """The revoked images of a bus.

        Raises:
            nats.errors.Error: the bus keeps none.
        """
        stream = connection.jetstream()
        return cls(stream, await stream.key_value(subjects.REVOKED))

    async def read(self) -> list[str]:
        """The ids of the images, in order."""
        states = watch(self._stream, subjects.REVOKED, subjects.ESTATE)
        async with asyncio.timeout(_TIMEOUT), contextlib.aclosing(states):
            return sorted(await anext(states))

    async def revoke(self, image: str, now: datetime) -> bool:
        """Revokes an image; False if it was revoked already.

        Raises:
            ValueError: this is no id of an image.
        """
        async with asyncio.timeout(_TIMEOUT):
            try:
                await self._bucket.create(self._key(image), encode(Revocation(now)))
            except nats.js.errors.KeyWrongLastSequenceError:
                return False
        return True

    async def reinstate(self, image: str) -> bool:
        """Takes a revocation back; whether there was one.

        Raises:
            ValueError: this is no id of an image.
        """
        key = self._key(image)
        async with asyncio.timeout(_TIMEOUT):
            try:
                await self._bucket.get(key)
            except nats.js.errors.KeyNotFoundError:
                return False
            await self._bucket.delete(key)
        return True

    def _key(self, image: str) -> str:
        if not valid_image(image):
            raise ValueError(f"{image!r} is no image: 1 to 64 of a-z, 0-9, _ and -")
        return subjects.site_key(subjects.ESTATE, image)
