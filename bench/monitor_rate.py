"""How many events the monitor applies in a second of its processor time, while 2,000 come a second.

Real processes: a bus, the monitor as `imageinvoker monitor` runs it, and this one, which publishes
at that rate. So batches are as small as they are in life; a monitor that catches up takes 500 at a
time and is faster. What its SQLite does is the monitor's own time; what a PostgreSQL server does
beside it is not counted; it runs without fsync, so that no disk slows it. There is no deployment
server, for none of these deployments is real.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import uvloop

from bench.harness import MeasureError, Reach, Say, middle, one_figure, per_second
from bench.history import SITE, deployment
from bench.site import clean_environment, end
from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import Event
from bus.messages import encode
from express.connection import sqlite_dsn
from express.database import Database
from services.monitor.history import History
from tests.buses import BusServer
from tests.databases import PostgresServer

_RATE: Final = 2_000
_SECONDS: Final = 10
_ROUNDS: Final = 3
_PULSE: Final = 0.01
_PATIENCE: Final = 120.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def _on_sqlite(say: Say) -> float:
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        return uvloop.run(_make(sqlite_dsn(Path(scratch) / "history.db"), say))


def _on_postgres(say: Say) -> float:
    with postgres() as dsn:
        return uvloop.run(_make(dsn, say))


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The connection string of an empty database of a PostgreSQL server of our own."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        raise MeasureError("PostgreSQL is not installed (Debian: postgresql)")
    server = PostgresServer()
    try:
        server.start()
        yield server.dsn(server.create())
    finally:
        server.remove()


async def _make(dsn: str, say: Say) -> float:
    database = Database(dsn, create=True)
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        bus = BusServer(Path(scratch))
        bus.start()
        connection = await connect(bus.url, "bench")
        try:
            await prepare(connection.jetstream())
            history = History(database, SITE)
            await history.prepare()
            with _monitor(bus.url, dsn, Path(scratch)) as monitor:
                return await _measure(connection, history, monitor, say)
        finally:
            await connection.close()
            bus.stop()
            await database.close()


@contextlib.contextmanager
def _monitor(url: str, dsn: str, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    environment = clean_environment(folder) | {
        "IMAGEINVOKER_SERVER": url,
        "IMAGEINVOKER_SITE": SITE,
        "IMAGEINVOKER_HISTORY": dsn,
        "IMAGEINVOKER_DATABASE": sqlite_dsn(folder / "express.db"),
    }
    with (folder / "monitor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "monitor"], env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        end(process)


async def _measure(
    connection: Connection,
    history: History,
    monitor: "subprocess.Popen[bytes]",
    say: Say,
) -> float:
    say(f"{_RATE:,} events a second, {_SECONDS} s a round")
    count = _RATE * _SECONDS
    rates: list[float] = []
    for number in range(_ROUNDS + 1):
        events = _events(number * count, count)
        began, before = time.monotonic(), _processor(monitor)
        await _publish(connection, events, _RATE)
        published = time.monotonic()
        await _applied(history, (number + 1) * count, monitor)
        used = _processor(monitor) - before
        if number:  # The first round also starts the program.
            rates.append(count / used)
            say(
                f"round {number}   published in {published - began:.1f} s, the last applied"
                f" {time.monotonic() - published:.2f} s later, {used:.2f} s of processor time,"
                f" {per_second(rates[-1])} of it"
            )
    events = _events((_ROUNDS + 1) * count, count)
    before, began = _processor(monitor), time.monotonic()
    await _publish(connection, events, None)
    await _applied(history, (_ROUNDS + 2) * count, monitor)
    taken = time.monotonic() - began
    used = _processor(monitor) - before
    say(
        f"for information, {count:,} events as fast as they can be published: {taken:.1f} s,"
        f" {per_second(count / used)} of processor time"
    )
    return middle(say, "applied per second of processor time / 2,000", (r / _RATE for r in rates))


def _events(first: int, count: int) -> list[Event]:
    """Events of deployments that go on side by side, a hundred at a time."""
    found: list[Event] = []
    number = first
    now = datetime.now(UTC)
    while len(found) < count:
        side = [list(deployment(number + each, now - timedelta(hours=1))) for each in range(100)]
        found += [each for step in zip(*side, strict=True) for each in step]
        number += 100
    return found[:count]


async def _publish(connection: Connection, events: Sequence[Event], rate: int | None) -> None:
    began = time.monotonic()
    pulse = max(round((rate or 50_000) * _PULSE), 1)
    for start in range(0, len(events), pulse):
        for each in events[start : start + pulse]:
            subject = subjects.event(SITE, each.machine, each.kind)
            await connection.publish(subject, encode(each))
        await connection.flush()
        if rate:
            await asyncio.sleep(max(0.0, began + (start + pulse) / rate - time.monotonic()))


async def _applied(history: History, count: int, monitor: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _PATIENCE
    while sum((await history.totals()).events.values()) < count:
        if monitor.poll() is not None or time.monotonic() > until:
            raise MeasureError("the monitor does not apply all events")
        await asyncio.sleep(0.05)


def _processor(process: "subprocess.Popen[bytes]") -> float:
    """Seconds of processor time that a process has used, all of its threads together."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / _TICKS


_ABOUT: Final = "events applied in a second of the monitor's processor time / 2,000"
_REACH: Final = Reach(">=", 1)
ON_SQLITE: Final = one_figure("monitor_rate", f"{_ABOUT}, SQLite", _REACH, _on_sqlite)
ON_POSTGRES: Final = one_figure(
    "monitor_rate_postgres", f"{_ABOUT}, PostgreSQL", _REACH, _on_postgres
)
