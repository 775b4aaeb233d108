"""The monitor at the hub: what it shows of all sites is what happened there."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bus import subjects
from bus.buckets import watch
from bus.connection import Connection
from bus.events import EventLog
from bus.live import live_decoder
from bus.messages import ComputerRef
from bus.sites import SiteEntry, SiteStore
from express.connection import sqlite_dsn
from express.database import Database
from services.monitor.estate import Sites
from services.monitor.metrics import HistoryMetrics
from tests.echo import until
from tests.hubs import Estate, estate_of
from tests.site import eventually, new_id

SITES = ("campus", "depot")
PATIENCE = 60.0
MACHINE = "mac0123456789ab"


@pytest.fixture
async def estate(tmp_path: Path) -> AsyncIterator[Estate]:
    async with estate_of(tmp_path, SITES) as made:
        yield made


@asynccontextmanager
async def watching(estate: Estate, folder: Path) -> AsyncIterator[CollectorRegistry]:
    """The monitor at the hub; what it counts."""
    registry = CollectorRegistry()
    database = Database(sqlite_dsn(folder / "history.db"), create=True)
    sites = Sites(estate.hub, database, HistoryMetrics(registry), 1)
    try:
        await sites.start()
        yield registry
    finally:
        await sites.stop()
        await database.close()


async def deploy(connection: Connection, site: str, deployments: int) -> None:
    """Tells of so many deployments at a machine of a site."""
    log = EventLog(connection, site)
    for _ in range(deployments):
        request = new_id()
        details = {"request": request, "item": "job:1", "title": "Desktop"}
        await log.record("request_accepted", machine=MACHINE, of=request, details=details)
        await log.record(
            "jobs_scheduled",
            machine=MACHINE,
            of=request,
            computer=ComputerRef(id=7, name="LAB-07"),
            details=details | {"jobs": 3},
        )


async def scheduled(registry: CollectorRegistry, site: str) -> float | None:
    return registry.get_sample_value(
        "imageinvoker_deployments_total", {"site": site, "outcome": "scheduled"}
    )


async def test_each_site_of_the_registry_is_shown_with_what_happened_there(
    estate: Estate, tmp_path: Path
) -> None:
    store = await SiteStore.open(estate.hub)
    await deploy(estate.at["campus"], "campus", 3)
    await store.write(SiteEntry(name="campus"))
    async with watching(estate, tmp_path) as registry:
        await eventually(lambda: scheduled(registry, "campus"), lambda found: found == 3, PATIENCE)
        assert await scheduled(registry, "depot") is None
        await store.write(SiteEntry(name="depot"))
        await deploy(estate.at["depot"], "depot", 2)
        await deploy(estate.at["campus"], "campus", 1)
        for site, wanted in (("depot", 2), ("campus", 4)):
            await eventually(
                lambda site=site: scheduled(registry, site),
                lambda found, wanted=wanted: found == wanted,
                PATIENCE,
            )
        await store.remove("depot")
        await eventually(
            lambda: scheduled(registry, "depot"), lambda found: found is None, PATIENCE
        )


async def test_the_live_view_at_the_hub_shows_machines_of_every_site(
    estate: Estate, tmp_path: Path
) -> None:
    store = await SiteStore.open(estate.hub)
    for site in SITES:
        await store.write(SiteEntry(name=site))
    async with watching(estate, tmp_path):
        for site in SITES:
            await deploy(estate.at[site], site, 1)

            async def shown(site: str = site) -> list[str]:
                states = watch(estate.hub.jetstream(), subjects.LIVE, site)
                async for values in states:
                    await states.aclose()
                    return [live_decoder.decode(value).stage for value in values.values()]
                return []

            await eventually(shown, lambda found: found == ["scheduled"], PATIENCE)


async def test_a_monitor_that_starts_again_goes_on_where_the_one_before_it_was(
    estate: Estate, tmp_path: Path
) -> None:
    await (await SiteStore.open(estate.hub)).write(SiteEntry(name="campus"))
    for round_ in (1, 2):
        async with watching(estate, tmp_path) as registry:
            await deploy(estate.at["campus"], "campus", 2)
            await eventually(
                lambda registry=registry: scheduled(registry, "campus"),
                lambda found, wanted=2 * round_: found == wanted,
                PATIENCE,
            )


def loops() -> int:
    """How many loops of monitors go on."""
    running = (task.get_coro() for task in asyncio.all_tasks())
    return sum(getattr(each, "__qualname__", "") == "Loop._run" for each in running)


async def test_who_stops_while_a_site_is_being_left_leaves_nothing_of_it_behind(
    estate: Estate, tmp_path: Path
) -> None:
    store = await SiteStore.open(estate.hub)
    await store.write(SiteEntry(name="campus"))
    registry = CollectorRegistry()
    database = Database(sqlite_dsn(tmp_path / "history.db"), create=True)
    sites = Sites(estate.hub, database, HistoryMetrics(registry), 1)
    try:
        await sites.start()
        await eventually(lambda: scheduled(registry, "campus"), lambda found: found == 0, PATIENCE)
        before = loops()
        # The history cannot be handed over, so that the leaving takes a while.
        with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await store.remove("campus")
            await until(lambda: loops() < before, PATIENCE)
            await sites.stop()
        assert loops() == 0
    finally:
        await sites.stop()
        await database.close()
