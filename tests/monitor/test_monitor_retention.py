"""What is old is removed, of this site alone; what is young, or still needed, stays."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.events import EventLog
from bus.option_store import OptionStore
from bus.options import DEFAULTS, Options, parse
from bus.pulling import first_since
from engine.orders import Record
from engine.protocol import Engine
from express.connection import sqlite_dsn
from express.database import Database, Transaction
from express.engine import ExpressEngine
from express.schedules import record
from services.monitor.retention import Retention, purge
from tests.buses import BusServer
from tests.databases import (
    database,
    dsn,
    empty_dsn,
    kind,
    postgres,
    postgres_template,
    sqlite_template,
)
from tests.echo import KEY, until

__all__ = ["database", "dsn", "empty_dsn", "kind", "postgres", "postgres_template"]
__all__ += ["sqlite_template"]

DAY = timedelta(days=1)
SQLITE = pytest.mark.parametrize("kind", ["sqlite"])


class History:
    """Remembers from before when the history was to be forgotten."""

    def __init__(self) -> None:
        self.before: list[datetime] = []
        self.heard_before: list[datetime] = []
        self.trouble: Exception | None = None

    async def forget(self, before: datetime, heard_before: datetime) -> None:
        if self.trouble:
            raise self.trouble
        self.before.append(before)
        self.heard_before.append(heard_before)


class Clock:
    """A clock that a test sets; it begins with the real time."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(connection: Connection) -> EventLog:
    """The events of site ``main``."""
    await prepare(connection.jetstream())
    return EventLog(connection, "main")


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[Engine]:
    """The engine of site ``main``, which holds the records of requests."""
    found = ExpressEngine(dsn, "main")
    yield found
    await found.close()


def sweeping(
    connection: Connection, engine: Engine, history: History, clock: Clock, **options: Any
) -> Retention:
    current: Options = msgspec.structs.replace(DEFAULTS, **options)
    return Retention(connection, "main", lambda: current, engine, history.forget, now=clock)


async def kept(connection: Connection, name: str) -> dict[str, int]:
    """How many messages stand under each subject of a stream."""
    info = await connection.jetstream().stream_info(name, subjects_filter=">")
    return dict(info.state.subjects or {})


async def max_age(connection: Connection, name: str) -> timedelta:
    info = await connection.jetstream().stream_info(name)
    return timedelta(seconds=info.config.max_age or 0)


async def recorded(database: Database, *ages: timedelta, site: str = "main") -> list[str]:
    """Records of requests that were done so long ago; their ids."""
    ids = [str(uuid.uuid4()) for _ in ages]

    def note(tx: Transaction) -> None:
        for request_id, age in zip(ids, ages, strict=True):
            done = Record(
                request_id=request_id, site=site, machine=KEY, digest="d", state="scheduled",
                outcome="{}", technician=None, item_id="job:1", created_at=datetime.now(UTC) - age,
            )  # fmt: skip
            record(tx, [done])

    await database.transact(note)
    return ids


async def records(database: Database) -> set[str]:
    rows = await database.transact(lambda tx: tx.fetch("SELECT request_id FROM ii_request"))
    return {str(row[0]) for row in rows}


@SQLITE
async def test_events_and_rejected_requests_older_than_they_are_kept_are_removed(
    connection: Connection, log: EventLog, engine: Engine, history: History, clock: Clock
) -> None:
    stream = connection.jetstream()
    others = EventLog(connection, "paris")
    for number in range(5):
        await log.record("menu_shown", machine=KEY, of=str(number))
        await others.record("menu_shown", machine=KEY, of=str(number))
        await stream.publish(subjects.rejected("main", KEY), b"{}")
        await stream.publish(subjects.rejected("paris", KEY), b"{}")
    await log.record("jobs_scheduled", machine=KEY, of="young")
    # What counts is the newest event: all others are older than a day before a day after it.
    clock.ahead = 2 * DAY
    assert await sweeping(connection, engine, history, clock, retention_days=1).sweep()
    assert await kept(connection, subjects.EVENTS) == {
        subjects.event("main", KEY, "jobs_scheduled"): 1,
        subjects.event("paris", KEY, "menu_shown"): 5,
    }
    assert await kept(connection, subjects.REJECTED) == {subjects.rejected("paris", KEY): 5}


