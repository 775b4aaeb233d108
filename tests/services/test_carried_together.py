"""Requests that come while others are under way share a transaction, and no fate."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from bus.access import ALL_RIGHTS
from bus.messages import Machine, Outcome, Request
from bus.options import DEFAULTS
from bus.problems import Problem
from engine.orders import Order
from engine.protocol import Step
from express.carrying import carry_out
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction, WriteConflict
from express.layout_cache import LayoutCache
from express.together import MOST, Together
from tests.echo import until
from tests.site import DESKTOP, DESKTOP_JOBS, Express, new_id, new_machine

Orders = Sequence[Order[Request]]
Line = Together[Order[Request], Outcome]


def order(machine: Machine, item: str = DESKTOP, name: str | None = None) -> Order[Request]:
    request = Request(
        request_id=new_id(),
        site="lab",
        machine=machine,
        item_id=item,
        accepted_at=datetime.now(UTC),
        digest="0" * 64,
        computer_name=name,
    )
    return Order(request, DEFAULTS, ALL_RIGHTS)


class Work:
    """Carries orders out as the carrier does; holds one of them up, and breaks at another."""

    def __init__(self) -> None:
        self.slow: Order[Request] | None = None
        self.go_on = threading.Event()
        self.bad: Order[Request] | None = None
        self.error: type[Exception] = ValueError
        self._layouts = LayoutCache()

    def __call__(self, tx: Transaction, orders: Orders) -> list[Outcome | Exception]:
        if self.slow in orders:
            self.go_on.wait(20)
        ends = carry_out(tx, self._layouts.layout, "lab", orders)
        if self.bad in orders:
            raise self.error("it broke")
        return ends


@pytest.fixture
def steps() -> Counter[Step]:
    """How many connections and statements the database was asked for."""
    return Counter()


@pytest.fixture
async def database(dsn: str, steps: Counter[Step]) -> AsyncIterator[Database]:
    def observe(step: Step, _seconds: float, _well: bool) -> None:
        steps[step] += 1

    found = Database(dsn, observe=observe)
    yield found
    await found.close()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def line(database: Database, work: Work) -> AsyncIterator[Line]:
    """A line with one turn."""
    found: Line = Together(database, work, turns=1)
    yield found
    work.go_on.set()
    await found.close()


async def all_of(line: Line, orders: Orders) -> list[Outcome | BaseException]:
    """What becomes of orders that wait together, for one that came before them."""
    ahead = order(new_machine(999))
    _, *ended = await asyncio.gather(*map(line.ask, [ahead, *orders]), return_exceptions=True)
    return ended


def jobs_scheduled(express: Express) -> int:
    return len(express.sql("SELECT * FROM event_schedule")) // len(DESKTOP_JOBS) - 1


async def test_who_comes_while_others_are_under_way_shares_the_next_transaction(
    line: Line, steps: Counter[Step], express: Express
) -> None:
    count = 2 * MOST
    outcomes = await all_of(line, [order(new_machine(number)) for number in range(count)])
    computers = {
        each.computer.id for each in outcomes if isinstance(each, Outcome) and each.computer
    }
    assert len(computers) == count
    assert jobs_scheduled(express) == count
    assert steps["connection"] == 1 + 2


async def test_what_is_refused_is_refused_alone(
    line: Line, steps: Counter[Step], express: Express
) -> None:
    taken = str(express.sql("SELECT name FROM computer WHERE group_id IS NOT NULL")[0][0])
    orders = [
        order(new_machine(1)),
        order(new_machine(2), name=taken),
        order(new_machine(3), item="job:1"),
        order(new_machine(4)),
    ]
    first, second, third, fourth = await all_of(line, orders)
    assert isinstance(first, Outcome)
    assert isinstance(fourth, Outcome)
    assert isinstance(second, Problem)
    assert second.code == "name_taken"
    assert isinstance(third, Problem)
    assert third.code == "unknown_item"
    done = {str(row[0]) for row in express.sql("SELECT request_id FROM ii_request")}
    assert {each.wish.request_id in done for each in (orders[0], orders[3])} == {True}
    assert {each.wish.request_id in done for each in (orders[1], orders[2])} == {False}
    assert jobs_scheduled(express) == 2
    assert steps["connection"] == 1 + 1


async def test_two_who_want_one_name_in_one_transaction_do_not_both_get_it(
    line: Line, express: Express
) -> None:
    orders = [order(new_machine(number), name="SAME-NAME") for number in (1, 2)]
    first, second = await all_of(line, orders)
    assert isinstance(first, Outcome)
    assert isinstance(second, WriteConflict)
    # The carrier asks again.
    with pytest.raises(Problem, match="name_taken"):
        await line.ask(orders[1])
    assert len(express.sql("SELECT * FROM computer WHERE name = 'SAME-NAME'")) == 1


@pytest.mark.parametrize("error", [ValueError, WriteConflict])
async def test_one_that_breaks_the_transaction_of_all_fails_alone(
    line: Line, work: Work, express: Express, error: type[Exception]
) -> None:
    bad = order(new_machine(2))
    work.bad, work.error = bad, error
    first, second, third = await all_of(line, [order(new_machine(1)), bad, order(new_machine(3))])
    assert isinstance(first, Outcome)
    assert isinstance(third, Outcome)
    assert isinstance(second, error)
    assert jobs_scheduled(express) == 2


async def test_who_gives_up_takes_nobody_with_him(
    line: Line, work: Work, steps: Counter[Step], express: Express
) -> None:
    orders = [order(new_machine(number)) for number in (999, 1, 2)]
    work.slow = orders[1]
    ahead, leaving, along = (asyncio.create_task(line.ask(each)) for each in orders)
    await ahead
    await until(lambda: steps["connection"] == 2)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    work.go_on.set()
    assert (await along).state == "scheduled"
    # It was under way already, and whoever asks for it again finds it done.
    assert (await line.ask(orders[1])).replaced == 0
    assert jobs_scheduled(express) == 2


async def test_of_what_is_broken_off_all_are_told_and_nothing_is_written(
    line: Line, work: Work, steps: Counter[Step], express: Express
) -> None:
    orders = [order(new_machine(number)) for number in (999, 1, 2)]
    work.slow = orders[1]
    ahead, *others = (asyncio.create_task(line.ask(each)) for each in orders)
    await ahead
    await until(lambda: steps["connection"] == 2)
    await line.close()
    for told in await asyncio.gather(*others, return_exceptions=True):
        assert isinstance(told, DatabaseUnavailable)
        assert "broken off" in told.reason
    work.go_on.set()
    assert jobs_scheduled(express) == 0
