"""Everything dies at random moments while machines go through the portal."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus import subjects
from bus.messages import Request, decoder
from bus.waiting import end
from express.connection import sqlite_dsn
from express.dialects import Dialect
from tests.faults.conftest import Size
from tests.faults.estate import SERVICES, CrashingPostgres, Estate, SafeBus, estate
from tests.faults.following import followed, reckon_monitor, run_jobs
from tests.faults.machines import STEPS, Progress, Visit, go, planned
from tests.faults.reckoning import Before, described, reckon
from tests.site import Express

_request = decoder(Request)
Fault = Callable[[], Awaitable[None]]


def crash_of(copy_of: str, site: Estate, chance: random.Random) -> Fault:
    async def crash() -> None:
        chance.choice(site.of(copy_of)).crash()

    return crash


def crash_of_database(server: CrashingPostgres, chance: random.Random) -> Fault:
    async def crash() -> None:
        server.crash()
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(server.start)

    return crash


async def strike(
    faults: list[Fault], progress: Progress, machines: int, chance: random.Random
) -> None:
    """Each fault at a random moment of the machines' progress, in random order."""
    chance.shuffle(faults)
    moments = sorted(chance.sample(range(1, STEPS * machines), len(faults)))
    for moment, fault in zip(moments, faults, strict=True):
        await progress.reached(moment)
        await fault()


@asynccontextmanager
async def doubled(site: Estate, seen: set[str]) -> AsyncIterator[None]:
    """Requests are put into the stream a second time, unknown as the same ones, and ``seen``."""
    client = site.client.connection

    async def double(message: Msg) -> None:
        request_id = _request.decode(message.data).request_id
        if request_id not in seen and client.is_connected:
            seen.add(request_id)
            await client.publish(message.subject, message.data)

    listening = await client.subscribe(subjects.request(site.name), cb=double)
    try:
        yield
    finally:
        await listening.unsubscribe()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_whoever_dies_each_accepted_request_is_carried_out_once_and_told_once(
    bus: SafeBus,
    name: str,
    dsn: str,
    kind: Dialect,
    postgres: CrashingPostgres,
    tmp_path: Path,
    size: Size,
    chance: random.Random,
) -> None:
    visits: list[Visit] = []
    delivered_twice: set[str] = set()
    history = Express(
        sqlite_dsn(tmp_path / "history.db") if kind == "sqlite" else postgres.dsn(postgres.create())
    )
    async with estate(bus, name, dsn, tmp_path, history=history.dsn) as site:
        before = Before.of(site.express)
        supervising = asyncio.create_task(site.supervise())
        for round_ in range(size.rounds):
            faults = [crash_of(each, site, chance) for each in (*SERVICES, "monitor")]
            faults += [crash_of("scheduler", site, chance), site.restart_bus]
            if kind == "postgres":
                faults.append(crash_of_database(postgres, chance))
            faults *= max(1, size.machines // 40)
            coming = planned(chance, size.machines, round_)
            visits += coming
            progress = Progress()
            async with doubled(site, delivered_twice), asyncio.TaskGroup() as group:
                group.create_task(go(bus.url, name, coming, chance, progress))
                group.create_task(strike(faults, progress, size.machines, chance))
        await site.settled()
        books = await reckon(site, before, visits)
        sys.stdout.write(f"{described(books)}\n")
        assert delivered_twice

        failing = run_jobs(site.express, chance)
        await crash_of("monitor", site, chance)()
        await followed(site, history)
        await end(supervising)
        await site.leave()
        await reckon_monitor(site, history, failing)
