"""Carries requests out: those that come while others are under way share a transaction.

To commit costs a database more than to carry a small request out: it waits for its disk. Nobody
waits here for others to come: whoever finds a free turn goes, and takes along who waits.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from bus.messages import Outcome
from bus.problems import Problem
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction
from express.layout_cache import LayoutCache
from express.schema import Layout
from services.scheduler.carrying import Order, carry_out

MOST: Final = 16
"""Requests that share one transaction."""


class _Place(Struct, eq=False):
    """An order's place in the line, and what becomes of it."""

    order: Order
    ended: asyncio.Future[Outcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, how: Outcome | Exception) -> None:
        if self.ended.done():
            return
        if isinstance(how, Exception):
            self.ended.set_exception(how)
        else:
            self.ended.set_result(how)


class Together:
    """A line of orders for one database."""

    def __init__(self, database: Database, layouts: LayoutCache, turns: int) -> None:
        """Takes how many transactions there may be side by side."""
        self._database = database
        self._layouts = layouts
        self._turns = asyncio.Semaphore(turns)
        self._line: deque[_Place] = deque()

    async def carry_out(self, order: Order) -> Outcome:
        """What has become of the order's request, as `carrying.carry_out` tells it.

        Raises:
            Problem: why the request cannot be carried out; nothing of it is written.
            WriteConflict: another transaction was in the way; nothing of it is written.
        """
        place = _Place(order)
        self._line.append(place)
        async with self._turns:
            if self._line and not place.ended.done():
                places = [self._line.popleft() for _ in range(min(MOST, len(self._line)))]
                await self._carry_out(places)
        return await place.ended

    async def _carry_out(self, places: Sequence[_Place]) -> None:
        try:
            ended = await self._database.transact(lambda tx: self._each(tx, places))
        except Exception as error:  # noqa: BLE001 (each of them is told)
            if len(places) == 1:
                places[0].end(error)
                return
            # Whatever it was, it was one of them that failed; the others shall not suffer.
            for place in places:
                await self._carry_out([place])
        else:
            for place, how in zip(places, ended, strict=True):
                place.end(how)
        finally:
            # Cancelled: nobody else would ever tell those who were taken along.
            for place in places:
                place.end(DatabaseUnavailable("what others had begun was broken off"))

    def _each(self, tx: Transaction, places: Sequence[_Place]) -> list[Outcome | Problem]:
        layout = self._layouts.layout(tx)
        if len(places) == 1:
            return [carry_out(tx, layout, places[0].order)]
        return [_part(tx, layout, place.order) for place in places]


def _part(tx: Transaction, layout: Layout, order: Order) -> Outcome | Problem:
    try:
        with tx.part():
            return carry_out(tx, layout, order)
    except DatabaseUnavailable:
        raise
    except Problem as problem:
        return problem
