"""Removes what is old from the history of an estate: single deployments, of all sites alike.

What the hub's bus keeps goes by itself.
"""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from bus import hub, subjects
from bus.connection import Connection
from bus.options import Options
from bus.pulling import first_since
from express.database import Database
from services.monitor.history import History, known_sites
from services.monitor.part import Loop, Part

_EVERY: Final = 86_400.0
_SOON: Final = 600.0
"""Seconds within which a monitor that has started begins: by then there is a history."""
_DAY: Final = timedelta(days=1)
_LATE: Final = timedelta(days=7)
"""By how much an event may be kept later than what it tells of."""


class Forgetting(Part):
    """Removes single deployments that are older than `history_days`, once a day."""

    def __init__(
        self,
        connection: Connection,
        kept: Database,
        options: Callable[[], Options],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        soon: float = _SOON,
    ) -> None:
        """``soon`` is the seconds after the start within which it begins; ``now`` is the clock."""
        super().__init__(Loop("the removal of what is old", subjects.ESTATE, self._turn))
        self._connection = connection
        self._kept = kept
        self._options = options
        self._now = now
        self._due = time.monotonic() + random.uniform(0, soon)  # noqa: S311 (no secret)
        self._log = structlog.get_logger("forgetting")

    async def _turn(self) -> None:
        await asyncio.sleep(max(0.0, self._due - time.monotonic()))
        await self.sweep()
        self._due = time.monotonic() + _EVERY

    async def sweep(self) -> None:
        """Removes what is old now.

        Raises:
            nats.errors.Error, TimeoutError: the bus does not say whether the clock is right.
            DatabaseUnavailable, WriteConflict: not all of it was removed; the rest can be later.
        """
        now = self._now()
        # By a clock that has jumped ahead, everything would be old.
        if await first_since(self._connection, subjects.EVENTS, subjects.event("*"), now - _DAY):
            before = now - timedelta(days=self._options().history_days)
            # Of a site without an event at the hub, all that it still has comes again.
            heard_before = min(before, now - hub.KEPT - _LATE)
            for site in await known_sites(self._kept):
                gone = await History(self._kept, site).forget(before, heard_before)
                self._log.debug("what is old is removed", site=site, deployments=gone)
