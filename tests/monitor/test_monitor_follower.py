"""The follower misses nothing and counts nothing twice, whatever dies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import Event
from bus.messages import encode
from express.database import Database
from services.monitor.follower import Follower
from services.monitor.history import History
from services.monitor.metrics import HistoryMetrics
from tests.buses import BusServer
from tests.databases import PostgresServer
from tests.monitor.history_cases import NOON, SITE, Reference, deployed, event, rollup
from tests.site import eventually, stopped

LATER = "the stream begins later; events may have gone unread"
QUICK = 0.8
"""A lease of copies that are to succeed each other soon, in seconds."""


class Copy:
    """A follower as one copy of the monitor has it."""

    def __init__(self, connection: Connection, database: Database, lease: float = QUICK) -> None:
        self.registry = CollectorRegistry()
        self.history = History(database, SITE, lease)
        metrics = HistoryMetrics(self.registry).of(SITE)
        self.follower = Follower(connection, SITE, self.history, metrics)

    async def die(self) -> None:
        """As a process does that is killed: it lets go of nothing."""
        (loop,) = self.follower.loops
        task = loop._task
        assert task
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)

    def shown(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"site": SITE, **labels})


@asynccontextmanager
async def following(
    connection: Connection, database: Database, lease: float = QUICK
) -> AsyncIterator[Copy]:
    copy = Copy(connection, database, lease)
    await copy.follower.start()
    try:
        yield copy
    finally:
        await copy.follower.stop()


@pytest.fixture
async def history_database(empty_dsn: str) -> AsyncIterator[Database]:
    database = Database(empty_dsn, create=True)
    yield database
    await database.close()


@pytest.fixture
async def prepared(connection: Connection) -> Connection:
    await prepare(connection.jetstream())
    return connection


async def publish(connection: Connection, events: Sequence[Event]) -> None:
    """Keeps events in the stream, also those whose ids it has kept before."""
    for each in events:
        subject = subjects.event(SITE, each.machine, each.kind)
        await connection.jetstream().publish(subject, encode(each))


async def applied(database: Database, events: Sequence[Event], seconds: float = 20) -> None:
    """Returns when the history is that of these events."""
    expected = Reference().hear(events).rollup()

    async def look() -> object:
        try:
            return await rollup(database)
        except Exception as error:  # noqa: BLE001 (the database may be down, or empty still)
            return repr(error)

    await eventually(look, lambda found: found == expected, seconds)


def many(first: int, count: int) -> list[Event]:
    return [
        each
        for number in range(first, first + count)
        for each in deployed(
            number, NOON + timedelta(minutes=number), item=f"job:{number % 3}", waited=number % 40
        )
    ]


async def test_events_reach_history_and_metrics(
    prepared: Connection, history_database: Database
) -> None:
    early, late = many(0, 20), many(20, 20)
    await publish(prepared, early)
    async with following(prepared, history_database) as copy:
        await applied(history_database, early)
        await publish(prepared, late)
        await applied(history_database, early + late)
        await eventually(lambda: value(finished(copy)), lambda found: found == 40)
        assert copy.shown("imageinvoker_deployments_total", outcome="failed") == 0
        assert copy.shown("imageinvoker_events_total", kind="jobs_scheduled") == 40
        assert copy.shown("imageinvoker_monitor_lag_events") == 0


async def value(found: int) -> int:
    return found


def finished(copy: Copy) -> int:
    return int(copy.shown("imageinvoker_deployments_total", outcome="finished") or 0)


async def test_a_monitor_that_starts_again_goes_on_where_it_was_with_the_same_totals(
    prepared: Connection, history_database: Database
) -> None:
    first, second = many(0, 5), many(5, 5)
    await publish(prepared, first)
    async with following(prepared, history_database):
        await applied(history_database, first)
    async with following(prepared, history_database) as again:
        await eventually(lambda: value(finished(again)), lambda found: found == 5)
        await publish(prepared, second)
        await eventually(lambda: value(finished(again)), lambda found: found == 10)


async def test_monitors_that_die_between_and_in_their_batches_miss_and_double_nothing(
    prepared: Connection, history_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitor.follower.BATCH", 7)
    events = many(0, 60)
    await publish(prepared, events)
    for steps in range(0, 60, 4):
        copy = Copy(prepared, history_database, lease=0.1)
        await copy.follower.start()
        for _ in range(steps):
            await asyncio.sleep(0.002)
        await copy.die()
    async with following(prepared, history_database, lease=0.1) as last:
        await applied(history_database, events)
        totals = (await last.history.totals()).events
    assert sum(totals.values()) == len(events)


async def test_of_two_copies_one_follows_and_the_other_succeeds_it(
    bus: BusServer, prepared: Connection, history_database: Database
) -> None:
    other_connection = await connect(bus.url, "other")
    first, second = many(0, 10), many(10, 10)
    one = Copy(prepared, history_database)
    two = Copy(other_connection, history_database)
    try:
        await asyncio.gather(one.follower.start(), two.follower.start())
        await publish(prepared, first)
        await applied(history_database, first)
        holder, waiting = (one, two) if one.follower.holds else (two, one)
        assert not waiting.follower.holds
        assert waiting.shown("imageinvoker_deployments_total", outcome="accepted") is None
        await holder.die()
        await publish(prepared, second)
        await applied(history_database, first + second)
        await eventually(lambda: value(finished(waiting)), lambda found: found == 20)
    finally:
        await one.follower.stop()
        await two.follower.stop()
        await other_connection.close()


async def test_a_holder_that_slept_finds_that_another_has_gone_on(
    bus: BusServer, prepared: Connection, history_database: Database
) -> None:
    async with following(prepared, history_database) as sleeper:
        await publish(prepared, many(0, 5))
        await applied(history_database, many(0, 5))
        thief = History(history_database, SITE, lease=1e-9)
        place = None
        while place is None:
            place = await thief.claim()
        await publish(prepared, many(5, 5))
        await eventually(lambda: value(int(sleeper.follower.holds)), lambda holds: not holds)
        assert sleeper.shown("imageinvoker_deployments_total", outcome="accepted") is None
        await thief.release()
        await applied(history_database, many(0, 10))


@pytest.fixture
async def fragile(postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database of a server that a test may stop, with short time-outs."""
    name = postgres.create()
    database = Database(postgres.dsn(name), connect_timeout=1, statement_timeout=1)
    yield database
    await database.close()
    postgres.drop(name)


