"""The streams and buckets of the bus, and a copy of a bucket's keys that is always at hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from nats.js.api import KeyValueConfig, RetentionPolicy, StorageType, StreamConfig

from bus import subjects
from bus.buckets import Mirror, prepare
from bus.connection import Connection, connect
from tests.buses import BusServer
from tests.echo import until

SOON = 2.0
"""Seconds in which a change must have been seen: far less than the 30 after which all is read anew.

It takes a few milliseconds on an idle machine.
"""


class Seen:
    """What a mirror has told."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.times = 0

    def __call__(self, values: Mapping[str, bytes]) -> None:
        self.values = dict(values)
        self.times += 1

    async def to_be(self, values: dict[str, bytes], seconds: float = SOON) -> None:
        await until(lambda: self.values == values, seconds)


@asynccontextmanager
async def mirroring(
    connection: Connection, seen: Callable[[Mapping[str, bytes]], None], site: str = "main"
) -> AsyncIterator[Mirror]:
    mirror = Mirror(connection, subjects.OPTIONS, site, seen)
    await asyncio.wait_for(mirror.start(), 10)
    try:
        yield mirror
    finally:
        await mirror.stop()


async def test_everything_is_made_once_and_found_again(connection: Connection) -> None:
    stream = connection.jetstream()
    for _ in range(3):
        await prepare(stream)
    requests = (await stream.stream_info(subjects.REQUESTS)).config
    assert requests.retention == RetentionPolicy.WORK_QUEUE
    assert requests.storage == StorageType.FILE
    assert requests.subjects == ["imaging.*.request.*"]
    rejected = (await stream.stream_info(subjects.REJECTED)).config
    assert rejected.subjects == ["imaging.*.rejected.*"]
    for bucket in (subjects.OPTIONS, subjects.KEYS, subjects.TRIES):
        status = await (await stream.key_value(bucket)).status()
        assert status.stream_info.config.storage == StorageType.FILE


async def test_two_services_may_prepare_at_the_same_time(bus: BusServer) -> None:
    crowd = [await connect(bus.url, f"c{number}") for number in range(4)]
    await asyncio.gather(*(prepare(each.jetstream()) for each in crowd))
    for each in crowd:
        await each.close()


async def test_what_an_operator_has_made_differently_is_left_alone(
    connection: Connection,
) -> None:
    stream = connection.jetstream()
    await stream.add_stream(
        StreamConfig(
            name=subjects.REQUESTS,
            subjects=[subjects.request("*")],
            retention=RetentionPolicy.WORK_QUEUE,
            description="ours",
            max_msgs=7,
        )
    )
    await stream.create_key_value(KeyValueConfig(bucket=subjects.OPTIONS, history=9))
    await prepare(stream)
    config = (await stream.stream_info(subjects.REQUESTS)).config
    assert (config.description, config.max_msgs) == ("ours", 7)
    assert (await (await stream.key_value(subjects.OPTIONS)).status()).history == 9


async def test_another_fault_while_preparing_is_not_hidden(connection: Connection) -> None:
    stream = connection.jetstream()
    await stream.add_stream(StreamConfig(name="other", subjects=[subjects.request("*")]))
    with pytest.raises(Exception, match="overlap"):
        await prepare(stream)


async def test_changes_and_deletions_are_seen_within_milliseconds(connection: Connection) -> None:
    stream = connection.jetstream()
    await prepare(stream)
    bucket = await stream.key_value(subjects.OPTIONS)
    await bucket.put("main.timeout", b"7")
    await bucket.put("main.gone", b"1")
    await bucket.delete("main.gone")
    await bucket.put("london.timeout", b"9")
    seen = Seen()
    async with mirroring(connection, seen):
        assert seen.values == {"timeout": b"7"}
        await bucket.put("main.timeout", b"8")
        await seen.to_be({"timeout": b"8"})
        await bucket.put("main.text.title", b'"Hi"')
        await seen.to_be({"timeout": b"8", "text.title": b'"Hi"'})
        await bucket.delete("main.timeout")
        await seen.to_be({"text.title": b'"Hi"'})
        await bucket.purge("main.text.title")
        await seen.to_be({})
        times = seen.times
        await bucket.put("london.timeout", b"10")
        await bucket.put("main.timeout", b"1")
        await seen.to_be({"timeout": b"1"})
        assert seen.times == times + 1


