"""What happened is kept once, bounded, and read again in its order."""

import asyncio
import contextlib
import os
import signal
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import nats.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.event_stream import BATCH, read, reader
from bus.events import (
    LONGEST_LIST,
    LONGEST_TEXT,
    NO_MACHINE,
    Event,
    EventLog,
    Kind,
    NotKeptError,
    one_line,
)
from bus.messages import ComputerRef, encode
from bus.pulling import LostError
from bus.waiting import end
from tests.buses import BusServer
from tests.echo import KEY, until

OTHER = "mac525400123456"


@pytest.fixture
async def log(connection: Connection) -> EventLog:
    await prepare(connection.jetstream())
    return EventLog(connection, "main")


async def everything(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def readers(connection: Connection) -> int:
    return len(await connection.jetstream().consumers_info(subjects.EVENTS))


async def test_an_event_is_read_as_it_was_recorded(connection: Connection, log: EventLog) -> None:
    at = datetime(2026, 11, 1, 8, 0, 0, 5, tzinfo=UTC)
    computer = ComputerRef(id=6, name="LAB-01")
    await log.record(
        "jobs_scheduled", machine=KEY, of="r1", at=at, computer=computer, technician="alice",
        details={"item": "job:5", "jobs": ["a", "b"], "replaced": 2},
    )  # fmt: skip
    details = {"option": "timeout", "value": "7", "was": None}
    await log.record("option_changed", operator="root@desk", details=details)
    scheduled, changed = await everything(read(connection, "main"))
    assert scheduled == Event(
        id="main.jobs_scheduled.r1",
        site="main",
        kind="jobs_scheduled",
        at=at,
        machine=KEY,
        computer=computer,
        technician="alice",
        details={"item": "job:5", "jobs": ["a", "b"], "replaced": 2},
    )
    assert (changed.machine, changed.operator) == (NO_MACHINE, "root@desk")
    assert changed.details == details


async def test_what_happened_only_once_is_kept_once_however_often_it_is_told(
    connection: Connection, log: EventLog
) -> None:
    for _ in range(3):
        await log.record("jobs_scheduled", machine=KEY, of="r1")
        await log.record("jobs_replaced", machine=KEY, of="r1")
        await log.record("login_failed", machine=KEY)
    kinds = [event.kind for event in await everything(read(connection, "main"))]
    assert sorted(kinds) == ["jobs_replaced", "jobs_scheduled", *["login_failed"] * 3]


async def test_the_same_id_at_two_sites_are_two_events(
    connection: Connection, log: EventLog
) -> None:
    await log.record("jobs_scheduled", machine=KEY, of="r1")
    await EventLog(connection, "london").record("jobs_scheduled", machine=KEY, of="r1")
    (here,) = await everything(read(connection, "main"))
    (there,) = await everything(read(connection, "london"))
    assert (here.site, there.site) == ("main", "london")


async def test_what_strangers_type_is_cut_and_becomes_one_line(
    connection: Connection, log: EventLog
) -> None:
    nasty = "\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}eve\r\nroot\ud800"
    await log.record(
        "login_failed",
        machine=KEY,
        technician="x" * 100_000,
        of="é\r\nb\x00",
        computer=ComputerRef(id=1, name=nasty),
        details={"reason": nasty, "groups": [nasty] * 1000},
    )
    (event,) = await everything(read(connection, "main"))
    line = "�[2J�eve  root�"
    assert event.id == "main.login_failed.é  b�"
    assert event.technician == "x" * (LONGEST_TEXT - 1) + "…"
    assert event.computer == ComputerRef(id=1, name=line)
    assert event.details == {"reason": line, "groups": [line] * LONGEST_LIST}


@given(st.text(st.characters(), max_size=2 * LONGEST_TEXT))
@settings(max_examples=200)
def test_any_text_becomes_one_printable_line_and_a_good_one_stays(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= LONGEST_TEXT
    line.encode()  # without half a character
    assert one_line(line) == line
    if text.isprintable() and len(text) <= LONGEST_TEXT:
        assert line == text


async def test_only_the_machines_kinds_and_times_asked_for_are_read(
    connection: Connection, log: EventLog
) -> None:
    await log.record("login_failed", machine=KEY)
    await log.record("login_failed", machine=OTHER)
    await asyncio.sleep(0.005)  # The clock moves on.
    since = datetime.now(UTC)
    await log.record("login_succeeded", machine=KEY)
    await log.record("access_changed")

    async def found(**asked: object) -> list[tuple[str, str]]:
        events = read(connection, "main", **asked)  # type: ignore[arg-type]
        return [(event.machine, event.kind) async for event in events]

    assert await found(machines=(OTHER,)) == [(OTHER, "login_failed")]
    assert await found(machines=(OTHER, NO_MACHINE)) == [
        (OTHER, "login_failed"),
        (NO_MACHINE, "access_changed"),
    ]
    assert await found(kinds=("login_failed", "login_succeeded"), machines=(KEY,)) == [
        (KEY, "login_failed"),
        (KEY, "login_succeeded"),
    ]
    assert await found(since=since) == [(KEY, "login_succeeded"), (NO_MACHINE, "access_changed")]
    assert await found(since=since + timedelta(days=1)) == []
    assert await found(kinds=("account_changed",)) == []


async def test_what_is_no_event_is_skipped_with_a_line_in_the_log(
    connection: Connection, log: EventLog
) -> None:
    subject = subjects.event("main", KEY, "login_failed")
    good = Event(id="1", site="main", kind="login_failed", at=datetime.now(UTC), machine=KEY)
    stream = connection.jetstream()
    junk = (
        b"",
        b"\xff{",
        b"[]",
        b'{"id": "1"}',
        encode(good).replace(b"login_failed", b"of_a_later_contract"),
        encode(good).replace(b'"main"', b'"london"'),
        encode(good).replace(KEY.encode(), OTHER.encode()),
        # In UTC this is no moment at all.
        encode(msgspec.structs.replace(good, at=datetime.fromisoformat("0001-01-01T00:00+14:00"))),
        encode(msgspec.structs.replace(good, at=datetime.fromisoformat("9999-12-31T23:59-12:00"))),
    )
    for body in junk:
        await stream.publish(subject, body)
    await stream.publish(subject, encode(good))
    with capture_logs() as lines:
        assert await everything(read(connection, "main")) == [good]
    assert [line["event"] for line in lines] == ["an event cannot be read"] * len(junk)
    assert lines[0]["subject"] == subject


async def test_a_bus_that_keeps_no_events_says_so(connection: Connection) -> None:
    with capture_logs() as lines, pytest.raises(NotKeptError):
        await EventLog(connection, "main").record("login_failed", machine=KEY, technician="eve")
    assert "eve" in lines[0]["lost"]
    with pytest.raises(nats.errors.Error):
        await everything(read(connection, "main"))


async def test_while_the_bus_is_down_the_log_holds_the_event(
    bus: BusServer, connection: Connection, log: EventLog
) -> None:
    bus.stop()
    await until(lambda: connection.is_reconnecting)
    with capture_logs() as lines, pytest.raises(NotKeptError, match="login_failed"):
        await log.record("login_failed", machine=KEY, technician="eve")
    assert [line["event"] for line in lines] == ["an event is not kept"]
    assert '"technician":"eve"' in lines[0]["lost"]


async def test_a_bus_that_hangs_is_not_waited_for(
    bus: BusServer, connection: Connection, log: EventLog
) -> None:
    process = bus._process
    assert process is not None
    threads = Path(f"/proc/{process.pid}/task")

    def stopped() -> bool:
        states = [(each / "stat").read_text().rpartition(") ")[2][0] for each in threads.iterdir()]
        return set(states) == {"T"}

    os.kill(process.pid, signal.SIGSTOP)
    try:
        await until(stopped)
        with capture_logs() as lines, pytest.raises(NotKeptError):
            async with asyncio.timeout(10):
                await log.record("login_failed", machine=KEY, technician="eve")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert '"technician":"eve"' in lines[0]["lost"]


async def test_reading_ends_with_what_was_there_when_it_began(
    connection: Connection, log: EventLog
) -> None:
    for number in range(3):
        await log.record("login_failed", machine=KEY, details={"number": number})
    seen = []
    async for event in read(connection, "main"):
        seen.append(event.details["number"])
        await log.record("login_failed", machine=KEY, details={"number": 100})
    assert seen == [0, 1, 2]
    assert len(await everything(read(connection, "main"))) == 6
    assert await readers(connection) == 0


async def test_many_events_are_read_in_bounded_memory(
    connection: Connection, log: EventLog
) -> None:
    count = 5_000
    subject = subjects.event("main", KEY, "login_failed")
    body = encode(
        Event(id="1", site="main", kind="login_failed", at=datetime.now(UTC), machine=KEY,
              details=dict.fromkeys("abcdefgh", "x" * 250))
    )  # fmt: skip
    stream = connection.jetstream()
    for _ in range(count // 1000):
        await asyncio.gather(*(stream.publish(subject, body) for _ in range(1000)))
    tracemalloc.start()
    try:
        seen = 0
        async for _ in read(connection, "main"):
            seen += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < len(body) * count / 2


async def test_who_follows_sees_what_was_there_and_then_what_comes_also_over_a_restart(
    bus: BusServer, connection: Connection, log: EventLog
) -> None:
    await log.record("login_failed", machine=KEY, details={"number": 0})
    seen: list[object] = []
    caught_up: list[int] = []

    async def follow() -> None:
        events = read(
            connection, "main", follow=True, caught_up=lambda: caught_up.append(len(seen))
        )
        async with contextlib.aclosing(events):
            async for event in events:
                seen.append(event.details["number"])  # noqa: PERF401 (it never ends)

    following = asyncio.create_task(follow())
    await until(lambda: caught_up == [1])
    await log.record("login_failed", machine=KEY, details={"number": 1})
    await until(lambda: seen == [0, 1])
    bus.stop()
    await until(lambda: connection.is_reconnecting)
    bus.start()
    await until(lambda: connection.is_connected, 30)
    await log.record("login_failed", machine=KEY, details={"number": 2})
    await log.record("login_failed", machine=KEY, details={"number": 3})
    await until(lambda: seen == [0, 1, 2, 3], 30)
    assert caught_up == [1]
    await end(following)
    assert await readers(connection) == 0


async def test_who_follows_hears_once_that_events_cannot_be_read_however_often_it_is_tried(
    connection: Connection,
) -> None:
    tries = await connection.subscribe("$JS.API.STREAM.INFO.>")

    async def follow() -> None:
        async for _ in read(connection, "main", follow=True):
            pass

    with capture_logs() as lines:
        following = asyncio.create_task(follow())
        for _ in range(3):
            await tries.next_msg(20)
        await end(following)
    assert [line["log_level"] for line in lines] == ["warning"]


async def test_who_follows_an_empty_stream_has_caught_up_at_once(
    connection: Connection, log: EventLog
) -> None:
    caught_up: list[bool] = []
    seen: list[Event] = []

    async def follow() -> None:
        events = read(connection, "main", follow=True, caught_up=lambda: caught_up.append(True))
        async with contextlib.aclosing(events):
            async for event in events:
                seen.append(event)  # noqa: PERF401 (it never ends)

    following = asyncio.create_task(follow())
    await until(lambda: caught_up == [True])
    await log.record("login_failed", machine=KEY)
    await until(lambda: len(seen) == 1)
    await end(following)


async def test_who_follows_a_stream_that_is_made_anew_goes_on_with_the_new_one(
    connection: Connection, log: EventLog
) -> None:
    seen: list[object] = []

    async def follow() -> None:
        events = read(connection, "main", kinds=("login_failed", "access_changed"), follow=True)
        async with contextlib.aclosing(events):
            async for event in events:
                seen.append(event.details["number"])  # noqa: PERF401 (it never ends)

    following = asyncio.create_task(follow())
    for number in range(3):
        await log.record("login_failed", machine=KEY, details={"number": number})
    await until(lambda: seen == [0, 1, 2])
    stream = connection.jetstream()
    await stream.delete_stream(subjects.EVENTS)
    await prepare(stream)
    await log.record("login_failed", machine=KEY, details={"number": 3})
    await until(lambda: seen == [0, 1, 2, 3], 20)
    await end(following)


async def test_of_several_kinds_the_bus_looks_for_one_subject_only(
    connection: Connection, log: EventLog
) -> None:
    """Of each message it would look for all of them, which costs it ten times as much."""
    made = await connection.subscribe("$JS.API.CONSUMER.CREATE.>")
    kinds: tuple[Kind, ...] = ("login_failed", "login_succeeded", "login_locked")
    await log.record("login_failed", machine=KEY)
    await log.record("access_changed")
    for asked, machines, expected in (
        (kinds, (), ["imaging.main.event.*.*"]),
        (kinds, (KEY,), [f"imaging.main.event.{KEY}.*"]),
        (kinds[:1], (), ["imaging.main.event.*.login_failed"]),
    ):
        found = await everything(read(connection, "main", kinds=asked, machines=machines))
        assert [event.kind for event in found] == ["login_failed"]
        config = msgspec.json.decode((await made.next_msg(5)).data)["config"]
        assert config["filter_subjects"] == expected


async def test_a_message_that_is_lost_on_its_way_is_noticed(
    connection: Connection, log: EventLog
) -> None:
    for number in range(3):
        await log.record("login_failed", machine=KEY, details={"number": number})
    async with reader(connection, "main") as events:
        # Somebody else takes one: to the reader it is as if the line had lost it.
        stream = connection.jetstream()
        (mine,) = await stream.consumers_info(subjects.EVENTS)
        other = await stream.pull_subscribe_bind(mine.name, subjects.EVENTS)
        assert len(await other.fetch(1)) == 1
        with pytest.raises(LostError):
            await events.batch(BATCH)


async def test_a_reader_takes_no_more_at_a_time_than_it_may_and_knows_where_it_is(
    connection: Connection, log: EventLog
) -> None:
    for number in range(5):
        await log.record("login_failed", machine=KEY, details={"number": number})
        await log.record("access_changed")
    async with reader(connection, "main", after=2, kinds=("login_failed", "login_locked")) as seen:
        assert seen.pending == 8
        assert [each.sequence for each in await seen.batch(5)] == [3, 5, 7]
        assert (seen.position, seen.pending) == (7, 3)
        assert [each.sequence for each in await seen.batch(5)] == [9]
        assert (seen.position, seen.pending) == (10, 0)
        assert await seen.batch(5, 0.05) == []
    assert await readers(connection) == 0


async def test_what_a_reader_does_when_it_has_caught_up_may_fail(
    connection: Connection, log: EventLog
) -> None:
    """As where nobody reads any more what it writes: that is no failure of the bus."""

    def gone() -> None:
        raise BrokenPipeError

    with capture_logs() as lines, pytest.raises(BrokenPipeError):
        await everything(read(connection, "main", follow=True, caught_up=gone))
    assert lines == []
