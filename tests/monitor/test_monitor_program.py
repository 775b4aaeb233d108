"""The monitor as a program, beside the services whose events it follows."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus import contract, subjects
from bus.buckets import prepare
from bus.connection import Connection, ask
from bus.machines import machine_key
from bus.messages import Hello, Machine, encode
from bus.option_store import LiveOptions
from express.connection import sqlite_dsn
from express.database import Database
from services.menu.program import program as menu
from services.monitor.history import History
from services.monitor.program import program as monitor
from services.monitor.statistics import Statistic, statistics
from services.running import Site
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.monitor.history_cases import SITE, Reference, deployed, deployments, rollup
from tests.site import MEMORY_TEST, STAFF_0117, Asker, eventually, new_id, new_machine, running


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Database]:
    """The history as somebody else reads it."""
    database = Database(sqlite_dsn(tmp_path / "history.db"), create=True)
    yield database
    await database.close()


async def visit(client: Asker, machine: Machine) -> None:
    question = Hello(machine=machine, visit=new_id())
    await ask(client.connection, client.site, contract.WELCOME, machine_key(machine), question)


async def test_what_is_deployed_at_the_portal_is_told_of_by_the_history(
    url: str, name: str, dsn: str, client: Asker, kept: Database, tmp_path: Path
) -> None:
    history = sqlite_dsn(tmp_path / "history.db")
    async with running(url, name, menu(dsn), scheduler(dsn), monitor(dsn, history)):
        await visit(client, STAFF_0117)
        outcome = await client.schedule(STAFF_0117, MEMORY_TEST)
        await client.settled(STAFF_0117, outcome.request_id)
        newcomer = new_machine(1)
        await visit(client, newcomer)
        other = await client.schedule(newcomer, MEMORY_TEST, "LAB-77")
        await client.settled(newcomer, other.request_id)

        async def look() -> Statistic | None:
            today = datetime.now(UTC).date()
            try:
                found = await kept.transact(
                    lambda tx: statistics(
                        tx, "item", today - timedelta(1), today + timedelta(1), name
                    )
                )
            except Exception:  # noqa: BLE001 (there are no tables yet)
                return None
            return found[0] if len(found) == 1 else None

        told = await eventually(look, lambda found: found is not None and found.scheduled == 2, 20)
    assert told is not None
    assert (told.name, told.accepted, told.rejected, told.success_rate) == (MEMORY_TEST, 2, 0, 1)
    assert told.median is not None
    single = (await deployments(kept))[other.request_id]
    assert (single["computer"], single["jobs"], single["outcome"]) == ("LAB-77", 1, "scheduled")
    assert single["portal_at"] is not None


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_monitor_is_ready_only_while_each_of_its_loops_turns(
    name: str, dsn: str, client: Asker, tmp_path: Path
) -> None:
    options = LiveOptions(client.connection, name)
    await options.start()
    site = Site(name, client.connection, options)
    try:
        async with monitor(dsn, sqlite_dsn(tmp_path / "history.db"))(site):
            site.health.serving = True
            async with site.health.answered():
                async with asyncio.timeout(20):
                    while await asyncio.to_thread(site.health.missing):
                        pass
                loops = [each for each in asyncio.all_tasks() if "Loop._run" in repr(each)]
                assert len(loops) == 6
                for each in loops:
                    each.cancel()
                await asyncio.wait(loops)
                missing = await asyncio.to_thread(site.health.missing)
                assert len(missing) == len(loops)
                assert "the live view does not answer" in missing
    finally:
        await options.stop()


def start(url: str, folder: Path) -> "subprocess.Popen[bytes]":
    program = (
        "import sys\nfrom cli.monitor import monitor\nfrom cli.target import Target\n"
        "sys.exit(monitor(target=Target(*sys.argv[1:])))"
    )
    environment = os.environ | {
        "IMAGEINVOKER_HISTORY": sqlite_dsn(folder / "history.db"),
        "IMAGEINVOKER_DATABASE": sqlite_dsn(folder / "express.db"),
    }
    with (folder / "monitor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", program, url, SITE], env=environment, stdout=log, stderr=log
        )


async def test_a_monitor_that_is_killed_while_events_come_is_followed_by_one_that_counts_right(
    bus: BusServer, connection: Connection, kept: Database, tmp_path: Path
) -> None:
    await prepare(connection.jetstream())
    events = [each for number in range(1500) for each in deployed(number, waited=number % 50)]
    history = History(kept, SITE)
    await history.prepare()

    async def counted() -> int:
        return sum((await history.totals()).events.values())

    async def publish() -> None:
        for number, each in enumerate(events):
            subject = subjects.event(SITE, each.machine, each.kind)
            await connection.publish(subject, encode(each))
            if number % 20 == 0:
                await connection.flush()

    process = start(bus.url, tmp_path)
    publishing = asyncio.create_task(publish())
    try:
        await eventually(counted, lambda found: found > 0, 20)
        process.kill()
        process.wait(10)
        process = start(bus.url, tmp_path)
        await publishing
        await eventually(counted, lambda found: found == len(events), 40)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait(10)
        await publishing
    assert await rollup(kept) == Reference().hear(events).rollup()
    log = (tmp_path / "monitor.log").read_text()
    assert "Traceback" not in log, log
