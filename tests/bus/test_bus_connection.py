"""The connection to the bus: order on the wire, patience, and plain errors."""

import asyncio
import gc
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import nats.errors
import pytest
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import BusUnavailableError, Connection, ask, backoff, connect
from bus.line import Line
from bus.messages import Details, encode
from bus.problems import Problem
from tests.buses import BusServer
from tests.echo import ECHO, KEY, Said, say, until
from tests.wire import recorder

SUBJECT = subjects.endpoint("main", "echo", "say", KEY)


async def test_after_subscribe_and_flush_a_request_always_finds_its_responder(
    bus: BusServer, connection: Connection
) -> None:
    other = await connect(bus.url, "other")

    async def answer(message: Msg) -> None:
        await message.respond(b"here")

    for attempt in range(200):
        listening = await connection.subscribe(f"found.{attempt}", cb=answer)
        await connection.flush()
        reply = await other.request(f"found.{attempt}", b"", timeout=2)
        assert reply.data == b"here"
        await listening.unsubscribe()
    await other.close()


async def test_a_fence_leaves_after_what_was_sent_before_it() -> None:
    async def heard(_message: Msg) -> None:
        pass

    async with recorder() as record:
        connection = await connect(record.url, "fence")
        record.commands.clear()
        for number in range(20):
            listening = await connection.subscribe(f"s{number}", cb=heard)
            await connection.publish(f"p{number}", b"x" * number)
            await connection.publish(f"h{number}", b"", headers={"a": "b"})
            await listening.unsubscribe()
            await connection.flush()
        await connection.close()
    sent = [command.split()[:2] for command in record.commands]
    assert sent == [
        command
        for number, sid in enumerate(range(1, 21))
        for command in (
            ["SUB", f"s{number}"],
            ["PUB", f"p{number}"],
            ["HPUB", f"h{number}"],
            ["UNSUB", str(sid)],
            ["PING"],
        )
    ]


async def test_two_fences_at_once_both_hold() -> None:
    async with recorder() as record:
        connection = await connect(record.url, "fences")
        record.commands.clear()
        await connection.publish("first")
        await asyncio.gather(connection.flush(), connection.flush(), connection.publish("second"))
        await connection.flush()
        await connection.close()
    assert record.commands[0].startswith("PUB first")
    assert record.commands[-1] == "PING"
    assert record.commands.count("PING") == 3


async def test_connect_waits_for_a_bus_that_is_not_there_yet(tmp_path: Path) -> None:
    server = BusServer(tmp_path)
    errors: list[Exception] = []

    async def report(error: Exception) -> None:
        errors.append(error)

    connecting = asyncio.create_task(connect(server.url, "early", report=report))
    await until(lambda: len(errors) > 3)
    assert not connecting.done()
    server.start()
    try:
        connection = await asyncio.wait_for(connecting, 10)
        await connection.flush()
        await connection.close()
    finally:
        server.stop()


async def test_waiting_for_the_bus_can_be_called_off(tmp_path: Path) -> None:
    url = BusServer(tmp_path).url
    # At any moment of an attempt, of which each takes a few turns of the loop.
    for turns in range(60):
        connecting = asyncio.create_task(connect(url, "early"))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        done, _ = await asyncio.wait({connecting}, timeout=2)
        assert done
        assert connecting.cancelled()


