"""The engine `express`: a deployment server reached through its eXpress database, over ODBC."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import pyodbc

from bus.machines import Identity
from bus.messages import ComputerRef, Outcome, Request, Schedule
from bus.problems import Problem
from engine.errors import NoMarkError
from engine.menu_rows import MenuRows, Wanted
from engine.orders import Order, Possible, Record
from engine.progress import JobRow, Scheduled, Standing
from engine.protocol import Engine, Observer
from express import computers, schedules
from express.carrying import carry_out, reject
from express.changes import fingerprint
from express.connection import is_sqlite
from express.database import Database, Transaction
from express.jobs import read_menu_rows, read_whole_tree
from express.layout_cache import LayoutCache
from express.plan import make_plans, with_free_names
from express.progress import read_ranges, read_rows, read_scheduled, read_standings
from express.together import Together

TURNS: Final = 2
"""Transactions of one kind side by side; each takes a connection to the database."""
GATHER: Final = 0.04
"""Seconds that orders of a crowd are gathered for: each transaction is a dozen statements."""
_PART: Final = timedelta(hours=1)
"""Records of how long a time are removed in one transaction."""


def open_engine(address: str, site: str, observe: Observer) -> Engine:
    """The engine of the database behind an ODBC connection string."""
    return ExpressEngine(address, site, observe)


class ExpressEngine:
    """What `engine.protocol.Engine` says, by the database behind an ODBC connection string.

    What is asked many at once shares transactions.
    """

    def __init__(
        self,
        dsn: str,
        site: str,
        observe: Observer = lambda _step, _seconds, _well: None,
        *,
        connect_timeout: float = 5,
        statement_timeout: float = 10,
    ) -> None:
        """Connects to nothing yet; the time-outs are those of each `Database`, in seconds."""
        database = partial(
            Database,
            dsn,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            observe=observe,
        )
        # What SQLite tells of changes, it tells each connection for itself; and a file beside the
        # service is read as fast as the bus.
        self.shares_marks = not is_sqlite(dsn)
        self._site = site
        self._layouts = LayoutCache()
        self._asking = database()
        # What is carried out waits for locks, and nobody who asks shall wait behind it.
        self._writing = database()
        # Used for nothing else, as `fingerprint` wants it.
        self._watcher = database(size=1)
        self._finding: Together[Identity, ComputerRef | None] = Together(
            self._asking, self._find_all, turns=TURNS
        )
        self._judging: Together[Order[Schedule], Record | Possible] = Together(
            self._asking, self._judge_all, turns=TURNS, gather=GATHER
        )
        self._recording: Together[str, Record | None] = Together(
            self._asking, _records, turns=TURNS
        )
        self._carrying: Together[Order[Request], Outcome] = Together(
            self._writing,
            self._carry_out_all,
            # SQLite has one writer: whoever is not it would only be in the way.
            turns=TURNS if self.shares_marks else 1,
            gather=GATHER,
        )

    async def mark(self) -> str:
        """The fingerprint of the job tree."""
        try:
            return await self._watcher.transact(fingerprint)
        except pyodbc.Error as error:
            raise NoMarkError(str(error.args[-1])) from error

    async def menu_rows(self, wanted: Wanted) -> MenuRows:
        """What a menu is made of, in one transaction."""
        if wanted.whole:
            return await self._asking.transact(read_whole_tree)
        return await self._asking.transact(
            partial(read_menu_rows, tag=wanted.tag, ruled=wanted.ruled)
        )

    async def find(self, identity: Identity) -> ComputerRef | None:
        """The computer that a machine is."""
        return await self._finding.ask(identity)

    async def judge(self, order: Order[Schedule]) -> Record | Possible:
        """What was done for a request, or that it can be carried out."""
        return await self._judging.ask(order)

    async def carry_out(self, order: Order[Request]) -> Outcome:
        """What has become of a request, in one transaction with others."""
        return await self._carrying.ask(order)

    async def reject(self, request: Request, problem: Problem) -> Outcome:
        """What has become of a request that cannot be carried out."""
        return await reject(self._writing, request, problem)

    async def record(self, request_id: str) -> Record | None:
        """What was done for a request."""
        return await self._recording.ask(request_id)

    async def forget(self, before: datetime) -> None:
        """Removes records, in one transaction after the other: none holds many locks."""
        forget = partial(schedules.forget_records, site=self._site, before=before, part=_PART)
        while await self._asking.transact(forget):
            pass

    async def ranges(self, ranges: Sequence[tuple[int, int]]) -> list[Standing]:
        """How all rows stand, range by range."""
        return await self._asking.transact(partial(read_ranges, ranges=ranges))

    async def standings(self, computer_ids: Collection[int], first_row: int) -> dict[int, Standing]:
        """How the rows of computers stand."""
        return await self._asking.transact(
            partial(read_standings, computer_ids=computer_ids, first_row=first_row)
        )

    async def rows(self, computer_ids: Collection[int], first_row: int) -> list[JobRow]:
        """The rows of computers."""
        return await self._asking.transact(
            partial(read_rows, computer_ids=computer_ids, first_row=first_row)
        )

    async def scheduled(self, since: datetime) -> list[Scheduled]:
        """Which rows requests got."""
        return await self._asking.transact(partial(read_scheduled, since=since))

    async def sign_of_life(self) -> None:
        """Returns if the database answers."""
        await self._asking.sign_of_life()

    async def close(self) -> None:
        """Breaks off what waits, and ends all connections."""
        for line in (self._finding, self._judging, self._recording, self._carrying):
            await line.close()
        for database in (self._watcher, self._asking, self._writing):
            await database.close()

    def _find_all(
        self, tx: Transaction, identities: Sequence[Identity]
    ) -> list[ComputerRef | Problem | None]:
        return computers.find(tx, self._layouts.layout(tx), identities)

    def _judge_all(
        self, tx: Transaction, orders: Sequence[Order[Schedule]]
    ) -> list[Record | Possible | Problem]:
        records = schedules.recorded(tx, [order.wish.request_id for order in orders])
        layout = self._layouts.layout(tx)
        plans = with_free_names(tx, make_plans(tx, layout, self._site, orders))
        return [
            records.get(order.wish.request_id)
            or (plan if isinstance(plan, Problem) else Possible(plan.title))
            for order, plan in zip(orders, plans, strict=True)
        ]

    def _carry_out_all(
        self, tx: Transaction, orders: Sequence[Order[Request]]
    ) -> list[Outcome | Exception]:
        return carry_out(tx, self._layouts.layout, self._site, orders)


def _records(tx: Transaction, request_ids: Sequence[str]) -> list[Record | None]:
    found = schedules.recorded(tx, set(request_ids))
    return [found.get(each) for each in request_ids]
