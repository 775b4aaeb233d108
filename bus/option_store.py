"""Where the options of a site are kept, and how every service has them at hand."""

from collections.abc import Callable, Mapping

import nats.js.errors
import structlog
from nats.js.kv import KeyValue

from bus import subjects
from bus.buckets import Mirror
from bus.connection import Connection
from bus.options import DEFAULTS, PASSWORD, Options, assemble


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
        self.password_hash = password.decode() if password else None
        self.current, complaints = assemble(values)
        for complaint in complaints:
            self._log.error("an option cannot be used", complaint=complaint)
        if self._tell:
            self._tell(self.current)


class OptionStore:
    """Reads and writes a site's options in the bucket."""

    def __init__(self, bucket: KeyValue, site: str) -> None:
        self._bucket = bucket
        self._site = site

    @classmethod
    async def open(cls, connection: Connection, site: str) -> "OptionStore":
        """The store of a site.

        Raises:
            nats.errors.Error: the bus does not keep options here.
        """
        return cls(await connection.jetstream().key_value(subjects.OPTIONS), site)

    async def read(self) -> dict[str, bytes]:
        """Every value that has been set, as JSON, by the option's name."""
        watcher = await self._bucket.watch(subjects.site_key(self._site), ignore_deletes=True)
        values: dict[str, bytes] = {}
        try:
            async for entry in watcher:
                if entry is None:
                    break
                values[entry.key.partition(".")[2]] = entry.value or b""
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]
        return values

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