async def test_any_of_several_addresses_will_do(bus: BusServer, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    connection = await asyncio.wait_for(
        connect(f"{BusServer(nobody).url}, {bus.url},", "choosy"), 10
    )
    await connection.flush()
    await connection.close()


async def test_a_lost_connection_comes_back_by_itself_with_its_subscriptions(
    bus: BusServer, connection: Connection
) -> None:
    told: list[str] = []
    connection.on_disconnect(lambda: told.append("down"))
    connection.on_reconnect(lambda: told.append("up"))

    async def answer(message: Msg) -> None:
        await message.respond(b"here")

    await connection.subscribe("still.there", cb=answer)
    await connection.flush()
    for outage in (1, 2):
        bus.kill()
        await until(lambda: told[-1:] == ["down"])
        bus.start()
        await until(lambda: told[-1:] == ["up"])
        reply = await connection.request("still.there", b"", timeout=2)
        assert reply.data == b"here"
        assert told == ["down", "up"] * outage


async def test_what_is_asked_while_the_line_is_down_fails_at_once(
    bus: BusServer, connection: Connection
) -> None:
    bus.stop()
    await until(lambda: connection.is_reconnecting)
    began = asyncio.get_running_loop().time()
    for _ in range(10):
        with pytest.raises(BusUnavailableError):
            await ask(connection, "main", ECHO, KEY, say(), timeout=5)
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_connection_can_be_closed_while_the_line_is_down(bus: BusServer) -> None:
    connection = await connect(bus.url, "leaver")
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    with pytest.raises(BusUnavailableError):
        await ask(connection, "main", ECHO, KEY, say())
    await asyncio.wait_for(connection.close(), 2)
    assert connection.is_closed


async def test_it_never_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred failures and more, more than nats-py's own 60."""
    monkeypatch.setattr("bus.connection.backoff", lambda _attempt: 0.002)
    errors: list[Exception] = []

    async def report(error: Exception) -> None:
        errors.append(error)

    async with recorder() as record:
        connection = await connect(record.url, "patient", report=report)
    await until(lambda: len(errors) > 100)
    assert connection.is_reconnecting
    await connection.close()


def test_waiting_doubles_is_bounded_and_is_never_the_same_for_a_crowd() -> None:
    crowds = [[backoff(attempt) for _ in range(400)] for attempt in range(12)]
    for attempt, crowd in enumerate(crowds):
        limit = min(5.0, 0.1 * 2**attempt)
        assert all(limit / 4 <= delay <= limit for delay in crowd)
        assert statistics.pstdev(crowd) > limit / 8
        assert len(set(crowd)) > 350
    medians = [statistics.median(crowd) for crowd in crowds]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(medians[:6]))
    assert 0.02 < backoff(10_000_000) <= 5.0


