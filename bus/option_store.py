"""Where the options of a site are kept, and how every service has them at hand."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import nats.js.errors
import structlog
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bus import subjects
from bus.buckets import Mirror, watch
from bus.connection import Connection
from bus.options import DEFAULTS, PASSWORD, Options, assemble, in_force
from bus.waiting import all_of

_READ_TIMEOUT: Final = 5.0


class LiveOptions:
    """The options in force; a change is in force within milliseconds, without a restart."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        changed: Callable[[Options], None] | None = None,
    ) -> None:
        self._tell = changed
        self.current: Options = DEFAULTS
        self.password_hash: str | None = None
        self._own: Mapping[str, bytes] = {}
        self._estate: Mapping[str, bytes] = {}
        self._read = False
        self._mirrors = (
            Mirror(connection, subjects.OPTIONS, site, self._own_changed),
            Mirror(connection, subjects.ESTATE_OPTIONS, subjects.ESTATE, self._estate_changed),
        )
        self._log = structlog.get_logger("options").bind(site=site)

    async def start(self) -> None:
        """Returns when the options have been read."""
        await all_of(mirror.start() for mirror in self._mirrors)
        self._read = True
        self._changed()

    async def stop(self) -> None:
        """Watches no longer."""
        await all_of(mirror.stop() for mirror in self._mirrors)

    def _own_changed(self, values: Mapping[str, bytes]) -> None:
        self._own = values
        self._changed()

    def _estate_changed(self, values: Mapping[str, bytes]) -> None:
        self._estate = values
        self._changed()

    def _changed(self) -> None:
        if not self._read:
            return
        values = in_force(self._own, self._estate)
        password = values.get(PASSWORD)
        self.password_hash = password.decode("ascii", "replace") if password else None
        self.current, complaints = assemble(values)
        for complaint in complaints:
            self._log.error("an option cannot be used", complaint=complaint)
        if self._tell:
            self._tell(self.current)


async def read_layers(
    connection: Connection, site: str
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What a site has set, and what its estate has, as `bus.options.in_force` takes them.

    Raises:
        nats.errors.Error: the bus does not keep options here.
        TimeoutError: it does not answer.
    """
    stream = connection.jetstream()
    own = await _read(stream, subjects.OPTIONS, site)
    return own, await _read(stream, subjects.ESTATE_OPTIONS, subjects.ESTATE)


async def _read(stream: JetStreamContext, bucket: str, owner: str) -> dict[str, bytes]:
    states = watch(stream, bucket, owner)
    async with asyncio.timeout(_READ_TIMEOUT), contextlib.aclosing(states):
        return await anext(states)


class OptionStore:
    """Reads and writes options in the bucket where they are kept."""

    def __init__(self, stream: JetStreamContext, bucket: KeyValue, name: str, owner: str) -> None:
        """Takes the bucket, its name, and whose options are meant: a site, or a layer."""
        self._stream = stream
        self._bucket = bucket
        self._name = name
        self._owner = owner

    @classmethod
    async def open(cls, connection: Connection, site: str) -> "OptionStore":
        """The store of a site.

        Raises:
            nats.errors.Error: the bus does not keep options here.
        """
        return await cls._open(connection, subjects.OPTIONS, site)

    @classmethod
    async def of_estate(cls, connection: Connection, layer: str) -> "OptionStore":
        """The store of the estate's options of a layer, ``default`` or ``enforced``.

        Raises:
            nats.errors.Error: the bus does not keep options here.
        """
        return await cls._open(
            connection, subjects.ESTATE_OPTIONS, subjects.site_key(subjects.ESTATE, layer)
        )

    @classmethod
    async def _open(cls, connection: Connection, name: str, owner: str) -> "OptionStore":
        stream = connection.jetstream()
        return cls(stream, await stream.key_value(name), name, owner)

    async def read(self) -> dict[str, bytes]:
        """Every value that has been set, as JSON, by the option's name.

        Raises:
            nats.errors.Error: the line is down.
            TimeoutError: the bus does not answer.
        """
        return await _read(self._stream, self._name, self._owner)

    async def write(self, name: str, value: bytes) -> None:
        """Sets one option; ``value`` is JSON, or the hash of the password."""
        await self._bucket.put(subjects.site_key(self._owner, name), value)

    async def replace(self, name: str, value: bytes, instead_of: bytes) -> bool:
        """Sets one option if it is still ``instead_of``; whether it was."""
        key = subjects.site_key(self._owner, name)
        try:
            entry = await self._bucket.get(key)
            if entry.value != instead_of:
                return False
            await self._bucket.update(key, value, last=entry.revision)
        except (
            nats.js.errors.KeyNotFoundError,
            nats.js.errors.KeyWrongLastSequenceError,
        ):
            return False
        return True

    async def reset(self, name: str) -> None:
        """Puts one option back to its default."""
        await self._bucket.delete(subjects.site_key(self._owner, name))
