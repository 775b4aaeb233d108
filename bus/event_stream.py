"""The events of a site as they stand in the stream, in the order in which they were kept."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Final

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import Connection, backoff
from bus.events import Event, Kind, event_decoder, one_line
from bus.pulling import Pull, numbers, pulled

BATCH: Final = 500
"""Messages that are taken at a time, at most."""
GATHERED: Final = 0.2
"""Seconds that events wait for more to be taken with them, where one comes after the other."""
_YEARS: Final = range(1970, 9000)
"""When events can have happened: near the ends of the calendar nobody can reckon with a moment."""


class Placed(Struct, frozen=True, gc=False):
    """An event, and where it stands: when its stream was made, and its sequence number there."""

    stream: str
    sequence: int
    event: Event
    kept: int
    """When the stream took it, in nanoseconds since 1970 by the clock of the bus."""


class StreamState(Struct, frozen=True):
    """Which stream of events there is, and its first and last sequence number."""

    made: str
    """When it was made: made anew, a stream counts from one again."""
    first: int
    last: int

    def continues(self, made: str, position: int) -> bool:
        """Whether it is the one of which somebody has read so much."""
        return self.made == made and self.last >= position


async def stream_state(connection: Connection) -> StreamState:
    """What the stream of events holds.

    Raises:
        nats.errors.Error, TimeoutError: the bus does not say.
    """
    info = await connection.jetstream().stream_info(subjects.EVENTS)
    made = info.created.isoformat() if info.created else "unknown"
    return StreamState(made, info.state.first_seq, info.state.last_seq)


async def read(
    connection: Connection,
    site: str,
    *,
    since: datetime | None = None,
    machines: Collection[str] = (),
    kinds: Collection[Kind] = (),
    follow: bool = False,
    caught_up: Callable[[], None] | None = None,
) -> AsyncGenerator[Event]:
    """The events of a site in the order in which they were kept; what is none is skipped.

    It ends with what was there when it began. Close it (``contextlib.aclosing``) when you leave
    it earlier.

    Args:
        connection: to the bus.
        site: whose events.
        since: only what was kept from then on, else all there is.
        machines: only these machine keys, else all.
        kinds: only these kinds, else all.
        follow: go on with whatever is kept from now on, for ever, also after the bus was down; a
            stream that was made anew is read from its beginning.
        caught_up: called once, when what was there when it began has been read.

    Raises:
        nats.errors.Error: the bus keeps no events, or the line is down (unless it follows).
        TimeoutError: the bus does not answer (unless it follows).
    """

    batches = read_batches(
        connection,
        site,
        since=since,
        machines=machines,
        kinds=kinds,
        follow=follow,
        caught_up=caught_up,
    )
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for placed in batch:
                yield placed.event


async def read_batches(
    connection: Connection,
    site: str,
    *,
    since: datetime | None = None,
    machines: Collection[str] = (),
    kinds: Collection[Kind] = (),
    follow: bool = False,
    caught_up: Callable[[], None] | None = None,
    gathered: float = GATHERED,
) -> AsyncGenerator[list[Placed]]:
    """As `read`, but as many events at a time as there are, each with its place.

    ``gathered`` is as for `reader`.

    Raises:
        nats.errors.Error, TimeoutError: as `read`.
    """

    def behind(position: int) -> AbstractAsyncContextManager[Reader]:
        return reader(
            connection,
            site,
            after=position,
            since=since,
            machines=machines,
            kinds=kinds,
            gathered=gathered,
        )

    log = structlog.get_logger("events").bind(site=site)
    async with contextlib.aclosing(_standing(behind, log, follow=follow)) as batches:
        async for batch in batches:
            if batch is not None:
                yield batch
            elif caught_up:
                caught_up()
                caught_up = None


async def _standing(
    behind: Callable[[int], AbstractAsyncContextManager["Reader"]],
    log: structlog.typing.FilteringBoundLogger,
    *,
    follow: bool,
) -> AsyncGenerator[list[Placed] | None]:
    """What stands in the stream; None whenever all that was there when it began is through."""
    position, made, attempt = 0, "", 0
    while True:
        try:
            async with behind(position) as events:
                known = not position or events.stream.continues(made, position)
                made = events.stream.made
                if not known:
                    log.warning("the stream of events is another one and is read anew")
                    position = 0
                    continue
                while True:
                    caught = not events.pending or events.position >= events.stream.last
                    if caught:
                        yield None
                    if caught and not follow:
                        return
                    batch = await events.batch(BATCH)
                    if not follow:
                        batch = [each for each in batch if each.sequence <= events.stream.last]
                    if batch:
                        yield batch
                    position, attempt = events.position, 0
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if not follow:
                raise
            if not attempt:
                # Once: whoever follows at a terminal waits in front of it.
                why = type(error).__name__
                log.warning("events cannot be read now; this goes on when they can", error=why)
        await asyncio.sleep(backoff(attempt))
        attempt += 1


@asynccontextmanager
async def reader(
    connection: Connection,
    site: str,
    *,
    after: int = 0,
    since: datetime | None = None,
    machines: Collection[str] = (),
    kinds: Collection[Kind] = (),
    gathered: float = GATHERED,
) -> AsyncGenerator["Reader"]:
    """Reads a site's events from behind a place in the stream; without one, from a moment on.

    Those that come one after the other are taken together, in so many seconds.

    Raises:
        nats.errors.Error, TimeoutError: the bus cannot be read.
    """
    state = await stream_state(connection)
    # Of several kinds, each message is looked at here: that costs the server least.
    kind = next(iter(kinds)) if len(kinds) == 1 else "*"
    wanted = [subjects.event(site, machine, kind) for machine in machines or ("*",)]
    start = None if after else since
    async with pulled(connection, subjects.EVENTS, wanted, after=after, since=start) as pull:
        yield Reader(pull, state, site, kinds, after, gathered)


class Reader:
    """The events of a site that somebody reads."""

    def __init__(
        self,
        pull: Pull,
        stream: StreamState,
        site: str,
        kinds: Collection[Kind],
        after: int,
        gathered: float,
    ) -> None:
        self.stream = stream
        """The stream as it was when this began."""
        self.position = after
        """The sequence of the last that was read, whatever it was."""
        self._pull = pull
        self._site = site
        self._kinds = frozenset[str](kinds)
        self._gathered = gathered
        self._busy = False
        self._log = structlog.get_logger("events").bind(site=site)

    @property
    def pending(self) -> int:
        """How many messages are known to stand behind those that were read."""
        return self._pull.pending

    async def batch(self, most: int, wait: float = 1.0) -> list[Placed]:
        """The next events; at most so many messages are read for them.

        There are none if nothing comes within ``wait`` seconds, or if all of it is something else.

        Raises:
            nats.errors.Error, TimeoutError: the bus cannot be read any more; read anew from behind
                the position.
        """
        if self._busy:
            await asyncio.sleep(self._gathered)
        found = await self._pull.take(most, wait)
        # What has come since the first was sent is taken with it.
        while found and self.pending and len(found) < most:
            more = await self._pull.take(most - len(found), wait)
            if not more:
                break
            found += more
        self._busy = 0 < len(found) < most
        if found:
            self.position = numbers(found[-1]).stream
        return [placed for each in found if (placed := self._placed(each))]

    def _placed(self, message: Msg) -> Placed | None:
        """The event that a message holds, if it holds one of those that are wanted."""
        if self._kinds and message.subject.rpartition(".")[2] not in self._kinds:
            return None
        event, told = event_of(message, self._site), numbers(message)
        if event is None:
            self._log.warning(
                "an event cannot be read",
                subject=one_line(message.subject),
                sequence=told.stream,
            )
            return None
        return Placed(self.stream.made, told.stream, event, told.nanoseconds)


def event_of(message: Msg, site: str) -> Event | None:
    """The event that a message holds, if it holds one and stands where it belongs."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        event = event_decoder.decode(message.data)
        belongs = message.subject == subjects.event(site, event.machine, event.kind)
        if belongs and event.site == site and event.at.year in _YEARS:
            return event
    return None
