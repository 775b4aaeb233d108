"""The streams and buckets of the bus, and a copy of a bucket's keys that is always at hand."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import (
    ExternalStream,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
)
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import Connection, backoff
from bus.waiting import end

_DAY: Final = 86_400.0
_DUPLICATE_WINDOW: Final = 3_600.0
_NAME_IN_USE: Final = 10058
"""JetStream's error code for a stream that exists with another configuration."""

_STREAMS: Final = (
    StreamConfig(
        name=subjects.REQUESTS,
        subjects=[subjects.request("*")],
        description="Accepted requests that are still to be carried out",
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        duplicate_window=_DUPLICATE_WINDOW,
        allow_direct=True,
    ),
    StreamConfig(
        name=subjects.REJECTED,
        subjects=[subjects.rejected("*")],
        description="Rejected requests, whole, kept for replay",
        storage=StorageType.FILE,
        max_age=30 * _DAY,
        duplicate_window=_DUPLICATE_WINDOW,
    ),
    StreamConfig(
        name=subjects.EVENTS,
        subjects=[subjects.event("*")],
        description="What happened",
        storage=StorageType.FILE,
        max_age=90 * _DAY,
        duplicate_window=_DUPLICATE_WINDOW,
    ),
)
_BUCKETS: Final = (
    KeyValueConfig(bucket=subjects.OPTIONS, description="Options of the sites", history=5),
    KeyValueConfig(bucket=subjects.KEYS, description="Public keys of sessions", ttl=2 * _DAY),
    KeyValueConfig(bucket=subjects.TRIES, description="Failed logins", ttl=_DAY),
    KeyValueConfig(bucket=subjects.ACCOUNTS, description="Accounts of the sites"),
    KeyValueConfig(bucket=subjects.TECHNICIANS, description="Who has signed in"),
    KeyValueConfig(bucket=subjects.LIVE, description="What machines do now", ttl=2 * _DAY),
    KeyValueConfig(bucket=subjects.MENUS, description="What menus are made of", ttl=_DAY),
    KeyValueConfig(bucket=subjects.MAILED, description="How far operators are told by mail"),
    KeyValueConfig(bucket=subjects.ACCESS, description="Who may deploy what", history=5),
)
_OF_THE_ESTATE: Final = (
    KeyValueConfig(bucket=subjects.REVOKED, description="Boot images that are revoked"),
    KeyValueConfig(bucket=subjects.SITES, description="The sites of the estate"),
    KeyValueConfig(bucket=subjects.ESTATE_OPTIONS, description="Options of all sites", history=5),
)
"""Written at the hub, and at its sites the same."""
_AT_THE_HUB: Final = frozenset({subjects.LIVE, subjects.OPTIONS})
"""What the hub has of the others: what its monitor writes, and what each program reads."""

_REREAD: Final = 30.0
"""Seconds after which a watch is read anew in full, at the earliest, and at the latest in twice as
many: after a server restarts one may stay silent, and not all of a site do this at once."""
_FORGOTTEN: Final = 2.0
"""Seconds after which the bus drops a watch that nobody listens to. In nats-py's five minutes, ten
of those that were read anew would be left of each, and a stream has 1,000 consumers at most."""


class OwnBucketError(nats.errors.Error):
    """A site has a bucket of its own where it should have the hub's: from when it stood alone.

    No stream becomes a mirror, and what was said here, such as which boot images are revoked, must
    not vanish unseen: so an operator has to do it, and no service needs the right to delete one.
    """

    def __init__(self, bucket: str) -> None:
        super().__init__(
            f"{bucket} was made here before this site had a hub, and is not the hub's. Say at the "
            f"hub what it holds (site register, pki boot revoke, options --estate), then delete "
            f"the stream KV_{bucket} here, or its folder while the bus is down"
        )


async def prepare(stream: JetStreamContext, *, hub: str | None = None, replicas: int = 1) -> None:
    """Makes every stream and bucket that is not there yet; what is there is left as it is.

    So many ``replicas`` of each are kept, each on a server of its own.

    With the JetStream domain of a ``hub``, what is of the whole estate is what the hub has: read
    here also while the line is cut, and written nowhere but there.

    Raises:
        OwnBucketError: a bucket of our own stands where the hub's should.
        nats.errors.Error: the bus does not answer, or has fewer servers than ``replicas``.
    """
    for config in _STREAMS:
        await _unless_there(stream.add_stream(replace(config, num_replicas=replicas)))
    for bucket in _BUCKETS if hub else (*_BUCKETS, *_OF_THE_ESTATE):
        await _unless_there(stream.create_key_value(replace(bucket, replicas=replicas)))
    for bucket in _OF_THE_ESTATE if hub else ():
        await _mirror(stream, bucket, hub, replicas)


async def prepare_hub(stream: JetStreamContext, replicas: int) -> None:
    """Makes the buckets of an estate's hub; what is there stays.

    Raises:
        nats.errors.Error: the bus does not answer, or has fewer servers than ``replicas``.
    """
    for bucket in (*_OF_THE_ESTATE, *_BUCKETS):
        if bucket in _OF_THE_ESTATE or bucket.bucket in _AT_THE_HUB:
            await _unless_there(stream.create_key_value(replace(bucket, replicas=replicas)))


