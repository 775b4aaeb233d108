"""Keeps an eye on the job tree: reads it when it has changed, and asks cheaply whether it has.

The copies of a site share the work. Whoever has looked last does so again after half a second; the
others would do it a moment later, and ask first whether it has been done. Only the copy that finds
a change reads the tree; the others take its rows from the bus.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog
from msgspec import Struct

from bus.waiting import end
from engine.errors import NoMarkError
from engine.menu_rows import MenuRows, Wanted
from engine.protocol import JobTrees
from services.menu.copies import Copies, Sight
from services.menu.snapshots import Snapshots
from services.menu.tally import Tally

FRESH: Final = 0.5
"""Seconds after which the tree is looked at again, if menus are asked for."""
_APART: Final = (0.1, 0.2)
"""The least and the most seconds that a copy leaves to the one that has looked last."""
_HEARD: Final = 0.2
"""Seconds to wait for what another copy has seen, where no answer waits for it."""
_HEARD_AT_ONCE: Final = 0.05
"""The same where an answer waits, or where it was this copy that looked last."""
_SHARED: Final = 0.3
"""Seconds that another copy's question waits for what is being looked at."""


class Seen(Struct, frozen=True):
    """Rows that are those of the job tree as it was ``at`` a moment, or later.

    ``fingerprint`` is the tree's mark, None if it could not be told. From ``due`` on it is time to
    look again.
    """

    rows: MenuRows
    wanted: Wanted
    fingerprint: str | None
    at: float
    due: float


class Lookout:
    """Looks at one job tree, together with the other copies if there may be any."""

    def __init__(
        self,
        trees: JobTrees,
        tally: Tally,
        copies: Copies | None = None,
        snapshots: Snapshots | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``copies`` and ``snapshots`` are there where a mark says the same to all copies."""
        self._trees = trees
        self._tally = tally
        self._copies = copies
        self._snapshots = snapshots
        self._clock = clock
        self._can_tell = True
        self._sight: Sight | None = None
        self._looked_last = False
        self._under_way = asyncio.Event()
        self._under_way.set()
        self._sharing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("menu")

    async def start(self) -> None:
        """Answers the other copies from now on."""
        if self._copies:
            await self._copies.start(self._last)

    async def close(self) -> None:
        """Ends what is under way."""
        if self._copies:
            await self._copies.stop()
        if self._sharing:
            await end(self._sharing)

    async def look(self, wanted: Wanted, last: Seen | None) -> Seen:
        """The rows as they are now: those of ``last``, the very same, if nothing has changed.

        One look at a time.

        Raises:
            EngineUnavailable, Exception: the tree cannot be read.
        """
        self._under_way.clear()
        try:
            return await self._by_others(wanted, last) or await self._by_itself(wanted, last)
        finally:
            self._under_way.set()

    async def _by_others(self, wanted: Wanted, last: Seen | None) -> Seen | None:
        if self._copies is None:
            return None
        waited_for = last is None or self._clock() >= last.at + 2 * FRESH
        at_once = waited_for or self._looked_last
        sight = await self._copies.ask(_HEARD_AT_ONCE if at_once else _HEARD)
        if sight is None:
            return None
        rows = await self._known(sight.fingerprint, wanted, last)
        if rows is None:
            return None
        self._sight, self._looked_last = sight, False
        due = sight.at + FRESH + random.uniform(*_APART)  # noqa: S311 (no secret)
        return Seen(rows, wanted, sight.fingerprint, sight.at, due)

    async def _by_itself(self, wanted: Wanted, last: Seen | None) -> Seen:
        at = self._clock()
        # Before the rows are read: what changes meanwhile is found the next time.
        mark = await self._mark()
        rows = await self._known(mark, wanted, last) if mark is not None else None
        if rows is None:
            self._tally.readings += 1
            rows = await self._trees.menu_rows(wanted)
            # A mark may be of what the tree holds, and then comes back when a change is taken back:
            # these rows might be others than those it belongs to.
            if self._snapshots and mark is not None and mark != await self._mark():
                mark = None
            await self._share(mark, wanted, rows)
        self._sight = Sight(mark, at) if mark is not None else None
        self._looked_last = True
        # Two that look in step would go on so.
        apart = self._copies is not None and self._copies.there
        due = at + FRESH + (random.uniform(0, _APART[0]) if apart else 0.0)  # noqa: S311 (no secret)
        return Seen(rows, wanted, mark, at, due)

    async def _known(self, mark: str, wanted: Wanted, last: Seen | None) -> MenuRows | None:
        """The rows that belong to a fingerprint, without reading them from the engine."""
        if last is not None and (last.fingerprint, last.wanted) == (mark, wanted):
            return last.rows
        rows = await self._snapshots.fetch(mark, wanted) if self._snapshots else None
        if rows is not None:
            self._tally.shared += 1
        return rows

    async def _mark(self) -> str | None:
        """The fingerprint of the tree, None where the deployment server does not tell it."""
        if not self._can_tell:
            return None
        self._tally.checks += 1
        try:
            return await self._trees.mark()
        except NoMarkError as error:
            self._can_tell = False
            self._log.warning(
                "the deployment server does not tell whether jobs change: they are read each time",
                error=str(error),
            )
            return None

    async def _share(self, mark: str | None, wanted: Wanted, rows: MenuRows) -> None:
        if self._snapshots is None or mark is None:
            return
        if self._sharing:
            await end(self._sharing)
        self._sharing = asyncio.create_task(self._snapshots.put(mark, wanted, rows))

    async def _last(self) -> Sight | None:
        """What was seen last, once the others can find its rows."""
        try:
            async with asyncio.timeout(_SHARED):
                await self._under_way.wait()
                if self._sharing:
                    await asyncio.wait({self._sharing})
        except TimeoutError:
            return None
        return self._sight
