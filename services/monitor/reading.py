"""A site's events as they stand in the stream, in their order, a batch at a time."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import nats.errors
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from bus import subjects
from bus.connection import Connection

BATCH: Final = 500
"""Messages that are taken at a time, at most."""
_WAIT: Final = 1.0
"""Seconds that one pull waits for a new event."""
_GATHERED: Final = 0.05
"""Seconds that events wait for more to share their transaction, where one comes after the other."""
_FORGOTTEN: Final = 60.0
"""Seconds after which the bus drops the consumer of a reader that is gone."""


class GapError(Exception):
    """A message was lost on its way; it still stands in the stream."""


class Kept(Struct, frozen=True):
    """What the stream holds: which stream it is, and its first and last sequence number."""

    stream: str
    first: int
    last: int


async def kept(connection: Connection) -> Kept:
    """What the stream of events holds.

    Raises:
        nats.errors.Error, TimeoutError: the bus does not say.
    """
    info = await connection.jetstream().stream_info(subjects.EVENTS)
    # Made anew, a stream counts from one again; when it was made tells it from the one before.
    made = info.created.isoformat() if info.created else "unknown"
    return Kept(made, info.state.first_seq, info.state.last_seq)


async def pending(connection: Connection, site: str, after: int) -> int:
    """How many events of a site stand behind a place in the stream.

    Raises:
        nats.errors.Error, TimeoutError: the bus does not say.
    """
    stream = connection.jetstream()
    made = await _consumer(stream, site, after)
    await _remove(stream, made)
    return made.num_pending or 0


@asynccontextmanager
async def reader(connection: Connection, site: str, after: int) -> AsyncGenerator["Reader"]:
    """Reads a site's events from behind a place in the stream; no message is acknowledged.

    Raises:
        nats.errors.Error, TimeoutError: the bus cannot be read.
    """
    stream = connection.jetstream()
    made = await _consumer(stream, site, after)
    try:
        pulling = await stream.pull_subscribe_bind(made.name, subjects.EVENTS)
        try:
            yield Reader(stream, made, pulling)
        finally:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await pulling.unsubscribe()
    finally:
        await _remove(stream, made)


class Reader:
    """An ordered consumer of one site's events."""

    def __init__(
        self,
        stream: JetStreamContext,
        made: ConsumerInfo,
        pulling: JetStreamContext.PullSubscription,
    ) -> None:
        self.pending = made.num_pending or 0
        """How many events are known to stand behind those that were read."""
        self._stream = stream
        self._name = made.name
        self._pulling = pulling
        self._seen = 0
        self._busy = False

    async def batch(self) -> list[Msg]:
        """The next messages; none if nothing new comes within a second.

        Raises:
            GapError: one was lost on its way; read anew from behind the last.
            nats.errors.Error, TimeoutError: the bus cannot be read any more.
        """
        if self._busy:
            await asyncio.sleep(_GATHERED)
        found = await self._fetch(BATCH)
        # What has come since the first was sent shares its transaction.
        while found and self.pending and len(found) < BATCH:
            more = await self._fetch(BATCH - len(found))
            if not more:
                break
            found += more
        self._busy = 0 < len(found) < BATCH
        return found

    async def _fetch(self, most: int) -> list[Msg]:
        # Who asks for more than there is waits for the rest.
        wanted = min(max(self.pending, 1), most)
        try:
            found = await self._pulling.fetch(wanted, _WAIT)
        except TimeoutError:
            # Nothing new, or the consumer is gone: then this raises.
            info = await self._stream.consumer_info(subjects.EVENTS, self._name)
            self.pending = info.num_pending or 0
            return []
        for message in found:
            numbers = message.metadata
            self._seen += 1
            if numbers.sequence.consumer != self._seen:
                raise GapError(f"{self._seen} was expected, and {numbers.sequence.consumer} came")
            self.pending = numbers.num_pending
        return found


async def _consumer(stream: JetStreamContext, site: str, after: int) -> ConsumerInfo:
    return await stream.add_consumer(
        subjects.EVENTS,
        ConsumerConfig(
            filter_subject=subjects.event(site),
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_FORGOTTEN,
            mem_storage=True,
            num_replicas=1,
        ),
    )


async def _remove(stream: JetStreamContext, made: ConsumerInfo) -> None:
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        await stream.delete_consumer(subjects.EVENTS, made.name)
