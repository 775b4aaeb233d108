"""The rows that menus are made of, shared by the copies of a site through the bus.

A site has one snapshot in the bucket, the one that was put last: its parts under numbers, and a
head that says what it is. Whatever is wrong with it, it is as if there were none.
"""

import asyncio
import hashlib
import zlib
from typing import Final

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import Connection
from engine.menu_rows import MenuRows, Wanted

PART: Final = 512 * 1024
"""Bytes of a part."""
MOST_PARTS: Final = 32
"""What needs more of them is not shared."""
_LARGEST: Final = 128 * 1024 * 1024
"""Bytes that a snapshot may have when it is unpacked."""
_FETCHED_WITHIN: Final = 0.5
"""Seconds; reading the database takes hardly longer."""
_PUT_WITHIN: Final = 2.0
_HEAD: Final = "head"


class _Head(Struct, frozen=True):
    of: str
    parts: int
    digest: str


_rows_decoder: Final = msgspec.msgpack.Decoder(MenuRows)
_head_decoder: Final = msgspec.json.Decoder(_Head)


class Snapshots:
    """The snapshot of a site in the bucket ``imaging_menus``."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
        self._site = site
        self._log = structlog.get_logger("menu")

    async def fetch(self, fingerprint: str, wanted: Wanted) -> MenuRows | None:
        """The rows that were read when the database had this fingerprint, if they are there."""
        try:
            async with asyncio.timeout(_FETCHED_WITHIN):
                bucket = await self._bucket()
                head = _head_decoder.decode(await self._value(bucket, _HEAD))
                if head.of != _name(fingerprint, wanted) or not 0 < head.parts <= MOST_PARTS:
                    return None
                numbers = range(1, head.parts + 1)
                parts = [await self._value(bucket, str(number)) for number in numbers]
                return await asyncio.to_thread(_unpacked, b"".join(parts), head.digest)
        except (nats.errors.Error, TimeoutError, ValueError, zlib.error) as error:
            self._log.debug("there is no snapshot to be had", reason=type(error).__name__)
            return None

    async def put(self, fingerprint: str, wanted: Wanted, rows: MenuRows) -> None:
        """Has the other copies find these rows; if it cannot be done, they read them themselves."""
        try:
            async with asyncio.timeout(_PUT_WITHIN):
                packed = await asyncio.to_thread(_packed, rows)
                parts = [packed[start : start + PART] for start in range(0, len(packed), PART)]
                if len(parts) > MOST_PARTS:
                    return
                bucket = await self._bucket()
                for number, part in enumerate(parts, 1):
                    await bucket.put(self._key(str(number)), part)
                digest = hashlib.sha256(packed).hexdigest()
                head = _Head(_name(fingerprint, wanted), len(parts), digest)
                await bucket.put(self._key(_HEAD), msgspec.json.encode(head))
        except (nats.errors.Error, TimeoutError) as error:
            self._log.warning("a snapshot cannot be shared", error=type(error).__name__)

    async def _bucket(self) -> KeyValue:
        return await self._connection.jetstream().key_value(subjects.MENUS)

    async def _value(self, bucket: KeyValue, key: str) -> bytes:
        return (await bucket.get(self._key(key))).value or b""

    def _key(self, name: str) -> str:
        return subjects.site_key(self._site, name)


def _name(fingerprint: str, wanted: Wanted) -> str:
    told = msgspec.json.encode((fingerprint, wanted.tag, sorted(wanted.ruled)))
    return hashlib.sha256(told).hexdigest()


def _packed(rows: MenuRows) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(rows), 1)


def _unpacked(packed: bytes, digest: str) -> MenuRows:
    """The rows.

    Raises:
        ValueError, zlib.error: it is something else, such as parts of two snapshots.
    """
    if hashlib.sha256(packed).hexdigest() != digest:
        raise ValueError("the parts do not belong together")
    unpacking = zlib.decompressobj()
    told = unpacking.decompress(packed, _LARGEST)
    if not unpacking.eof:
        raise ValueError("it is too large, or not whole")
    return _rows_decoder.decode(told)
