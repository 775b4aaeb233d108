"""Lines between sites and hub that are cut at random, while machines go through each site's portal.

Each site goes on in full; what happened at it reaches the hub once and in order, however late.
"""

import asyncio
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from bus.connection import Connection
from bus.event_stream import read
from bus.sites import SiteEntry, SiteStore
from express.connection import sqlite_dsn
from express.database import Database
from services.monitor.estate import Sites
from services.monitor.metrics import HistoryMetrics
from tests.faults.conftest import Size
from tests.faults.estate import estate
from tests.faults.machines import Visit, go, planned
from tests.faults.reckoning import Before, reckon
from tests.hubs import estate_of
from tests.lines import Line
from tests.site import eventually

SITES = ("campus", "depot")
ROUNDS = int(os.environ.get("IMAGEINVOKER_FAULT_CUTS", "3"))
"""How often each line is cut; `make soak` has it be done thirty times."""
PATIENCE = 120.0
"""Seconds until the hub has everything: a server tries a source anew after up to 40."""


async def cut_and_mend(line: Line, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        await asyncio.sleep(chance.uniform(0, 1.5))
        await line.cut()
        await asyncio.sleep(chance.uniform(0.1, 2))
        await line.mend()


async def kept(connection: Connection, site: str) -> list[str]:
    """The ids of a site's events on a bus, in order."""
    return [event.id async for event in read(connection, site)]


async def kinds(connection: Connection, site: str) -> Counter[str]:
    return Counter([str(event.kind) async for event in read(connection, site)])


def shown(registry: CollectorRegistry, site: str) -> Counter[str]:
    """How many events of each kind the hub's monitor shows of a site."""
    return Counter(
        {
            sample.labels["kind"]: int(sample.value)
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "imageinvoker_events_total" and sample.labels["site"] == site
        }
    )


async def test_whatever_lines_are_cut_each_site_goes_on_and_the_hub_learns_all_of_it_once(
    tmp_path: Path, sqlite_template: Path, size: Size, chance: random.Random
) -> None:
    async with estate_of(tmp_path, SITES, apart=True) as made, AsyncExitStack() as stack:
        registry = CollectorRegistry()
        history = Database(sqlite_dsn(tmp_path / "history.db"), create=True)
        stack.push_async_callback(history.close)
        hub = Sites(made.hub, history, HistoryMetrics(registry), 1)
        stack.push_async_callback(hub.stop)
        await hub.start()
        store = await SiteStore.open(made.hub)
        running = {}
        for site in SITES:
            await store.write(SiteEntry(name=site))
            database = tmp_path / f"{site}.db"
            shutil.copy(sqlite_template, database)
            folder = tmp_path / f"services-{site}"
            folder.mkdir()
            running[site] = await stack.enter_async_context(
                estate(made.buses[site], site, sqlite_dsn(database), folder, copies=1)
            )
        before = {site: Before.of(each.express) for site, each in running.items()}
        visits: dict[str, list[Visit]] = {
            site: [v for round_ in range(size.rounds) for v in planned(chance, 20, round_)]
            for site in SITES
        }
        sys.stdout.write(f"lines: {[type(line).__name__ for line in made.lines.values()]}\n")
        async with asyncio.TaskGroup() as group:
            for site in SITES:
                group.create_task(_come(made.buses[site].url, site, visits[site], chance))
                group.create_task(cut_and_mend(made.lines[site], chance))
        for site, each in running.items():
            await each.settled()
            await each.leave()
            await reckon(each, before[site], visits[site])
        for site in SITES:
            there = await kept(made.at[site], site)
            assert len(set(there)) == len(there) > 0
            await eventually(
                lambda site=site: kept(made.hub, site),
                lambda found, there=there: len(found) >= len(there),
                PATIENCE,
            )
            assert await kept(made.hub, site) == there
            told = await kinds(made.at[site], site)

            async def figures(site: str = site) -> Counter[str]:
                return +shown(registry, site)

            await eventually(figures, lambda found, told=told: found == told, PATIENCE)


async def _come(url: str, site: str, visits: Sequence[Visit], chance: random.Random) -> None:
    """Machines come in lots, one machine in one lot at most."""
    for start in range(0, len(visits), 20):
        await go(url, site, visits[start : start + 20], chance)
