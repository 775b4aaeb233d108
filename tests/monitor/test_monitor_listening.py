"""The events of a site are read once for all parts of the monitor that go by them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.event_stream import Placed, stream_state
from bus.events import EventLog, Kind
from services.monitor.listening import Listening
from services.monitor.recent import Recent
from tests.buses import BusServer
from tests.echo import until

KEY = "mac525400123456"


class Ear:
    """Writes down what it hears; some of it, it cannot take."""

    def __init__(self, *kinds: Kind, refuses: str = "") -> None:
        self.kinds = frozenset(kinds)
        self.heard: list[Placed] = []
        self.had: list[int] = []
        self._refuses = refuses

    @property
    def ids(self) -> list[str]:
        return [placed.event.id for placed in self.heard]

    def hear(self, placed: Placed) -> None:
        if placed.event.id == self._refuses:
            raise OverflowError
        self.heard.append(placed)

    def caught_up(self) -> None:
        self.had.append(len(self.heard))


@asynccontextmanager
async def listening(connection: Connection, *ears: Ear) -> AsyncIterator[None]:
    part = Listening(connection, "main", *ears)
    await part.start()
    try:
        yield
    finally:
        await part.stop()


async def log_of(connection: Connection) -> EventLog:
    await prepare(connection.jetstream())
    return EventLog(connection, "main")


async def test_each_hears_its_kinds_in_their_order_and_with_their_places(
    connection: Connection,
) -> None:
    log = await log_of(connection)
    before = datetime.now(UTC)
    for number in range(3):
        await log.record("menu_shown", machine=KEY, of=f"a{number}")
        await log.record("request_rejected", machine=KEY, of=f"b{number}")
        await log.record("option_changed", of=f"c{number}")
    shown, both = Ear("menu_shown"), Ear("menu_shown", "request_rejected")
    async with listening(connection, shown, both):
        await until(lambda: both.had == [6] and shown.had == [3])
        await log.record("menu_shown", machine=KEY, of="late")
        await until(lambda: len(both.heard) == 7)
        assert len(await connection.jetstream().consumers_info(subjects.EVENTS)) == 1
    assert [placed.sequence for placed in both.heard] == [1, 2, 4, 5, 7, 8, 10]
    assert [placed.sequence for placed in shown.heard] == [1, 4, 7, 10]
    assert {placed.stream for placed in shown.heard} == {(await stream_state(connection)).made}
    kept = [placed.kept for placed in both.heard]
    assert kept == sorted(kept)
    assert abs(kept[0] / 1e9 - before.timestamp()) < 60


async def test_an_event_that_one_cannot_take_is_told_of_and_hides_nothing(
    connection: Connection,
) -> None:
    log = await log_of(connection)
    odd, other = Ear("menu_shown", refuses="main.menu_shown.1"), Ear("menu_shown")
    for number in range(3):
        await log.record("menu_shown", machine=KEY, of=str(number))
    with capture_logs() as lines:
        async with listening(connection, odd, other):
            await until(lambda: other.had == [3])
    assert odd.ids == ["main.menu_shown.0", "main.menu_shown.2"]
    assert [line.get("id") for line in lines] == ["main.menu_shown.1"]


async def test_it_goes_on_after_a_restart_of_the_bus_where_it_was(
    bus: BusServer, connection: Connection
) -> None:
    log = await log_of(connection)
    ear = Ear("menu_shown")
    async with listening(connection, ear):
        await until(lambda: bool(ear.had))
        await log.record("menu_shown", machine=KEY, of="1")
        await until(lambda: len(ear.heard) == 1)
        bus.kill()
        bus.start()
        await until(lambda: connection.is_connected, 20)
        await log.record("menu_shown", machine=KEY, of="2")
        await until(lambda: len(ear.heard) == 2, 20)
    assert ear.ids == ["main.menu_shown.1", "main.menu_shown.2"]
    assert ear.had == [0]


async def test_at_rest_it_asks_the_bus_for_nothing(connection: Connection) -> None:
    log = await log_of(connection)
    ear = Ear("menu_shown")
    async with listening(connection, ear):
        await log.record("menu_shown", machine=KEY, of="1")
        await until(lambda: len(ear.heard) == 1)
        async with asyncio.timeout(10):
            before = None
            while before != connection.stats["out_msgs"]:
                before = connection.stats["out_msgs"]
                await asyncio.sleep(1.5)  # longer than a look
    assert before is not None


@settings(max_examples=100, database=None, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 9), max_size=40))
def test_what_was_noted_last_is_known_and_little_else(most: int, noted: list[int]) -> None:
    recent, last = Recent(most), deque[str]()
    for number in noted:
        text = str(number)
        recent.add(text)
        last.append(text)
        assert all(each in recent for each in list(last)[-most:])
        known = [each for each in map(str, range(10)) if each in recent]
        assert set(known) <= set(last)
        assert len(known) <= 2 * most
