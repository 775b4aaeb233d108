"""What reading a backlog of events by their kinds costs, against taking its messages plainly.

A monitor reads all that the stream holds of the kinds that deployments are known by, at every start
and in every copy, before it follows any. The bare program takes the same messages with a consumer
of its own and looks at none of them.
"""

import contextlib
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from nats.js.api import AckPolicy, ConsumerConfig

from bench.harness import MeasureError, Reach, Rounds, Say, milliseconds, one_figure
from bench.history import PER_DEPLOYMENT, SITE, deployment
from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.event_stream import BATCH, read
from bus.messages import encode
from services.monitor.underway import KINDS
from tests.buses import BusServer

_DEPLOYMENTS: Final = 5_000
_EVENTS: Final = _DEPLOYMENTS * PER_DEPLOYMENT
_WANTED: Final = 4
"""Events of each deployment that are of these kinds."""
_ROUNDS: Final = 5


def _make(say: Say) -> float:
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        bus = BusServer(Path(scratch))
        bus.start()
        try:
            return uvloop.run(_compare(bus.url, say))
        finally:
            bus.stop()


async def _compare(url: str, say: Say) -> float:
    connection = await connect(url, "bench")
    try:
        await prepare(connection.jetstream())
        await _fill(connection)
        say(f"{_EVENTS:,} events of {_DEPLOYMENTS:,} deployments on 2,000 machines")
        rounds = Rounds(say, f"{len(KINDS)} kinds of events", "bare messages", milliseconds)
        await _by_kinds(connection)
        for _ in range(_ROUNDS):
            ours = await _by_kinds(connection)
            rounds.add(ours, await _bare(connection))
        return rounds.median()
    finally:
        await connection.close()


async def _fill(connection: Connection) -> None:
    now = datetime.now(UTC)
    for number in range(_DEPLOYMENTS):
        for each in deployment(number, now):
            subject = subjects.event(SITE, each.machine, each.kind)
            await connection.publish(subject, encode(each))
        if number % 50 == 0:
            await connection.flush()
    # Acknowledged behind all of them, and of another site.
    await connection.jetstream().publish(subjects.event("other", "m", "menu_shown"), b"")


async def _by_kinds(connection: Connection) -> float:
    """Seconds to read the events of some kinds.

    Raises:
        MeasureError: some of them are missing.
    """
    began, found = time.perf_counter(), 0
    events = read(connection, SITE, kinds=KINDS)
    async with contextlib.aclosing(events):
        async for _ in events:
            found += 1
    if found != _DEPLOYMENTS * _WANTED:
        raise MeasureError(f"of {_DEPLOYMENTS * _WANTED} events {found} were read")
    return time.perf_counter() - began


async def _bare(connection: Connection) -> float:
    """Seconds to take every message of the site."""
    began = time.perf_counter()
    stream = connection.jetstream()
    config = ConsumerConfig(
        filter_subject=subjects.event(SITE),
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        inactive_threshold=60,
    )
    made = await stream.add_consumer(subjects.EVENTS, config)
    pulling = await stream.pull_subscribe_bind(made.name, subjects.EVENTS)
    left = made.num_pending or 0
    while left:
        left -= len(await pulling.fetch(min(left, BATCH)))
    await pulling.unsubscribe()
    await stream.delete_consumer(subjects.EVENTS, made.name)
    return time.perf_counter() - began


RUN: Final = one_figure(
    name="event_backlog",
    about="seconds to read some kinds of 40,000 events / to take bare messages",
    reach=Reach("<=", 2),
    make=_make,
)
