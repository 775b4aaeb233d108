"""What telling events costs the way from a technician's wish to its outcome.

Two schedulers on one bus, each with a database of its own: one tells events as ever, the other
keeps them to itself. Machines ask both in turn and wait for "scheduled": one after the other, which
shows what the way of one of them costs, and in a crowd, which shows what events take of a computer
that has nothing left.
"""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
import uvloop

from bench.harness import Figure, MeasureError, Reach, Rounds, Run, Say, milliseconds
from bench.site import new_machine
from bus import contract
from bus.buckets import prepare
from bus.connection import Connection, ask, connect
from bus.events import EventLog
from bus.machines import machine_key
from bus.messages import Schedule
from bus.option_store import LiveOptions
from engine.finding import find
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from services.admission import Admission
from services.running import Site
from services.scheduler.carrier import Carrier
from services.scheduler.intake import Intake
from tests.buses import BusServer

_ROUNDS: Final = 15
_MACHINES: Final = 40
_CROWD: Final = 8
_ITEM: Final = "folder:10"
"""An item of the sample: a folder of ten jobs."""


class Silence(EventLog):
    """Keeps nothing, and takes no time."""

    async def record(self, *_kind: object, **_what: object) -> None:
        """Nothing."""


def _make(say: Say) -> dict[str, float]:
    # Both sides log alike; a terminal full of it would be what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch, _bus(Path(scratch)) as url:
        return uvloop.run(_compare(url, Path(scratch), say))


@contextlib.contextmanager
def _bus(folder: Path) -> Iterator[str]:
    # As the embedded site runs it: what is acknowledged is on disk.
    durable = f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}'
    server = BusServer(folder, more=durable)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


async def _compare(url: str, folder: Path, say: Say) -> dict[str, float]:
    machines = count(1)
    connection = await connect(url, "machines")
    try:
        await prepare(connection.jetstream())
        async with (
            _scheduler(url, folder, "telling", EventLog),
            _scheduler(url, folder, "silent", Silence),
        ):
            for each in ("telling", "silent"):
                await _wave(connection, each, machines, _CROWD)
            medians: dict[str, float] = {}
            for figure, at_once in ((_ALONE, 1), (_TOGETHER, _CROWD)):
                say(f"{at_once} at a time")
                rounds = Rounds(say, "with events", "without", milliseconds)
                for _ in range(_ROUNDS):
                    telling = await _wave(connection, "telling", machines, at_once)
                    rounds.add(telling, await _wave(connection, "silent", machines, at_once))
                medians[figure.name] = rounds.median()
            return medians
    finally:
        await connection.close()


@asynccontextmanager
async def _scheduler(url: str, folder: Path, name: str, log: type[EventLog]) -> AsyncIterator[None]:
    """A scheduler as `imageinvoker scheduler` composes it, with this way of telling events."""
    dsn = sqlite_dsn(folder / f"{name}.db")
    embedded = Database(dsn, create=True)
    await create_embedded(embedded, sample=True)
    await embedded.close()
    connection = await connect(url, name)
    options = LiveOptions(connection, name)
    await options.start()
    site = Site(name, connection, options)
    events = log(connection, name)
    admission = Admission(connection, name, options, events)
    engine = find(dsn).open(name)
    intake = Intake(site, engine, admission, events)
    carrier = Carrier(site, engine, admission, events)
    service = site.service("scheduler", "Schedules what technicians pick")
    service.serve(contract.SCHEDULE, intake.schedule)
    await admission.start()
    await intake.start()
    await carrier.start()
    await service.start()
    try:
        yield
        await service.leave()
    finally:
        await carrier.stop()
        await admission.stop()
        await engine.close()
        await options.stop()
        await connection.close()


async def _wave(connection: Connection, site: str, machines: Iterator[int], at_once: int) -> float:
    """Seconds until as many new machines have their jobs.

    Raises:
        MeasureError: one has not.
    """
    turns = asyncio.Semaphore(at_once)

    async def deploy(number: int) -> None:
        machine = new_machine(number)
        question = Schedule(request_id=str(uuid4()), machine=machine, item_id=_ITEM)
        async with turns:
            outcome = await ask(
                connection, site, contract.SCHEDULE, machine_key(machine), question, timeout=30
            )
        if outcome.state != "scheduled":
            raise MeasureError(f"a machine was not scheduled but {outcome.state}")

    began = time.perf_counter()
    await asyncio.gather(*(deploy(next(machines)) for _ in range(_MACHINES)))
    return time.perf_counter() - began


_ALONE: Final = Figure(
    name="schedule_events",
    about="seconds from a wish to its outcome with events told / without",
    reach=Reach("<=", 1.1),
)
_TOGETHER: Final = Figure(
    name="schedule_events_crowd",
    about=f"the same of {_CROWD} at a time, as many as two cores bear",
    reach=Reach("<=", 1.1),
)
RUN: Final = Run((_ALONE, _TOGETHER), _make)