async def test_a_purge_removes_what_was_kept_before_a_moment_and_nothing_since(
    connection: Connection, log: EventLog
) -> None:
    stream = connection.jetstream()
    subject = subjects.event("main")
    for number in range(3):
        await log.record("menu_shown", machine=KEY, of=str(number))
    await EventLog(connection, "paris").record("menu_shown", machine=KEY, of="1")
    moment = datetime.now(UTC)
    for number in range(3, 5):
        await log.record("menu_shown", machine=KEY, of=str(number))
    assert await first_since(connection, subjects.EVENTS, subject, moment) == 5
    for _ in range(2):
        await purge(connection, subjects.EVENTS, subject, moment)
        assert await kept(connection, subjects.EVENTS) == {
            subjects.event("main", KEY, "menu_shown"): 2,
            subjects.event("paris", KEY, "menu_shown"): 1,
        }
    await purge(connection, subjects.EVENTS, subject, datetime.now(UTC))
    assert set(await kept(connection, subjects.EVENTS)) == {
        subjects.event("paris", KEY, "menu_shown")
    }
    assert await first_since(connection, subjects.EVENTS, subject, moment) is None
    assert await stream.consumers_info(subjects.EVENTS) == []


@SQLITE
async def test_a_clock_that_jumps_ahead_removes_nothing_that_is_young(
    connection: Connection,
    log: EventLog,
    database: Database,
    engine: Engine,
    history: History,
    clock: Clock,
) -> None:
    await log.record("menu_shown", machine=KEY, of="1")
    ids = await recorded(database, timedelta(), 25 * DAY)
    clock.ahead = 3650 * DAY
    assert await sweeping(connection, engine, history, clock, retention_days=2).sweep()
    assert sum((await kept(connection, subjects.EVENTS)).values()) == 1
    assert await records(database) == set(ids)
    assert history.before[0] < datetime.now(UTC) - 700 * DAY


@SQLITE
async def test_nothing_is_removed_where_nothing_has_happened(
    connection: Connection,
    log: EventLog,
    database: Database,
    engine: Engine,
    history: History,
    clock: Clock,
) -> None:
    ids = await recorded(database, 400 * DAY)
    assert await sweeping(connection, engine, history, clock).sweep()
    assert await records(database) == set(ids)
    assert history.before == []


async def test_records_of_requests_are_removed_by_age_but_none_of_the_last_month(
    connection: Connection,
    log: EventLog,
    database: Database,
    engine: Engine,
    history: History,
    clock: Clock,
) -> None:
    await log.record("menu_shown", machine=KEY)
    young = await recorded(database, timedelta(), 29 * DAY)
    other = await recorded(database, 400 * DAY, site="paris")
    old = await recorded(database, *(31 * DAY + timedelta(hours=n) for n in range(0, 300, 7)))
    assert await records(database) == {*young, *other, *old}
    assert await sweeping(connection, engine, history, clock, retention_days=1).sweep()
    assert await records(database) == {*young, *other}


@SQLITE
async def test_records_that_a_waiting_request_may_need_stay(
    connection: Connection,
    log: EventLog,
    database: Database,
    engine: Engine,
    history: History,
    clock: Clock,
) -> None:
    stream = connection.jetstream()
    await log.record("menu_shown", machine=KEY)
    await stream.publish(subjects.request("main", KEY), b"{}")
    done = Record(
        request_id=str(uuid.uuid4()), site="main", machine=KEY, digest="d", state="scheduled",
        outcome="{}", technician=None, item_id="job:1", created_at=datetime.now(UTC),
    )  # fmt: skip
    await database.transact(lambda tx: record(tx, [done]))
    removing = sweeping(connection, engine, history, clock, retention_days=1)
    before = datetime.now(UTC) + DAY
    await removing.forget_records(before)
    assert await records(database) == {done.request_id}
    await stream.purge_stream(subjects.REQUESTS)
    await removing.forget_records(before)
    assert await records(database) == set()


@SQLITE
async def test_the_history_is_told_what_is_too_old(
    connection: Connection, log: EventLog, engine: Engine, history: History, clock: Clock
) -> None:
    await log.record("menu_shown", machine=KEY)
    removing = sweeping(connection, engine, history, clock, history_days=10, retention_days=20)
    assert await removing.sweep()
    (before,) = history.before
    assert abs(datetime.now(UTC) - 10 * DAY - before) < timedelta(minutes=1)
    # Events of the last 20 days are still there, and one may tell of what was a week before.
    (heard_before,) = history.heard_before
    assert abs(datetime.now(UTC) - 27 * DAY - heard_before) < timedelta(minutes=1)


