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
from express.connection import DatabaseUnavailable
from express.database import Database, Step, Transaction, WriteConflict
from express.layout_cache import LayoutCache
from express.schema import Layout
from services.scheduler import together
from services.scheduler.carrying import Order, carry_out
from services.scheduler.together import MOST, Together
from tests.echo import until
from tests.site import DESKTOP, DESKTOP_JOBS, Express, new_id, new_machine


def order(machine: Machine, item: str = DESKTOP, name: str | None = None) -> Order:
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


@pytest.fixture
def steps() -> Counter[Step]:
    """How many connections and statements the database was asked for."""
    return Counter()


@pytest.fixture
async def database(dsn: str, steps: Counter[Step]) -> AsyncIterator[Database]:
    def observe(step: Step, _seconds: float, _well: bool) -> None:
        steps[step] += 1

    found = Database(dsn, observe=observe)
    try:
        yield found
    finally:
        await found.close()


async def all_of(line: Together, orders: Sequence[Order]) -> list[Outcome | BaseException]:
    """What becomes of orders that wait together, for one that came before them."""
    ahead = order(new_machine(999))
    _, *ended = await asyncio.gather(*map(line.carry_out, [ahead, *orders]), return_exceptions=True)
    return ended


def jobs_scheduled(express: Express) -> int:
    return len(express.sql("SELECT * FROM event_schedule")) // len(DESKTOP_JOBS) - 1


async def test_who_comes_while_others_are_under_way_shares_the_next_transaction(
    database: Database, steps: Counter[Step], express: Express
) -> None:
    line = Together(database, LayoutCache(), turns=1)
    count = 2 * MOST
    outcomes = await all_of(line, [order(new_machine(number)) for number in range(count)])
    computers = {
        each.computer.id for each in outcomes if isinstance(each, Outcome) and each.computer
    }
    assert len(computers) == count
    assert jobs_scheduled(express) == count
    assert steps["connection"] == 1 + 2


async def test_what_is_refused_is_undone_alone(database: Database, express: Express) -> None:
    line = Together(database, LayoutCache(), turns=1)
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
    assert {each.request.request_id in done for each in (orders[0], orders[3])} == {True}
    assert {each.request.request_id in done for each in (orders[1], orders[2])} == {False}
    assert jobs_scheduled(express) == 2


async def test_two_who_want_one_name_in_one_transaction_do_not_both_get_it(
    database: Database, express: Express
) -> None:
    line = Together(database, LayoutCache(), turns=1)
    orders = [order(new_machine(number), name="SAME-NAME") for number in (1, 2)]
    first, second = await all_of(line, orders)
    assert isinstance(first, Outcome)
    assert isinstance(second, Problem)
    assert second.code == "name_taken"
    assert len(express.sql("SELECT * FROM computer WHERE name = 'SAME-NAME'")) == 1


@pytest.mark.parametrize("error", [ValueError, WriteConflict])
async def test_one_that_breaks_the_transaction_of_all_fails_alone(
    database: Database, express: Express, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    bad = order(new_machine(2))

    def breaking(tx: Transaction, layout: Layout, each: Order) -> Outcome:
        outcome = carry_out(tx, layout, each)
        if each is bad:
            raise error("it broke")
        return outcome

    monkeypatch.setattr(together, "carry_out", breaking)
    line = Together(database, LayoutCache(), turns=1)
    first, second, third = await all_of(line, [order(new_machine(1)), bad, order(new_machine(3))])
    assert isinstance(first, Outcome)
    assert isinstance(third, Outcome)
    assert isinstance(second, error)
    assert jobs_scheduled(express) == 2


async def test_who_was_taken_along_by_one_who_is_cancelled_is_told_and_nothing_is_written(
    database: Database,
    steps: Counter[Step],
    express: Express,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, other = order(new_machine(1)), order(new_machine(2))
    goes_on = threading.Event()

    def waiting(tx: Transaction, layout: Layout, each: Order) -> Outcome:
        if each is slow:
            goes_on.wait(20)
        return carry_out(tx, layout, each)

    monkeypatch.setattr(together, "carry_out", waiting)
    line = Together(database, LayoutCache(), turns=1)
    ahead, leading, along = (
        asyncio.create_task(line.carry_out(each)) for each in (order(new_machine(999)), slow, other)
    )
    await ahead
    await until(lambda: steps["connection"] == 2)
    leading.cancel()
    with pytest.raises(DatabaseUnavailable) as told:
        await along
    assert "broken off" in told.value.reason
    with pytest.raises(asyncio.CancelledError):
        await leading
    goes_on.set()
    # The next one waits for nothing of it.
    assert (await line.carry_out(order(new_machine(3)))).state == "scheduled"
    assert jobs_scheduled(express) == 1