async def test_an_empty_bucket_is_told_once(connection: Connection) -> None:
    await prepare(connection.jetstream())
    seen = Seen()
    async with mirroring(connection, seen):
        assert (seen.values, seen.times) == ({}, 1)


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
async def test_it_sees_what_changed_while_it_was_cut_off_and_after(
    bus: BusServer, connection: Connection, crash: bool
) -> None:
    await prepare(connection.jetstream())
    writer = await connect(bus.url, "writer")
    bucket = await writer.jetstream().key_value(subjects.OPTIONS)
    await bucket.put("main.timeout", b"7")
    seen = Seen()
    async with mirroring(connection, seen):
        (bus.kill if crash else bus.stop)()
        await until(lambda: connection.is_reconnecting and writer.is_reconnecting)
        assert seen.values == {"timeout": b"7"}
        bus.start()
        await until(lambda: connection.is_connected and writer.is_connected)
        await bucket.put("main.timeout", b"8")
        await seen.to_be({"timeout": b"8"}, 10)
        await bucket.put("main.timeout", b"9")
        await seen.to_be({"timeout": b"9"}, 10)
    await writer.close()


async def test_it_waits_for_a_bucket_that_is_made_later(connection: Connection) -> None:
    seen = Seen()
    mirror = Mirror(connection, subjects.OPTIONS, "main", seen)
    starting = asyncio.create_task(mirror.start())
    await asyncio.sleep(0.1)
    assert not starting.done()
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.OPTIONS)
    await bucket.put("main.timeout", b"7")
    await asyncio.wait_for(starting, 10)
    await seen.to_be({"timeout": b"7"})
    await mirror.stop()


async def test_a_silent_watch_is_read_anew(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.buckets._REREAD", 0.05)
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.OPTIONS)
    seen = Seen()
    async with mirroring(connection, seen):
        before = max(connection._subs)
        await until(lambda: max(connection._subs) > before + 3)
        await bucket.put("main.timeout", b"7")
        await seen.to_be({"timeout": b"7"}, 2)
        assert seen.times == 2
        # The watches before have been ended.
        assert len(connection._subs) < 6


async def test_reading_anew_and_fetching_ask_the_bus_for_no_bucket_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.buckets._REREAD", 0.05)
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.OPTIONS)
    await bucket.put("main.timeout", b"7")
    opened = await connection.subscribe(f"$JS.API.STREAM.INFO.KV_{subjects.OPTIONS}")
    await connection.flush()
    seen = Seen()
    async with mirroring(connection, seen) as mirror:
        before = max(connection._subs)
        await until(lambda: max(connection._subs) > before + 3)
        await mirror.fetch("timeout")
        await connection.flush()
        assert opened.pending_msgs == 1
        assert (seen.values, seen.times) == ({"timeout": b"7"}, 1)


async def test_a_bucket_that_is_made_anew_is_read_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.buckets._REREAD", 0.05)
    stream = connection.jetstream()
    await prepare(stream)
    await (await stream.key_value(subjects.OPTIONS)).put("main.timeout", b"7")
    seen = Seen()
    async with mirroring(connection, seen):
        assert seen.values == {"timeout": b"7"}
        await stream.delete_key_value(subjects.OPTIONS)
        # Read meanwhile, it cannot be told from one that is empty or away.
        await prepare(stream)
        bucket = await stream.key_value(subjects.OPTIONS)
        await bucket.put("main.timeout", b"8")
        await seen.to_be({"timeout": b"8"}, 15)


async def test_a_key_can_be_fetched_as_it_is_now(connection: Connection) -> None:
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.OPTIONS)
    await bucket.put("main.timeout", b"7")
    seen = Seen()
    async with mirroring(connection, seen) as mirror:
        await mirror.stop()
        await mirror.fetch("tag")
        assert seen.values == {"timeout": b"7"}
        await bucket.put("main.tag", b"x")
        await mirror.fetch("tag")
        assert seen.values == {"timeout": b"7", "tag": b"x"}
        await bucket.delete("main.timeout")
        await mirror.fetch("timeout")
        assert seen.values == {"tag": b"x"}


async def test_a_mirror_can_be_stopped_at_any_time(bus: BusServer, connection: Connection) -> None:
    await Mirror(connection, subjects.OPTIONS, "main", Seen()).stop()
    await prepare(connection.jetstream())
    async with mirroring(connection, Seen()):
        bus.kill()
        await until(lambda: connection.is_reconnecting)
    assert not [task for task in asyncio.all_tasks() if "_follow" in repr(task)]