@SQLITE
async def test_streams_keep_as_long_as_the_site_that_keeps_longest(
    connection: Connection, log: EventLog, engine: Engine, history: History, clock: Clock
) -> None:
    await log.record("menu_shown", machine=KEY)
    was = (await connection.jetstream().stream_info(subjects.EVENTS)).config
    paris = await OptionStore.open(connection, "paris")
    await paris.write("retention_days", parse("retention_days", "400"))
    removing = sweeping(connection, engine, history, clock, retention_days=200)
    for change, days in ((None, 401), ("7", 201), ("nonsense", 201), ("", 201)):
        if change == "":
            await paris.reset("retention_days")
        elif change:
            await paris.write("retention_days", change.encode())
        assert await removing.sweep()
        assert await max_age(connection, subjects.EVENTS) == days * DAY
        assert await max_age(connection, subjects.REJECTED) == days * DAY
    now = (await connection.jetstream().stream_info(subjects.EVENTS)).config
    assert now.evolve(max_age=was.max_age) == was


@SQLITE
async def test_a_site_that_keeps_less_does_not_shorten_what_others_keep(
    connection: Connection, log: EventLog, engine: Engine, history: History, clock: Clock
) -> None:
    await log.record("menu_shown", machine=KEY)
    assert await sweeping(connection, engine, history, clock, retention_days=7).sweep()
    assert await max_age(connection, subjects.EVENTS) == (DEFAULTS.retention_days + 1) * DAY


@SQLITE
@pytest.mark.parametrize("trouble", [TimeoutError(), RuntimeError("it is broken")])
async def test_the_failure_of_one_part_keeps_no_other_from_being_done(
    connection: Connection, log: EventLog, history: History, clock: Clock, trouble: Exception,
    engine: Engine,
) -> None:  # fmt: skip
    await log.record("menu_shown", machine=KEY, of="1")
    await log.record("menu_shown", machine=KEY, of="2")
    history.trouble = trouble
    clock.ahead = 2 * DAY
    with capture_logs() as lines:
        assert not await sweeping(connection, engine, history, clock, retention_days=1).sweep()
    assert sum((await kept(connection, subjects.EVENTS)).values()) == 1
    warned = [line for line in lines if line["log_level"] != "debug"]
    assert [line["what"] for line in warned] == ["history"]


async def test_a_database_that_does_not_answer_is_no_end(
    connection: Connection, log: EventLog, history: History, clock: Clock
) -> None:
    await log.record("menu_shown", machine=KEY)
    gone = ExpressEngine(sqlite_dsn(Path("/nowhere/express.db")), "main")
    with capture_logs() as lines:
        assert not await sweeping(connection, gone, history, clock).sweep()
    await gone.close()
    assert len(history.before) == 1
    warned = [line for line in lines if line["log_level"] != "debug"]
    assert [line["what"] for line in warned] == ["records of requests"]


@SQLITE
async def test_a_bus_that_does_not_answer_is_no_end(
    bus: BusServer, connection: Connection, log: EventLog, engine: Engine, history: History,
    clock: Clock,
) -> None:  # fmt: skip
    removing = Retention(
        connection, "main", lambda: DEFAULTS, engine, history.forget, now=clock, patience=0.5
    )
    bus.stop()
    with capture_logs() as lines:
        assert not await removing.sweep()
    assert lines[-1]["event"] == "nothing is removed"


@asynccontextmanager
async def working(removing: Retention) -> AsyncIterator[None]:
    await removing.start()
    try:
        yield
    finally:
        await removing.stop()


@SQLITE
async def test_it_is_done_soon_after_the_start_and_again_when_an_option_changes(
    connection: Connection, log: EventLog, engine: Engine, history: History
) -> None:
    await log.record("menu_shown", machine=KEY)
    current = DEFAULTS
    removing = Retention(
        connection, "main", lambda: current, engine, history.forget, soon=0.02, look=0.01
    )
    async with working(removing):
        await until(lambda: len(history.before) == 1)
        await asyncio.sleep(0.1)
        assert len(history.before) == 1
        current = msgspec.structs.replace(DEFAULTS, history_days=10)
        await until(lambda: len(history.before) == 2)
    assert history.before[1] > datetime.now(UTC) - 11 * DAY
