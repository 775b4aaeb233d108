"""Follows a site's events into its history, and tells listeners of them.

One copy of the monitor does it at a time; the others stand by. Whatever fails, the follower pauses
and goes on from the place that the history database holds.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import nats.errors
import pyodbc
import structlog
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import Connection, backoff
from bus.events import Event, event_decoder, one_line
from bus.waiting import end
from express.connection import DatabaseUnavailable
from express.database import WriteConflict
from services.monitor.history import History, OvertakenError, Place, Totals
from services.monitor.metrics import HistoryMetrics
from services.monitor.reading import GapError, Reader, kept, pending, reader

_LEAVING: Final = 3.0
"""Seconds to hand the history over in."""
_BUS_FAILURES: Final = (nats.errors.Error, OSError, TimeoutError, GapError)
_DATABASE_FAILURES: Final = (DatabaseUnavailable, WriteConflict)


class Listener(Protocol):
    """Is told of every event."""

    async def heard(self, event: Event) -> None:
        """An event that stands in the history: in order, at least once.

        It comes again if the monitor died before it was known to have been heard. Everything waits
        meanwhile, so what takes long belongs into a task of the listener's own; what takes two
        seconds, or raises, is given up and logged.
        """


class Follower:
    """Reads events in batches, applies each as one transaction, then tells the listeners."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        history: History,
        metrics: HistoryMetrics,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._connection = connection
        self._site = site
        self._history = history
        self._metrics = metrics
        self._listeners = listeners
        self._rhythm = history.lease / 4
        """Seconds between signs of life, or looks at another's; and for a listener to hear one."""
        self._place: Place | None = None
        self._written: Place | None = None
        self._beaten = 0.0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("follower").bind(site=site)

    @property
    def holds(self) -> bool:
        """Whether this copy follows, and no other."""
        return self._place is not None

    async def start(self) -> None:
        """Begins; a bus or database that is not there yet is waited for."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ends, so that another copy can go on at once from the same event."""
        if self._task:
            await end(self._task)
        if self._place:
            with contextlib.suppress(*_DATABASE_FAILURES, pyodbc.Error, TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self._history.release(self._place)
            self._place = None

    async def _follow(self) -> None:
        prepared = False
        while True:
            try:
                if not prepared:
                    await self._history.prepare()
                    prepared = True
                if place := await self._claim():
                    await self._hold(place)
                await asyncio.sleep(self._rhythm)
                self._failures = 0
            except OvertakenError:
                self._log.info("another copy goes on")
                self._place = None
                self._metrics.hide()
            except _BUS_FAILURES as error:
                self._log.warning("events cannot be read", error=type(error).__name__)
                await self._pause()
            except _DATABASE_FAILURES as error:
                reason = error.reason if isinstance(error, DatabaseUnavailable) else str(error)
                self._log.warning("the history cannot be written", reason=reason)
                await self._pause()
            except Exception:  # noqa: BLE001 (whoever reads the log can mend it, and it goes on)
                self._log.exception("events cannot be applied")
                await self._pause()

    async def _claim(self) -> Place | None:
        before, self._place = self._place, await self._history.claim()
        if self._place is None:
            self._metrics.hide()
        elif before and before.stream == self._place.stream:
            # The history learns of what was told only later.
            self._place = replace(self._place, told=max(self._place.told, before.told))
        self._beaten = time.monotonic()
        return self._place

    async def _pause(self) -> None:
        if self._place:
            with contextlib.suppress(*_BUS_FAILURES):
                place = self._place.position
                self._metrics.lags(await pending(self._connection, self._site, place))
        await asyncio.sleep(backoff(self._failures))
        self._failures += 1

    async def _hold(self, place: Place) -> None:
        """Follows until something fails or another copy has taken over."""
        place = await self._found(place)
        totals = await self._history.totals()
        self._log.info("following", position=place.position)
        async with reader(self._connection, self._site, place.told) as events:
            while True:
                messages = await events.batch()
                self._failures = 0
                if messages:
                    place, totals = await self._take(place, totals, messages, events)
                elif place != self._written or time.monotonic() - self._beaten >= self._rhythm:
                    await self._beat(place)
                self._metrics.show(totals, events.pending)

    async def _found(self, place: Place) -> Place:
        """The place again, or the beginning if the stream is not the one that was read."""
        stream = await kept(self._connection)
        if place.stream != stream.stream or stream.last < place.position:
            if place.position:
                self._log.warning("the stream is another one; what is new in it is applied")
            place = await self._history.begin_anew(stream.stream)
        elif 0 < place.told < stream.first - 1:
            self._log.warning(
                "the stream begins later; events may have gone unread",
                position=place.told,
                first=stream.first,
            )
        self._place = place
        return place

    async def _take(
        self, place: Place, totals: Totals, messages: Sequence[Msg], events: Reader
    ) -> tuple[Place, Totals]:
        """Applies what is not applied yet, and tells what was not told."""
        read = [(_sequence(message), self._event(message)) for message in messages]
        last, _ = read[-1]
        found = [(sequence, event) for sequence, event in read if event]
        told = [each for each in found if each[0] <= place.position]
        fresh = [each for each in found if each[0] > place.position]
        if last > place.position:
            applied = await self._history.apply(place, fresh, last)
            self._place = place = applied.place
            self._beaten = time.monotonic()
            totals = applied.totals
            self._metrics.show(totals, events.pending)
            told += applied.new
        return await self._tell(place, told, last), totals

    async def _tell(self, place: Place, events: Sequence[tuple[int, Event]], last: int) -> Place:
        for sequence, event in events:
            for listener in self._listeners:
                await self._heard(listener, event)
            self._place = place = replace(place, told=sequence)
            if time.monotonic() - self._beaten >= self._rhythm:
                await self._beat(place)
        self._place = place = replace(place, told=last)
        return place

    async def _heard(self, listener: Listener, event: Event) -> None:
        name = type(listener).__name__
        try:
            async with asyncio.timeout(self._rhythm):
                await listener.heard(event)
        except Exception:  # noqa: BLE001 (one listener's fault must not stop the history)
            self._log.exception("an event is lost on a listener", listener=name, event_id=event.id)

    async def _beat(self, place: Place) -> None:
        await self._history.beat(place)
        self._beaten = time.monotonic()
        self._written = place

    def _event(self, message: Msg) -> Event | None:
        """The event that a message holds, if it holds one and stands where it belongs."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            event = event_decoder.decode(message.data)
            if event.site == self._site and message.subject == subjects.event(
                event.site, event.machine, event.kind
            ):
                return event
        self._log.warning(
            "an event cannot be read",
            subject=one_line(message.subject),
            sequence=_sequence(message),
        )
        return None


def _sequence(message: Msg) -> int:
    return int(message.metadata.sequence.stream)
