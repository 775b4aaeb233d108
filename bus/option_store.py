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
from bus.options import DEFAULTS, PASSWORD, Options, assemble

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
        self._mirror = Mirror(connection, subjects.OPTIONS, site, self._changed)
        self._log = structlog.get_logger("options").bind(site=site)

    async def start(self) -> None:
        """Returns when the options have been read."""
        await self._mirror.start()

    async def stop(self) -> None:
        """Watches no longer."""
        await self._mirror.stop()

    def _changed(self, values: Mapping[str, bytes]) -> None:
        password = values.get(PASSWORD)
        self.password_hash = password.decode("ascii", "replace") if password else None
        self.current, complaints = assemble(values)
        for complaint in complaints:
            self._log.error("an option cannot be used", complaint=complaint)
        if self._tell:
            self._tell(self.current)


class OptionStore:
    """Reads and writes a site's options in the bucket."""

    def __init__(self, stream: JetStreamContext, bucket: KeyValue, site: str) -> None:
        self._stream = stream
        self._bucket = bucket
        self._site = site

    @classmethod
    async def open(cls, connection: Connection, site: str) -> "OptionStore":
        """The store of a site.

        Raises:
            nats.errors.Error: the bus does not keep options here.
        """
        stream = connection.jetstream()
        return cls(stream, await stream.key_value(subjects.OPTIONS), site)

    async def read(self) -> dict[str, bytes]:
        """Every value that has been set, as JSON, by the option's name.

        Raises:
            nats.errors.Error: the line is down.
            TimeoutError: the bus does not answer.
        """
        states = watch(self._stream, subjects.OPTIONS, self._site)
        async with asyncio.timeout(_READ_TIMEOUT), contextlib.aclosing(states):
            return await anext(states)

    async def write(self, name: str, value: bytes) -> None:
        """Sets one option; ``value`` is JSON, or the hash of the password."""
        await self._bucket.put(subjects.site_key(self._site, name), value)

    async def replace(self, name: str, value: bytes, instead_of: bytes) -> bool:
        """Sets one option if it is still ``instead_of``; whether it was."""
        key = subjects.site_key(self._site, name)
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
        await self._bucket.delete(subjects.site_key(self._site, name))
