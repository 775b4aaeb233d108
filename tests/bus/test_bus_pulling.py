"""Messages are taken as they come, each once, in their order, and none costs nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from bus.connection import Connection, connect
from bus.pulling import LostError, Numbers, Puller, RefusedError, numbers, pulled, pulling
from bus.waiting import end
from tests.buses import BusServer
from tests.echo import until

STREAM, CONSUMER = "WORK", "workers"


@dataclass
class Reply:
    reply: str


@pytest.fixture
async def queue(connection: Connection) -> Connection:
    """A work queue with a durable consumer that wants each message acknowledged."""
    stream = connection.jetstream()
    await stream.add_stream(
        StreamConfig(name=STREAM, subjects=["work.*"], retention=RetentionPolicy.WORK_QUEUE)
    )
    await stream.add_consumer(
        STREAM,
        ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, ack_wait=5),
    )
    return connection


async def put(connection: Connection, first: int, count: int) -> None:
    for number in range(first, first + count):
        await connection.jetstream().publish("work.item", str(number).encode())


def told(messages: list[Msg]) -> list[int]:
    return [int(message.data) for message in messages]


async def taken(puller: Puller, count: int, most: int = 100) -> list[Msg]:
    """As many messages as there are to be; fails where more come."""
    found: list[Msg] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await puller.take(most, 1)
    assert len(found) == count
    return found


@pytest.mark.parametrize("reply", [
    "$JS.ACK.EVENTS.me.2.1007.42.1700000000123456789.5",
    "$JS.ACK._.ACCOUNTHASH.EVENTS.me.2.1007.42.1700000000123456789.5",
    "$JS.ACK.hub.ACCOUNTHASH.EVENTS.me.2.1007.42.1700000000123456789.5.random",
])  # fmt: skip
def test_the_numbers_of_a_message_are_told_at_home_and_in_a_domain(reply: str) -> None:
    assert numbers(Reply(reply)) == Numbers(  # type: ignore[arg-type]
        delivered=2, stream=1007, consumer=42, nanoseconds=1700000000123456789, pending=5
    )


async def test_the_numbers_are_those_that_the_library_tells(queue: Connection) -> None:
    await put(queue, 0, 3)
    async with pulling(queue, STREAM, CONSUMER) as puller:
        for message in await taken(puller, 3):
            known, found = message.metadata, numbers(message)
            assert (found.delivered, found.pending) == (known.num_delivered, known.num_pending)
            assert found.stream == known.sequence.stream
            assert found.consumer == known.sequence.consumer
            assert found.nanoseconds // 10**9 == int(known.timestamp.timestamp())


async def test_what_is_there_comes_at_once_in_its_order_and_no_more_than_asked_for(
    queue: Connection,
) -> None:
    await put(queue, 0, 5)
    async with pulling(queue, STREAM, CONSUMER) as puller:
        async with asyncio.timeout(5):
            assert told(await taken(puller, 5)) == [0, 1, 2, 3, 4]
            assert await puller.take(100, 0.05) == []
            await put(queue, 5, 3)
            await until(lambda: len(puller._came) == 3)
            assert told(await puller.take(2, 30)) == [5, 6]
            assert told(await puller.take(2, 30)) == [7]


async def test_who_waits_is_told_as_soon_as_something_comes(queue: Connection) -> None:
    async with pulling(queue, STREAM, CONSUMER) as puller:
        waiting = asyncio.create_task(puller.take(100, 30))
        await until(lambda: puller._outstanding == 100)
        await put(queue, 0, 1)
        async with asyncio.timeout(5):
            assert told(await waiting) == [0]


async def test_nobody_who_only_looks_costs_the_bus_anything(queue: Connection) -> None:
    asked = await queue.subscribe("$JS.API.>")
    async with pulling(queue, STREAM, CONSUMER) as puller:
        assert await puller.take(100, 0.01) == []
        await asked.next_msg(5)
        before = dict(queue.stats)
        for _ in range(50):
            assert await puller.take(100, 0.005) == []
        assert queue.stats == before


async def test_one_after_the_other_they_cost_a_request_for_each_fifty(queue: Connection) -> None:
    async with pulling(queue, STREAM, CONSUMER) as puller:
        before = queue.stats["out_msgs"]
        for number in range(100):
            await put(queue, number, 1)
            assert told(await taken(puller, 1)) == [number]
        assert queue.stats["out_msgs"] - before <= 100 + 3


async def test_what_is_in_work_and_on_its_way_is_never_more_than_may_be(
    queue: Connection,
) -> None:
    await put(queue, 0, 30)
    stream = queue.jetstream()
    seen: list[int] = []
    working: list[Msg] = []
    async with pulling(queue, STREAM, CONSUMER) as puller:
        while len(seen) < 30:
            working += await puller.take(5 - len(working), 0.1)
            assert len(working) + puller._outstanding + len(puller._came) <= 5
            assert ((await stream.consumer_info(STREAM, CONSUMER)).num_ack_pending or 0) <= 5
            assert await puller.take(0, 0.01) == []
            done = working.pop(0)
            await done.ack_sync()
            seen.append(int(done.data))
    assert seen == list(range(30))


async def test_one_request_after_the_other_expires_and_it_goes_on(
    queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.pulling._STANDING", 0.2)
    monkeypatch.setattr("bus.pulling._HEARTBEAT", 0.1)
    asked = await queue.subscribe("$JS.API.CONSUMER.MSG.NEXT.>")
    async with pulling(queue, STREAM, CONSUMER) as puller:
        for round_ in range(3):
            await put(queue, round_, 1)
            assert told(await taken(puller, 1)) == [round_]
            while asked.delivered <= 3 * round_:
                assert await puller.take(100, 0.1) == []
        assert puller._outstanding in {0, 100}


@pytest.mark.parametrize("ending", [BusServer.kill, BusServer.stop])
async def test_a_bus_that_starts_again_is_asked_anew(
    bus: BusServer, queue: Connection, ending: Callable[[BusServer], None]
) -> None:
    seen: set[int] = set()
    other = await connect(bus.url, "other")
    try:
        async with pulling(queue, STREAM, CONSUMER) as puller:
            await put(other, 0, 2)
            for message in await taken(puller, 2):
                await message.ack_sync()
            ending(bus)
            with pytest.raises(nats.errors.Error):
                await taken(puller, 1)
            bus.start()
            await until(lambda: other.is_connected, 20)
            await put(other, 2, 3)
            async with asyncio.timeout(20):
                while len(seen) < 3:
                    try:
                        for message in await puller.take(100, 1):
                            seen.add(int(message.data))
                            await message.ack()
                    except nats.errors.Error:
                        await asyncio.sleep(0.05)
    finally:
        await other.close()
    assert seen == {2, 3, 4}


async def test_what_was_asked_over_a_line_that_broke_is_void_and_asked_anew(
    queue: Connection,
) -> None:
    async with pulling(queue, STREAM, CONSUMER) as puller:
        assert await puller.take(5, 0.05) == []
        lines = queue.stats["reconnects"]
        await queue.force_reconnect()
        await until(lambda: queue.stats["reconnects"] > lines and queue.is_connected)
        assert await puller.take(5, 0.05) == []
        await put(queue, 0, 20)
        found = await taken(puller, 5, 5)
        assert told(found) == [0, 1, 2, 3, 4]
        # Who asked before is not given as many again.
        info = await queue.jetstream().consumer_info(STREAM, CONSUMER)
        assert info.num_ack_pending == 5


async def test_a_reader_whose_line_broke_is_told_to_read_anew(queue: Connection) -> None:
    stream = queue.jetstream()
    await stream.add_stream(StreamConfig(name="LOG", subjects=["log"]))
    for number in range(3):
        await stream.publish("log", str(number).encode())
    async with pulled(queue, "LOG", ["log"]) as pull:
        assert told(await pull.take(2)) == [0, 1]
        lines = queue.stats["reconnects"]
        await queue.force_reconnect()
        await until(lambda: queue.stats["reconnects"] > lines and queue.is_connected)
        with pytest.raises(LostError):
            await pull.take(2)
    async with pulled(queue, "LOG", ["log"], after=2) as pull:
        assert told(await pull.take(2)) == [2]
    assert await stream.consumers_info("LOG") == []


async def test_a_reader_knows_that_what_was_pending_has_gone(queue: Connection) -> None:
    stream = queue.jetstream()
    await stream.add_stream(StreamConfig(name="LOG", subjects=["log"]))
    for number in range(3):
        await stream.publish("log", str(number).encode())
    async with pulled(queue, "LOG", ["log"]) as pull:
        assert pull.pending == 3
        await stream.purge_stream("LOG")
        assert await pull.take(10, 0.05) == []
        assert pull.pending == 0


async def _consumer_goes(connection: Connection) -> None:
    await connection.jetstream().delete_consumer(STREAM, CONSUMER)


async def _stream_goes(connection: Connection) -> None:
    await connection.jetstream().delete_stream(STREAM)


@pytest.mark.parametrize("goes", [_consumer_goes, _stream_goes])
async def test_a_consumer_that_goes_is_told_of_after_what_it_has_given(
    queue: Connection, goes: Callable[[Connection], Awaitable[None]]
) -> None:
    async with pulling(queue, STREAM, CONSUMER) as puller:
        assert await puller.take(100, 0.05) == []
        await put(queue, 0, 1)
        await until(lambda: len(puller._came) == 1)
        await goes(queue)
        await until(lambda: puller._failure is not None)
        assert told(await puller.take(100, 1)) == [0]
        for _ in range(2):
            with pytest.raises(RefusedError):
                await puller.take(100, 20)


async def test_a_bus_that_falls_silent_is_not_waited_for(
    bus: BusServer, queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.pulling._SILENCE", 0.4)
    async with pulling(queue, STREAM, CONSUMER) as puller:
        assert await puller.take(100, 0.05) == []
        with bus.frozen(), pytest.raises(LostError, match="silent"):
            await puller.take(100, 20)
        await put(queue, 0, 1)
        monkeypatch.undo()
        assert told(await taken(puller, 1)) == [0]


async def test_who_is_cancelled_while_it_waits_loses_nothing(queue: Connection) -> None:
    seen: list[int] = []
    async with pulling(queue, STREAM, CONSUMER) as puller:
        for number in range(20):
            waiting = asyncio.create_task(puller.take(100, 30))
            await put(queue, number, 1)
            await end(waiting)
            if not waiting.cancelled():
                seen += told(waiting.result())
        async with asyncio.timeout(20):
            while len(seen) < 20:
                seen += told(await puller.take(100, 1))
    assert seen == list(range(20))


async def test_who_leaves_gets_what_is_on_its_way_to_hand_it_back(queue: Connection) -> None:
    async with pulling(queue, STREAM, CONSUMER) as puller:
        assert await puller.take(10, 0.01) == []
        await put(queue, 0, 3)
        left = await puller.leave()
        assert told(left) == [0, 1, 2]
        for message in left:
            await message.nak()
        await put(queue, 3, 1)
        info = await queue.jetstream().consumer_info(STREAM, CONSUMER)
        assert info.num_waiting == 0
        async with asyncio.timeout(4):  # less than the wait for an acknowledgement
            assert sorted(told(await taken(puller, 4))) == [0, 1, 2, 3]


async def test_nothing_is_left_of_one_that_has_ended(queue: Connection) -> None:
    listening = len(queue._subs)
    for _ in range(5):
        async with pulling(queue, STREAM, CONSUMER) as puller:
            assert await puller.take(10, 0.01) == []
    assert len(queue._subs) <= listening + 1  # the library's own, for answers