@contextmanager
def hung(server: PostgresServer) -> Iterator[None]:
    with server.frozen():
        yield


@pytest.mark.parametrize("down", [stopped, hung])
async def test_a_database_that_is_down_or_hangs_is_waited_for_while_the_lag_shows(
    prepared: Connection,
    postgres: PostgresServer,
    fragile: Database,
    down: Callable[[PostgresServer], AbstractContextManager[None]],
) -> None:
    lag = "imageinvoker_monitor_lag_events"
    async with following(prepared, fragile) as copy:
        await publish(prepared, many(0, 5))
        await applied(fragile, many(0, 5))
        with down(postgres):
            await publish(prepared, many(5, 25))
            await eventually(
                lambda: value(int(copy.shown(lag) or 0)), lambda found: found == 100, 20
            )
        await applied(fragile, many(0, 30), 30)
        await eventually(lambda: value(int(copy.shown(lag) or 0)), lambda found: found == 0)


async def test_a_database_that_is_not_there_yet_is_waited_for(
    prepared: Connection, postgres: PostgresServer, fragile: Database
) -> None:
    await publish(prepared, many(0, 5))
    with capture_logs() as logs:

        async def failed() -> int:
            return sum(line["event"] == "work is held up" for line in logs)

        postgres.stop()
        try:
            copy = Copy(prepared, fragile)
            await copy.follower.start()
            await eventually(failed, bool)
        finally:
            postgres.start()
        try:
            await applied(fragile, many(0, 5))
        finally:
            await copy.follower.stop()


@pytest.mark.parametrize("ending", ["kill", "stop"])
async def test_a_bus_that_restarts_is_read_on(
    bus: BusServer, prepared: Connection, history_database: Database, ending: str
) -> None:
    async with following(prepared, history_database):
        await publish(prepared, many(0, 5))
        await applied(history_database, many(0, 5))
        getattr(bus, ending)()
        bus.start()
        other = await connect(bus.url, "publisher")
        try:
            await publish(other, many(5, 25))
        finally:
            await other.close()
        await applied(history_database, many(0, 30), 40)