async def test_reconnecting_waits_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections lost in the same moment do not come back in the same moment."""
    monkeypatch.setattr("bus.connection._FIRST_DELAY", 0.6)
    async with recorder() as record:
        crowd = [await connect(record.url, f"c{number}") for number in range(12)]
        loop = asyncio.get_running_loop()
        back: list[float] = []
        for each in crowd:
            each.on_reconnect(lambda: back.append(loop.time()))
        lost = loop.time()
        record.hang_up()
        await until(lambda: len(back) == len(crowd))
        for each in crowd:
            await each.close()
    delays = [moment - lost for moment in back]
    assert min(delays) >= 0.15
    assert max(delays) - min(delays) > 0.05


async def test_nobody_to_ask_is_told_at_once(connection: Connection) -> None:
    with pytest.raises(BusUnavailableError, match="echo"):
        await asyncio.wait_for(ask(connection, "main", ECHO, KEY, say(), timeout=30), 2)


async def test_silence_is_told_after_the_time_out(connection: Connection) -> None:
    async def mute(_message: Msg) -> None:
        pass

    await connection.subscribe(SUBJECT, cb=mute)
    with pytest.raises(BusUnavailableError, match="echo"):
        await asyncio.wait_for(ask(connection, "main", ECHO, KEY, say(), timeout=0.05), 2)


async def test_a_question_that_is_called_off_ends(connection: Connection) -> None:
    asked = asyncio.Event()

    async def mute(_message: Msg) -> None:
        asked.set()

    await connection.subscribe(SUBJECT, cb=mute)
    asking = asyncio.create_task(ask(connection, "main", ECHO, KEY, say(), timeout=30))
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


Answer = Callable[[Msg], tuple[bytes, dict[str, str] | None]]


async def _asked(connection: Connection, data: bytes, headers: dict[str, str] | None) -> Said:
    async def answer(message: Msg) -> None:
        await connection.publish(message.reply, data, headers=headers)

    await connection.subscribe(SUBJECT, cb=answer)
    return await ask(connection, "main", ECHO, KEY, say("hello"), timeout=2)


async def test_an_answer_comes_back_as_what_it_is(connection: Connection) -> None:
    assert await _asked(connection, encode(Said(text="hello")), None) == Said(text="hello")


async def test_a_problem_comes_back_as_what_it_is(connection: Connection) -> None:
    problem = Problem("locked_out", "Not now.", Details(retry_after=9.5))
    with pytest.raises(Problem) as caught:
        await _asked(connection, *problem.wire())
    assert caught.value.body() == problem.body()
    assert caught.value.number == 423


@pytest.mark.parametrize("data", [b"", b"oops", b"[]", b"{}", b'{"text": 7}', b"\xff\xfe"])
async def test_an_answer_that_is_none_is_no_answer(connection: Connection, data: bytes) -> None:
    with pytest.raises(BusUnavailableError):
        await _asked(connection, data, None)


async def test_an_error_without_a_body_is_an_internal_error(connection: Connection) -> None:
    with pytest.raises(Problem) as caught:
        await _asked(connection, b"", {"Nats-Service-Error-Code": "500"})
    assert caught.value.code == "internal_error"


async def test_a_question_larger_than_the_bus_carries_is_not_sent(connection: Connection) -> None:
    with pytest.raises(BusUnavailableError):
        await ask(connection, "main", ECHO, KEY, say("x" * 2_000_000))


async def test_who_leaves_at_any_moment_of_coming_back_leaves_no_line_open(bus: BusServer) -> None:
    for steps in range(150):
        leaving = await connect(bus.url, "leaving")
        assert isinstance(leaving._transport, Line)
        leaving._transport.abort()
        while not leaving.is_reconnecting:  # noqa: ASYNC110 (each step of the loop counts)
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await leaving.close()
    gc.collect()
    writers = [each for each in gc.get_objects() if isinstance(each, asyncio.StreamWriter)]
    assert not [each for each in writers if not each.transport.is_closing()]


async def test_who_does_not_wait_for_a_bus_that_hangs_leaves_no_line_open(bus: BusServer) -> None:
    leaving = await connect(bus.url, "leaving")
    line = leaving._transport
    assert isinstance(line, Line)
    assert line._io_writer
    socket = line._io_writer.get_extra_info("socket")
    with bus.frozen():
        for _ in range(20):
            line.write(bytes(1_000_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await leaving.close()
        await until(lambda: socket.fileno() == -1)


async def test_replies_come_to_the_inbox_that_was_asked_for(bus: BusServer) -> None:
    connection = await connect(bus.url, "mac001b21aabbcc", inbox="_INBOX_mine")
    assert connection.new_inbox().startswith("_INBOX_mine.")
    await connection.close()
    connection = await connect(bus.url, "menu-main")
    assert connection.new_inbox().startswith("_INBOX_menu-main.")
    await connection.close()
    with pytest.raises(nats.errors.ConnectionClosedError):
        await connection.publish("gone")


async def test_a_flush_that_was_given_up_does_no_harm(
    bus: BusServer, connection: Connection
) -> None:
    with bus.frozen():
        with pytest.raises((nats.errors.TimeoutError, TimeoutError)):
            await connection.flush(timeout=0.2)
        waiting = asyncio.create_task(connection.flush())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    await connection.flush(timeout=5)
    inbox = connection.new_inbox()
    heard = asyncio.Event()

    async def hear(_message: Msg) -> None:
        heard.set()

    await connection.subscribe(inbox, cb=hear)
    await connection.publish(inbox, b"still there")
    await asyncio.wait_for(heard.wait(), 5)
