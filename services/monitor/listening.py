"""One reading of a site's events for all parts of the monitor that go by the whole stream.

What stands in the stream is their memory: it is read from its beginning at every start, or from as
far back as they need. To read and decode an event costs more than what each of them makes of it.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Final, Protocol

import structlog

from bus.connection import Connection
from bus.event_stream import GATHERED, Placed, read_batches
from bus.events import Kind
from services.monitor.part import Loop, Part


class Listener(Protocol):
    """Who hears of every event of some kinds."""

    kinds: frozenset[Kind]

    def hear(self, placed: Placed) -> None:
        """Takes an event in; it may come twice."""

    def caught_up(self) -> None:
        """All that was there at the start has been heard."""


class Listening(Part):
    """Reads the stream from its beginning and tells those who listen."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        *listeners: Listener,
        since: datetime | None = None,
        gathered: float = GATHERED,
    ) -> None:
        """Reads what was kept ``since`` then, taken together in ``gathered`` seconds."""
        super().__init__(Loop("the reading of events", site, self._listen))
        self._connection = connection
        self._site = site
        self._listeners: Final = listeners
        self._since = since
        self._gathered = gathered
        self._kinds: Final = frozenset[Kind]().union(*(each.kinds for each in listeners))
        self._log = structlog.get_logger("monitor").bind(site=site)

    async def _listen(self) -> None:
        batches = read_batches(
            self._connection,
            self._site,
            since=self._since,
            kinds=self._kinds,
            follow=True,
            caught_up=self._caught_up,
            gathered=self._gathered,
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for placed in batch:
                    self._tell(placed)
                # A backlog is read for long, and others have work to do as well.
                await asyncio.sleep(0)

    def _tell(self, placed: Placed) -> None:
        """Tells everybody; an event that one of them cannot take ends nothing."""
        for listener in self._listeners:
            if placed.event.kind in listener.kinds:
                try:
                    listener.hear(placed)
                except Exception:  # noqa: BLE001 (one odd event must not hide all that follow)
                    self._log.exception("an event is passed over", id=placed.event.id)

    def _caught_up(self) -> None:
        for listener in self._listeners:
            listener.caught_up()
