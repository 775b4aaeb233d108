"""Locks, pending jobs, start times and the record of requests."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pyodbc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import Record
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction, WriteConflict
from express.dialects import Dialect
from express.schedules import (
    Wanted,
    clock,
    in_database_clock,
    lock,
    record,
    recorded,
    replace_pending,
    unlock,
)
from tests.databases import Held, PostgresServer, held

HANGS = 10.0
"""Seconds after which a call that should have been given up is taken to hang."""

pytestmark = pytest.mark.express

NOW = datetime(2026, 3, 1, 12, 30, 15)  # noqa: DTZ001 - as a database writes it
JOBS = [2000103, 2000101, 2000102]


def a_computer(tx: Transaction, name: str = "STAFF-0117") -> int:
    return int((tx.fetch("SELECT computer_id FROM computer WHERE name = ?", name))[0][0])


def scheduled(tx: Transaction, computer: int) -> list[tuple[object, ...]]:
    rows = tx.fetch(
        "SELECT event_id, start_time, status_code FROM event_schedule WHERE computer_id = ?"
        " ORDER BY schedule_id",
        computer,
    )
    return [tuple(row) for row in rows]


def count(tx: Transaction, table: str) -> int:
    return int(tx.fetch(f"SELECT COUNT(*) FROM {table}")[0][0])


# Locks.


def lock_and_unlock(tx: Transaction, key: str = "machine:1") -> None:
    lock(tx, [key])
    unlock(tx, [key])


async def test_transactions_with_one_lock_run_one_after_the_other(database: Database) -> None:
    log: list[str] = []

    def work(tx: Transaction, name: str) -> None:
        lock(tx, ["machine:1"])
        log.append(f"{name} in")
        log.append(f"{name} reads {count(tx, 'ii_request')}")
        time.sleep(0.1)
        record(tx, [a_record(f"request-{name}")])
        unlock(tx, ["machine:1"])
        # The row is gone, but nobody may come in before the commit.
        time.sleep(0.1)
        log.append(f"{name} out")

    await asyncio.gather(*(database.transact(partial(work, name=name)) for name in "ab"))
    first, second = ("a", "b") if log[0] == "a in" else ("b", "a")
    assert log == [
        f"{first} in", f"{first} reads 0", f"{first} out",
        f"{second} in", f"{second} reads 1", f"{second} out",
    ]  # fmt: skip
    assert await database.transact(lambda tx: count(tx, "ii_request")) == 2
    assert await database.transact(lambda tx: count(tx, "ii_lock")) == 0


async def test_a_lock_is_let_go_when_its_transaction_fails(database: Database) -> None:
    def fail(tx: Transaction) -> None:
        lock(tx, ["machine:1"])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.transact(fail)
    await database.transact(lock_and_unlock)


async def test_a_lock_is_let_go_when_its_holder_is_cancelled(database: Database) -> None:
    holder = Held()
    holding = asyncio.create_task(database.transact(holder.work))
    await holder.do(lambda tx: lock(tx, ["machine:1"]))
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    holder.end()
    await database.transact(lock_and_unlock)


async def test_locks_of_different_keys_do_not_wait_where_there_are_many_writers(
    kind: Dialect, database: Database
) -> None:
    if kind == "sqlite":  # It has one writer.
        return
    async with held(database) as one:
        await one.do(lambda tx: lock(tx, ["machine:1"]))
        async with asyncio.timeout(5):
            await database.transact(partial(lock_and_unlock, key="machine:2"))
        await one.do(lambda tx: unlock(tx, ["machine:1"]))


async def test_a_wait_for_a_lock_has_an_end(
    postgres: PostgresServer, postgres_template: str
) -> None:
    name = postgres.create(postgres_template)
    database = Database(postgres.dsn(name), statement_timeout=0.3)
    async with held(database) as holder:
        await holder.do(lambda tx: lock(tx, ["machine:1"]))
        with pytest.raises((WriteConflict, DatabaseUnavailable)):
            async with asyncio.timeout(HANGS):
                await database.transact(lambda tx: lock(tx, ["machine:1"]))
        await holder.do(lambda tx: unlock(tx, ["machine:1"]))
    await database.close()
    postgres.drop(name)


async def test_a_lock_taken_first_makes_sqlites_writers_wait_for_each_other(
    database: Database,
) -> None:
    def work(tx: Transaction, number: int) -> None:
        lock(tx, [f"machine:{number % 3}"])
        found = count(tx, "ii_request")
        record(tx, [a_record(f"request-{number}", digest=str(found))])
        unlock(tx, [f"machine:{number % 3}"])

    await asyncio.gather(*(database.transact(partial(work, number=n)) for n in range(30)))
    assert await database.transact(lambda tx: count(tx, "ii_request")) == 30


async def test_of_many_locks_one_that_is_held_is_waited_for(database: Database) -> None:
    told: list[str] = []

    def work(tx: Transaction) -> None:
        lock(tx, ["machine:3", "machine:1", "machine:2"])
        told.append("in")
        unlock(tx, ["machine:2", "machine:1", "machine:3"])

    async with held(database) as one:
        await one.do(lambda tx: lock(tx, ["machine:2", "name:x"]))
        waiting = asyncio.create_task(database.transact(work))
        await asyncio.wait({waiting}, timeout=0.2)
        assert told == []
        await one.do(lambda tx: unlock(tx, ["machine:2", "name:x"]))
    await waiting
    assert await database.transact(lambda tx: count(tx, "ii_lock")) == 0


async def test_who_takes_many_locks_at_once_stands_in_nobodys_way_for_ever(
    database: Database,
) -> None:
    chance = random.Random(7)

    def work(tx: Transaction, keys: list[str]) -> None:
        lock(tx, keys)
        found = count(tx, "ii_request")
        record(tx, [a_record(f"request-{found}")])
        unlock(tx, keys)

    keys = ["every", *(f"machine:{number}" for number in range(12))]
    taken = [chance.sample(keys[1:], 6) + keys[:1] for _ in range(30)]
    await asyncio.gather(*(database.transact(partial(work, keys=each)) for each in taken))
    assert await database.transact(lambda tx: count(tx, "ii_request")) == 30


async def test_no_lock_is_no_statement(database: Database) -> None:
    def work(tx: Transaction) -> int:
        lock(tx, [])
        unlock(tx, [])
        return len(tx.steps)

    assert await database.transact(work) == 0


# Pending jobs.


async def test_pending_jobs_are_replaced_in_order_and_others_kept(database: Database) -> None:
    mine, other = await database.transact(lambda tx: (a_computer(tx), a_computer(tx, "STAFF-0118")))

    def replace(tx: Transaction) -> None:
        tx.insert(
            "event_schedule",
            ("event_id", "computer_id", "status_code"),
            [
                (2000190, mine, None),
                (2000191, mine, None),
                (2000192, mine, -1),
                (2000193, mine, 0),
                (2000190, other, None),
            ],
        )
        assert replace_pending(tx, [Wanted(mine, JOBS, NOW)]) == {mine: 2}

    await database.transact(replace)
    assert await database.transact(lambda tx: scheduled(tx, mine)) == [
        (2000192, None, -1),
        (2000193, None, 0),
        *((job, NOW, None) for job in JOBS),
    ]
    assert await database.transact(lambda tx: scheduled(tx, other)) == [(2000190, None, None)]
    removed = await database.transact(lambda tx: replace_pending(tx, [Wanted(mine, [], NOW)]))
    assert removed == {mine: 3}


async def test_of_many_computers_each_gets_its_own_jobs_and_its_own_start(
    database: Database,
) -> None:
    later = NOW + timedelta(days=1)

    def work(tx: Transaction) -> None:
        names = ("STAFF-0117", "STAFF-0118", "LIB-KIOSK-01", "CAD-LAB-01")
        one, two, three, other = (a_computer(tx, name) for name in names)
        tx.insert(
            "event_schedule",
            ("event_id", "computer_id", "status_code"),
            [(2000190, one, None), (2000191, two, 0), (2000190, other, None), (2000192, one, None)],
        )
        wanted = [Wanted(one, JOBS, NOW), Wanted(two, JOBS[:1], later), Wanted(three, [], NOW)]
        assert replace_pending(tx, wanted) == {one: 2}
        assert scheduled(tx, one) == [(job, NOW, None) for job in JOBS]
        assert scheduled(tx, two) == [(2000191, None, 0), (JOBS[0], later, None)]
        assert scheduled(tx, three) == []
        assert scheduled(tx, other) == [(2000190, None, None)]
        assert replace_pending(tx, []) == {}
        assert replace_pending(tx, wanted[:2]) == {one: 3, two: 1}

    await database.transact(work)


async def test_a_job_that_is_gone_schedules_none_of_them(database: Database) -> None:
    def schedule(tx: Transaction) -> None:
        wanted = [Wanted(a_computer(tx, "STAFF-0118"), JOBS, NOW)]
        replace_pending(tx, [*wanted, Wanted(a_computer(tx), [*JOBS, 77], NOW)])

    with pytest.raises(pyodbc.Error, match=r"(?i)foreign key"):
        await database.transact(schedule)
    assert await database.transact(lambda tx: scheduled(tx, a_computer(tx))) == []


# Start times.


def in_clock_of(tx: Transaction, at: datetime | None) -> datetime:
    return in_database_clock(at, clock(tx), datetime.now(UTC))


async def test_now_is_the_databases_now(database: Database) -> None:
    now = await database.transact(lambda tx: in_clock_of(tx, None))
    assert now.tzinfo is None
    assert now.microsecond == 0
    again = await database.transact(lambda tx: in_clock_of(tx, datetime.now(UTC)))
    assert abs(again - now) <= timedelta(seconds=2)


async def test_a_start_time_comes_back_as_it_went(database: Database) -> None:
    at = datetime(2031, 12, 24, 18, 30, tzinfo=timezone(timedelta(hours=1)))

    def work(tx: Transaction) -> None:
        computer = a_computer(tx)
        when = in_clock_of(tx, at)
        replace_pending(tx, [Wanted(computer, JOBS[:1], when)])
        assert scheduled(tx, computer) == [(JOBS[0], when, None)]

    await database.transact(work)


async def test_a_server_in_another_zone_gets_its_own_clocks_time(
    postgres: PostgresServer, postgres_template: str
) -> None:
    name = postgres.create(postgres_template)
    admin = postgres.admin()
    admin.execute(f"ALTER DATABASE {name} SET timezone TO 'Asia/Kathmandu'")
    admin.close()
    database = Database(postgres.dsn(name))
    noon = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    when = await database.transact(lambda tx: in_clock_of(tx, noon))
    await database.close()
    postgres.drop(name)
    assert when == datetime(2026, 5, 1, 17, 45)  # noqa: DTZ001 - as the database's clock shows it


@settings(max_examples=100)
@given(
    st.integers(-48, 56),
    st.integers(-400, 400),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - Hypothesis wants it
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001
)
def test_any_zone_is_told_from_a_clock_that_is_a_little_wrong(
    quarters: int, wrong: int, now: datetime, start: datetime
) -> None:
    zone = timezone(timedelta(minutes=15 * quarters))
    start = start.replace(microsecond=0)
    shown = now + timedelta(minutes=15 * quarters, seconds=wrong)
    found = in_database_clock(start.replace(tzinfo=UTC), shown, now.replace(tzinfo=UTC))
    assert found == start.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)


# Requests.


def a_record(request_id: str, digest: str = "d" * 64) -> Record:
    return Record(
        request_id=request_id,
        site="main",
        machine="sn0123456789abcdef",
        digest=digest,
        state="scheduled",
        outcome='{"request_id": "…", "jobs": [' + ", ".join("1" * 3000) + "]}",
        technician=None,
        item_id="job:2000190",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


async def test_a_request_is_recorded_once(database: Database) -> None:
    done = a_record("0a0b0c0d-0000-4000-8000-000000000001")
    assert await database.transact(lambda tx: recorded(tx, [done.request_id])) == {}
    await database.transact(lambda tx: record(tx, [done]))
    found = await database.transact(lambda tx: recorded(tx, [done.request_id]))
    assert found == {done.request_id: done}
    with pytest.raises(WriteConflict):
        await database.transact(lambda tx: record(tx, [done]))


async def test_of_many_requests_those_that_were_done_are_known(database: Database) -> None:
    done = {each.request_id: each for each in (a_record(f"r-{number}") for number in range(16))}
    await database.transact(lambda tx: record(tx, list(done.values())))
    await database.transact(lambda tx: record(tx, []))
    asked = [f"r-{number}" for number in range(0, 32, 3)]
    found = await database.transact(lambda tx: recorded(tx, asked))
    assert found == {id_: done[id_] for id_ in asked if id_ in done}
    assert await database.transact(lambda tx: recorded(tx, [])) == {}


async def test_one_request_that_was_done_lets_none_of_many_be_recorded(
    database: Database,
) -> None:
    await database.transact(lambda tx: record(tx, [a_record("r-2")]))
    with pytest.raises(WriteConflict):
        await database.transact(lambda tx: record(tx, [a_record(f"r-{n}") for n in range(4)]))
    assert await database.transact(lambda tx: count(tx, "ii_request")) == 1


async def test_a_request_is_forgotten_with_its_transaction(database: Database) -> None:
    def fail(tx: Transaction) -> None:
        record(tx, [a_record("r-1")])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.transact(fail)
    assert await database.transact(lambda tx: recorded(tx, ["r-1"])) == {}