async def test_a_stream_whose_unread_beginning_has_gone_is_read_from_what_is_left(
    prepared: Connection, history_database: Database
) -> None:
    async with following(prepared, history_database):
        await publish(prepared, many(0, 5))
        await applied(history_database, many(0, 5))
    await publish(prepared, many(5, 10))
    await prepared.jetstream().purge_stream(subjects.EVENTS, seq=41)
    with capture_logs() as logs:
        async with following(prepared, history_database):
            left = many(0, 5) + many(10, 5)
            await applied(history_database, left)
    assert LATER in {line["event"] for line in logs}


async def test_a_stream_that_begins_later_has_taken_nothing_from_a_site_that_was_only_quiet(
    prepared: Connection, history_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitor.follower._RENEWED", 0.3)

    async def position() -> int:
        query = "SELECT position FROM ii_monitor"
        ((found,),) = await history_database.transact(lambda tx: tx.fetch(query))
        return int(found)

    async with following(prepared, history_database):
        await publish(prepared, many(0, 1))
        await applied(history_database, many(0, 1))
        for _ in range(20):
            await prepared.jetstream().publish(subjects.event("london", "m", "menu_shown"), b"")
        await eventually(position, lambda found: found == 24)
    await prepared.jetstream().purge_stream(subjects.EVENTS, seq=20)
    with capture_logs() as logs:
        async with following(prepared, history_database):
            await publish(prepared, many(1, 1))
            await applied(history_database, many(0, 2))
    assert LATER not in {line["event"] for line in logs}


async def test_a_holder_without_its_database_shows_no_totals_once_another_may_show_them(
    bus: BusServer, prepared: Connection, postgres: PostgresServer
) -> None:
    name = postgres.create()
    reachable = Database(postgres.dsn(name))
    lost = Database(postgres.dsn(name), connect_timeout=1)
    total = "imageinvoker_deployments_total"
    await publish(prepared, many(0, 3))
    one, two = Copy(prepared, lost), Copy(prepared, reachable)
    try:
        await one.follower.start()
        await eventually(lambda: value(finished(one)), lambda found: found == 3)
        await two.follower.start()
        # Only its own way to the database is gone.
        lost._closed = True
        lost._discard_idle()
        await eventually(lambda: value(finished(two)), lambda found: found == 3)
        assert one.shown(total, outcome="finished") is None
        assert (one.follower.holds, two.follower.holds) == (False, True)
    finally:
        await one.follower.stop()
        await two.follower.stop()
        await lost.close()
        await reachable.close()
        postgres.drop(name)


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(
    prepared: Connection, history_database: Database
) -> None:
    async with following(prepared, history_database):
        await publish(prepared, many(0, 10))
        await applied(history_database, many(0, 10))
    await prepared.jetstream().delete_stream(subjects.EVENTS)
    await prepare(prepared.jetstream())
    # Some of what it held was restored, and more has happened since.
    await publish(prepared, many(8, 5))
    async with following(prepared, history_database):
        await applied(history_database, many(0, 13))


async def test_what_is_no_event_of_the_site_is_passed_over(
    prepared: Connection, history_database: Database
) -> None:
    stream = prepared.jetstream()
    (good,) = [event("menu_shown")]
    with capture_logs() as logs:
        async with following(prepared, history_database) as copy:
            subject = subjects.event(SITE, "m1", "menu_shown")
            await stream.publish(subject, b"{not json")
            await stream.publish(subject, b'{"kind": "of a later version"}')
            elsewhere = subjects.event(SITE, "m2", "menu_shown")
            await stream.publish(elsewhere, encode(good))
            await stream.publish(subjects.event("london", "m1", "menu_shown"), encode(good))
            await publish(prepared, [good])
            await eventually(
                lambda: value(int(copy.shown("imageinvoker_events_total", kind="menu_shown") or 0)),
                bool,
            )
            assert (await copy.history.totals()).events == {"menu_shown": 1}
    assert len([line for line in logs if line["event"] == "an event cannot be read"]) == 3


async def test_a_batch_that_can_never_be_applied_is_told_of_and_tried_again(
    prepared: Connection, history_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with following(prepared, history_database) as copy:
            await eventually(lambda: value(int(copy.follower.holds)), bool)
            await history_database.transact(lambda tx: tx.execute("DROP TABLE ii_heard"))
            await publish(prepared, many(0, 1))

            async def failed() -> int:
                return sum(line["event"] == "work is held up" for line in logs)

            await eventually(failed, lambda found: found >= 2)
    async with following(prepared, history_database):
        await applied(history_database, many(0, 1))
