"""The deployment server's database hangs, answers slowly, or dead-locks while machines come."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyodbc
import pytest

from tests.faults.conftest import Size
from tests.faults.estate import CrashingPostgres, SafeBus, estate
from tests.faults.machines import Progress, Visit, go
from tests.faults.reckoning import Before, reckon
from tests.site import DESKTOP, LAPTOP, Express, eventually, new_machine

HANGS: Final = 11.0
"""Seconds: longer than a statement may take, and than the stream waits for a sign of life."""
_SLOW: Final = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(random() * 0.6); RETURN NULL; END $$
"""


def visits(size: Size, round_: int) -> list[Visit]:
    """A visit of half of the machines, each under a name of its own."""
    item_id = (DESKTOP, LAPTOP)[round_ % 2]
    return [
        Visit(new_machine(number), item_id, f"PC{round_}-{number}")
        for number in range(size.machines // 2)
    ]


@pytest.mark.parametrize("kind", ["postgres"])
async def test_what_a_database_that_hangs_holds_up_is_done_once_when_it_goes_on(
    bus: SafeBus,
    name: str,
    dsn: str,
    postgres: CrashingPostgres,
    tmp_path: Path,
    size: Size,
    chance: random.Random,
) -> None:
    async with estate(bus, name, dsn, tmp_path, copies=1) as site:
        before = Before.of(site.express)
        coming, progress = visits(size, 0), Progress()
        going = asyncio.create_task(go(bus.url, name, coming, chance, progress))
        await progress.reached(chance.randrange(size.machines // 2, size.machines))
        with postgres.frozen():
            await asyncio.sleep(HANGS)
        await going
        await site.settled()
        await site.leave()
        books = await reckon(site, before, coming)
        assert {outcome.state for outcome in books.done.values()} == {"scheduled"}


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_database_that_is_slow_makes_clients_wait_and_nothing_else(
    bus: SafeBus,
    name: str,
    dsn: str,
    tmp_path: Path,
    size: Size,
    chance: random.Random,
) -> None:
    express = Express(dsn)
    express.sql(_SLOW)
    for table in ("event_schedule", "computer", "ii_request", "ii_lock"):
        express.sql(
            f"CREATE TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION slowly()"
        )
    async with estate(bus, name, dsn, tmp_path, copies=1) as site:
        before = Before.of(site.express)
        coming = visits(size, 0)
        await go(bus.url, name, coming, chance)
        await site.settled()
        await site.leave()
        books = await reckon(site, before, coming)
        assert {outcome.state for outcome in books.done.values()} == {"scheduled"}


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_request_that_a_deadlock_has_undone_is_done_again_and_once(
    bus: SafeBus,
    name: str,
    dsn: str,
    tmp_path: Path,
    size: Size,
    chance: random.Random,
) -> None:
    async with estate(bus, name, dsn, tmp_path, copies=1) as site:
        before = Before.of(site.express)
        known, renamed = visits(size, 0), visits(size, 1)
        await go(bus.url, name, known, chance)
        victims = [visit for visit in known if visit.outcome][:4]
        computers = [
            visit.outcome.computer.id
            for visit in victims
            if visit.outcome and visit.outcome.computer
        ]
        deadlocks = _deadlocks(site.express)
        with _somebody(dsn) as other:
            # The computers' pending jobs first; the scheduler begins with the computer's name.
            other.execute(
                "UPDATE event_schedule SET start_time = start_time"
                f" WHERE computer_id IN ({', '.join(map(str, computers))})"
            )
            going = asyncio.create_task(go(bus.url, name, renamed, chance))
            await eventually(lambda: _waiting(site.express), lambda count: count > 0, 60)
            await asyncio.to_thread(
                other.execute,
                "UPDATE computer SET network_num = 1"
                f" WHERE computer_id IN ({', '.join(map(str, computers))})",
            )
            other.commit()
        await going
        await site.settled()
        await site.leave()
        assert _deadlocks(site.express) > deadlocks
        books = await reckon(site, before, [*known, *renamed])
        assert {outcome.state for outcome in books.done.values()} == {"scheduled"}


@contextmanager
def _somebody(dsn: str) -> Iterator[Any]:
    """A transaction of another program, which never finds out by itself that it is dead-locked."""
    connection = pyodbc.connect(dsn, autocommit=False, timeout=5)
    try:
        connection.execute("SET deadlock_timeout = '60s'")
        yield connection
    finally:
        connection.close()


async def _waiting(express: Express) -> int:
    """How many transactions wait for jobs that another one holds."""
    ((count,),) = express.sql(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE 'DELETE FROM event_schedule%'"
    )
    return int(count)


def _deadlocks(express: Express) -> int:
    express.sql("SELECT pg_stat_clear_snapshot()")
    ((count,),) = express.sql(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)
