"""Follows a site's events into its history.

One copy of the monitor does it at a time; the others stand by. Whatever fails, the follower pauses
and goes on from the place that the history database holds.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

import nats.errors
import pyodbc
import structlog

from bus.connection import Connection
from bus.event_stream import BATCH, GATHERED, Placed, reader, stream_state
from express.connection import DatabaseUnavailable
from express.database import WriteConflict
from services.monitor.history import Applied, History, OvertakenError, Place
from services.monitor.metrics import SiteFigures
from services.monitor.part import Loop, Part

_LEAVING: Final = 3.0
"""Seconds to hand the history over in."""
_RENEWED: Final = 600.0
"""Seconds after which it is noted how far the stream has been read, however quiet the site is."""


class Follower(Part):
    """Reads events in batches and applies each as one transaction."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        history: History,
        metrics: SiteFigures,
        gathered: float = GATHERED,
    ) -> None:
        """``gathered`` is the seconds in which events are taken together."""
        self._loop = Loop("the following of events", site, self._follow)
        super().__init__(self._loop)
        self._connection = connection
        self._site = site
        self._history = history
        self._metrics = metrics
        self._gathered = gathered
        self._rhythm = history.lease / 4
        """Seconds between signs of life, or looks at another's."""
        self._prepared = False
        self._place: Place | None = None
        self._beaten = 0.0
        self._log = structlog.get_logger("follower").bind(site=site)

    @property
    def holds(self) -> bool:
        """Whether this copy follows, and no other can."""
        return self._place is not None and time.monotonic() < self._until

    @property
    def _until(self) -> float:
        """When others may take this copy for dead."""
        return self._beaten + self._history.lease

    async def stop(self) -> None:
        """Ends, so that another copy can go on at once from the same event."""
        await super().stop()
        if self._place:
            with contextlib.suppress(
                DatabaseUnavailable, WriteConflict, pyodbc.Error, TimeoutError
            ):
                async with asyncio.timeout(_LEAVING):
                    await self._history.release()
            self._place = None

    async def _follow(self) -> None:
        """Follows until something fails, or looks once whether to take over."""
        try:
            if not self._prepared:
                await self._history.prepare()
                self._prepared = True
            if place := await self._claim():
                await self._hold(place)
            else:
                await asyncio.sleep(self._rhythm)
        except OvertakenError:
            self._log.info("another copy goes on")
            self._place = None
            self._metrics.hide()
        except Exception:
            await self._show_lag()
            raise

    async def _claim(self) -> Place | None:
        asked = time.monotonic()
        before, self._place = self._place, await self._history.claim()
        self._beaten = asked
        if self._place is None:
            self._metrics.hide()
        elif before is None:
            self._log.info("following", position=self._place.position)
        return self._place

    async def _show_lag(self) -> None:
        if self._place:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                after = self._place.position
                async with reader(self._connection, self._site, after=after) as events:
                    self._metrics.lags(events.pending)

    async def _hold(self, place: Place) -> None:
        """Follows for ten minutes, and for longer while there is much to do."""
        place = await self._found(place)
        totals = await self._history.totals()
        async with reader(
            self._connection, self._site, after=place.position, gathered=self._gathered
        ) as events:
            renewed = time.monotonic() + _RENEWED
            while events.pending or time.monotonic() < renewed:
                found = await events.batch(BATCH, self._rhythm)
                if events.position > place.position:
                    applied = await self._apply(place, found, events.position)
                    place, totals = applied.place, applied.totals
                elif time.monotonic() - self._beaten >= self._rhythm:
                    await self._beat(place)
                self._loop.well()
                self._metrics.show(totals, events.pending, self._until)
            if events.stream.last > place.position:
                await self._apply(place, [], events.stream.last)

    async def _found(self, place: Place) -> Place:
        """The place again, or the beginning if the stream is not the one that was read."""
        stream = await stream_state(self._connection)
        if not stream.continues(place.stream, place.position):
            if place.position:
                self._log.warning("the stream is another one; what is new in it is applied")
            place = await self._history.begin_anew(stream.made)
        elif 0 < place.position < stream.first - 1:
            self._log.warning(
                "the stream begins later; events may have gone unread",
                position=place.position,
                first=stream.first,
            )
        self._place = place
        return place

    async def _apply(self, place: Place, events: Sequence[Placed], position: int) -> Applied:
        asked = time.monotonic()
        told = [(each.sequence, each.event) for each in events]
        applied = await self._history.apply(place, told, position)
        self._beaten, self._place = asked, applied.place
        return applied

    async def _beat(self, place: Place) -> None:
        asked = time.monotonic()
        await self._history.beat(place)
        self._beaten = asked
