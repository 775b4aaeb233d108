"""Clocks jump.

Those of single processes do so while machines go through the portal (``clocks.py``): of every copy
by itself, or of the whole site at once. That of the bus stays right, and so does the database's,
unless it is SQLite, which lives in the services. Where a moment matters, what another clock would
have written is made instead.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from bus import subjects
from bus.machines import machine_key
from bus.messages import Machine, Request
from bus.request_store import RequestStore
from bus.sessions import Claims, Signer
from express.connection import sqlite_dsn
from express.dialects import Dialect
from services.auth.lockout import Limits, Scope
from services.auth.program import program as auth
from services.auth.tries import LockedOut, Tries
from services.menu.program import program as menu
from services.scheduler.program import program as scheduler
from tests.faults.clocks import DAY, Clock
from tests.faults.conftest import Size
from tests.faults.estate import PASSWORD, CrashingPostgres, SafeBus, estate
from tests.faults.following import followed, reckon_monitor, run_jobs
from tests.faults.machines import STEPS, Progress, Visit, go, planned
from tests.faults.reckoning import Before, described, opened, reckon
from tests.site import (
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    asker,
    eventually,
    new_id,
    new_machine,
    problem_of,
    refused,
    running,
)

HOUR: Final = 3600.0
YEAR: Final = timedelta(days=365)
JUMPS: Final = 3
"""Of each clock, for forty machines."""


def days(chance: random.Random) -> float:
    """Seconds of one to three days, ahead or behind."""
    return chance.choice((-1, 1)) * chance.uniform(DAY, 3 * DAY)


def some(chance: random.Random) -> float:
    """Seconds of a moment, of about an hour, or of days; ahead or behind."""
    off = chance.choice((chance.uniform(1, 60), chance.uniform(60, 4000), abs(days(chance))))
    return chance.choice((-1, 1)) * off


async def wander(clock: Clock, progress: Progress, machines: int, chance: random.Random) -> None:
    """It jumps at random moments of the machines' progress, and back a little later."""
    jumps = JUMPS * max(1, machines // 40)
    for moment in sorted(chance.sample(range(1, STEPS * machines), jumps)):
        await progress.reached(moment)
        clock.jump(some(chance))
        await asyncio.sleep(chance.uniform(0, 1))
        clock.jump(0)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_clocks_that_jump_forth_and_back_cost_new_sign_ins_and_nothing_else(
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
    history = Express(
        sqlite_dsn(tmp_path / "history.db") if kind == "sqlite" else postgres.dsn(postgres.create())
    )
    async with estate(bus, name, dsn, tmp_path, history=history.dsn, off=0) as site:
        before = Before.of(site.express)
        for round_ in range(size.rounds):
            coming = planned(chance, size.machines, round_)
            visits += coming
            progress = Progress()
            async with asyncio.TaskGroup() as group:
                group.create_task(go(bus.url, name, coming, chance, progress))
                for clock in site.clocks:
                    group.create_task(wander(clock, progress, size.machines, chance))
        await site.settled()
        books = await reckon(site, before, visits)
        sys.stdout.write(f"{described(books)}\n")

        # From here on nobody needs a session, so they need not come back.
        for clock in site.clocks:
            clock.jump(days(chance))
        failing = run_jobs(site.express, chance)
        await followed(site, history)
        await site.leave()
        await reckon_monitor(site, history, failing)
        events = (await opened(site.client, site.express)).events
    ended = [each.at for each in events if each.kind == "job_finished"]
    assert min(abs(at - datetime.now(UTC)) for at in ended) > timedelta(hours=12)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_site_whose_clock_jumps_as_a_whole_lets_everybody_in_also_then(
    bus: SafeBus, name: str, dsn: str, tmp_path: Path, size: Size, chance: random.Random
) -> None:
    visits: list[Visit] = []
    async with estate(bus, name, dsn, tmp_path, copies=1, off=-3 * DAY) as site:
        before = Before.of(site.express)
        for round_, off in enumerate((-3 * DAY, 0, 40 * DAY, -40 * DAY)):
            for clock in site.clocks:
                clock.jump(off)
            coming = planned(chance, size.machines // 10, round_)
            visits += coming
            await go(bus.url, name, coming, chance, seconds=30)
        await site.settled()
        await site.leave()
        await reckon(site, before, visits)


@contextmanager
def clock_off_by(seconds: float) -> Iterator[None]:
    """Whoever signs a session meanwhile does it by a clock that is ahead (or behind)."""
    with pytest.MonkeyPatch.context() as patch:
        right = time.time
        patch.setattr(time, "time", lambda: right() + seconds)
        yield


async def session(client: Asker, machine: Machine, seconds: float) -> str:
    """A session of an hour that a copy of the auth service signs whose clock is off."""
    signer = Signer(client.site)
    await signer.publish(client.connection)
    with clock_off_by(seconds):
        claims = Claims(username=None, protection="hash")
        return signer.session(machine_key(machine), claims, HOUR).token


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_clocks_that_differ_a_little_keep_nobody_out_and_others_only_ask_for_a_new_session(
    bus: SafeBus, name: str, dsn: str
) -> None:
    async with asker(bus.url, name) as client, running(bus.url, name, menu(dsn)):
        await client.protect(PASSWORD)
        answers = {
            off: await problem_of(client.show(STAFF_0117, await session(client, STAFF_0117, off)))
            for off in (0.0, 20.0, -20.0, HOUR, -2 * HOUR)
        }
    assert answers == {
        0.0: "",
        20.0: "",
        -20.0: "",
        HOUR: "login_required",
        -2 * HOUR: "session_expired",
    }


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_request_goes_on_under_a_new_session_when_a_clock_has_ended_the_first(
    bus: SafeBus, name: str, dsn: str, express: Express
) -> None:
    request_id = new_id()
    async with (
        asker(bus.url, name) as client,
        running(bus.url, name, menu(dsn), auth, scheduler(dsn)),
    ):
        await client.protect(PASSWORD)
        # Until the auth service has heard of it, whoever signs in does so at an open site.
        await eventually(
            lambda: problem_of(client.login(new_machine(9), "wrong")),
            lambda code: code == "login_failed",
        )
        token = (await client.login(STAFF_0117, PASSWORD)).token
        first = await client.schedule(STAFF_0117, LAPTOP, request_id=request_id, token=token)
        ended = await session(client, STAFF_0117, -2 * HOUR)
        with refused("session_expired"):
            await client.schedule(STAFF_0117, LAPTOP, request_id=request_id, token=ended)
        token = (await client.login(STAFF_0117, PASSWORD)).token
        again = await client.schedule(STAFF_0117, LAPTOP, request_id=request_id, token=token)
    assert first.state == "scheduled"
    assert again == first
    assert express.scheduled("STAFF-0117") == list(LAPTOP_JOBS)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_requests_are_carried_out_in_their_order_whatever_clock_accepted_them(
    bus: SafeBus, name: str, dsn: str, express: Express
) -> None:
    machine = new_machine(1)
    now = datetime.now(UTC)
    requests = [
        Request(
            request_id=new_id(),
            site=name,
            machine=machine,
            item_id=item_id,
            accepted_at=accepted_at,
            digest="",
            start_at=start_at,
        )
        for item_id, accepted_at, start_at in (
            (MEMORY_TEST, now + YEAR, None),
            # Accepted for tomorrow, as it was then: by now that has passed.
            (LAPTOP, now - YEAR, now - YEAR + timedelta(days=1)),
        )
    ]
    async with asker(bus.url, name) as client:
        store = RequestStore(client.connection, name)
        for request in requests:
            await store.put(request)
        async with running(bus.url, name, scheduler(dsn)):
            ends = [await client.settled(machine, each.request_id) for each in requests]
            await eventually(client.waiting, lambda found: not found)
    assert [(each.state, each.replaced) for each in ends] == [("scheduled", 0), ("scheduled", 1)]
    assert express.scheduled("NEW0000001") == list(LAPTOP_JOBS)


async def test_a_clock_that_jumps_locks_nobody_for_longer_than_a_lock_lasts(
    bus: SafeBus, name: str
) -> None:
    now = [1_800_000_000.0]
    who: Mapping[Scope, str] = {"machine": machine_key(STAFF_0117)}

    async def locks(seconds: float) -> float | None:
        """Seconds that a machine is locked after the clock has jumped, None if it is not."""
        now[0] += seconds
        try:
            attempt = await tries.take(who)
        except LockedOut as locked:
            return locked.details.retry_after
        await attempt.withdraw()
        return None

    async def lock() -> None:
        for _ in range(Limits().machine):
            await (await tries.take(who)).failed()

    async with asker(bus.url, name) as client:
        bucket = await client.connection.jetstream().key_value(subjects.TRIES)
        tries = Tries(bucket, name, Limits, lambda: now[0])
        await lock()
        assert await locks(0) == Limits().lock
        assert await locks(-60) == Limits().lock + 60
        assert await locks(-HOUR) is None
        await lock()
        assert await locks(HOUR) is None
        await lock()
        assert await locks(2 * DAY) is None