async def _mirror(
    stream: JetStreamContext, bucket: KeyValueConfig, hub: str | None, replicas: int
) -> None:
    name = f"KV_{bucket.bucket}"
    try:
        there = (await stream.stream_info(name)).config
    except nats.js.errors.NotFoundError:
        pass
    else:
        if there.mirror is None:
            raise OwnBucketError(bucket.bucket)
        return
    config = StreamConfig(
        name=name,
        description=bucket.description,
        storage=StorageType.FILE,
        max_msgs_per_subject=bucket.history,
        num_replicas=replicas,
        deny_delete=True,
        allow_direct=True,
        mirror_direct=True,
        mirror=StreamSource(name=name, external=ExternalStream(api=f"$JS.{hub}.API")),
    )
    await _unless_there(stream.add_stream(config))


async def watch(
    stream: JetStreamContext, bucket: str, site: str
) -> AsyncGenerator[dict[str, bytes], None]:
    """A site's keys of a bucket, keyed without the site: as they are now, and after each change.

    Raises:
        nats.errors.Error: there is no such bucket, or the line is down.
    """
    async with contextlib.aclosing(
        _states(stream, await stream.key_value(bucket), bucket, site)
    ) as states:
        async for values in states:
            yield values


async def _states(
    stream: JetStreamContext, opened: KeyValue, bucket: str, site: str
) -> AsyncGenerator[dict[str, bytes], None]:
    watcher = await opened.watch(subjects.site_key(site), inactive_threshold=_FORGOTTEN)
    values: dict[str, bytes] = {}
    whole = False
    try:
        async for entry in watcher:
            if entry is None:
                # nats-py 2.16 says so, too, while the keys are still on their way.
                whole = whole or await _is_empty(stream, bucket, site)
            else:
                key = entry.key[len(site) + 1 :]
                if entry.operation or entry.value is None:
                    values.pop(key, None)
                else:
                    values[key] = entry.value
                whole = whole or entry.delta == 0
            if whole:
                yield dict(values)
    finally:
        with contextlib.suppress(nats.errors.Error):
            await watcher.stop()  # type: ignore[no-untyped-call]


class Mirror:
    """A site's keys of one bucket, always at hand: read whole, then watched, then read whole again.

    ``changed`` is called with all values, keyed without the site, whenever one of them differs.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: str,
        site: str,
        changed: Callable[[Mapping[str, bytes]], None],
    ) -> None:
        self._stream = connection.jetstream()
        self._bucket = bucket
        self._site = site
        self._changed = changed
        self._opened: KeyValue | None = None
        self._values: dict[str, bytes] = {}
        self._loaded = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("bus").bind(bucket=bucket, site=site)
        connection.on_reconnect(self._read_anew)

    async def start(self) -> None:
        """Returns when every key has been read once."""
        self._task = asyncio.create_task(self._follow())
        await self._loaded.wait()

    async def stop(self) -> None:
        """Watches no longer."""
        if self._task:
            await end(self._task)

    async def fetch(self, key: str) -> None:
        """Takes a key as the bucket holds it now: for who knows that the watch may be behind.

        Raises:
            nats.errors.Error: the line is down.
        """
        bucket = await self._open()
        found: dict[str, bytes] = {}
        with contextlib.suppress(nats.js.errors.KeyNotFoundError):
            entry = await bucket.get(subjects.site_key(self._site, key))
            found[key] = entry.value or b""
        self._take({name: value for name, value in self._values.items() if name != key} | found)

    async def _follow(self) -> None:
        attempt = 0
        while True:
            try:
                await self._round()
                attempt = 0
            except (nats.errors.Error, TimeoutError) as error:
                self._opened = None
                self._log.warning("a bucket cannot be read", error=type(error).__name__)
                await asyncio.sleep(backoff(attempt))
                attempt += 1

    async def _round(self) -> None:
        whole = False
        seconds = random.uniform(_REREAD, 2 * _REREAD)  # noqa: S311 (no secret)
        try:
            async with asyncio.timeout(seconds) as self._limit:
                states = _states(self._stream, await self._open(), self._bucket, self._site)
                async with contextlib.aclosing(states):
                    async for values in states:
                        whole = True
                        self._take(values)
        except TimeoutError:
            if not whole:
                raise
        finally:
            self._limit = None

    async def _open(self) -> KeyValue:
        # Asked for once: the bus tells with it all that it knows of the bucket.
        if self._opened is None:
            self._opened = await self._stream.key_value(self._bucket)
        return self._opened

    def _take(self, values: dict[str, bytes]) -> None:
        if values != self._values or not self._loaded.is_set():
            self._values = values
            self._changed(self._values)
        self._loaded.set()

    def _read_anew(self) -> None:
        if self._limit:
            self._limit.reschedule(asyncio.get_running_loop().time())


async def _is_empty(stream: JetStreamContext, bucket: str, site: str) -> bool:
    info = await stream.stream_info(
        f"KV_{bucket}", subjects_filter=f"$KV.{bucket}.{subjects.site_key(site)}"
    )
    return not info.state.subjects


async def _unless_there(making: Awaitable[object]) -> None:
    try:
        await making
    except nats.js.errors.APIError as error:
        if error.err_code != _NAME_IN_USE:
            raise
