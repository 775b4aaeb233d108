"""What is old goes from the history at the hub, of every site; what a wrong clock says does not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus import hub, subjects
from bus.connection import Connection
from bus.events import EventLog
from bus.options import Options
from express.connection import sqlite_dsn
from express.database import Database
from services.monitor.forgetting import Forgetting
from services.monitor.history import History
from tests.monitor.history_cases import deployed, numbered
from tests.site import eventually

SITES = ("campus", "depot")
NOW = datetime.now(UTC)
KEPT = Options(history_days=30)
PATIENCE = 20.0


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Database]:
    """The history of two sites, each with a deployment of today and one of two months ago."""
    database = Database(sqlite_dsn(tmp_path / "history.db"), create=True)
    for site in SITES:
        history = History(database, site)
        await history.prepare()
        place = await history.claim()
        assert place is not None
        number = 10 * SITES.index(site)
        events = deployed(number, NOW - timedelta(days=60)) + deployed(number + 1, NOW)
        own = [replace(each, site=site) for each in events]
        await history.apply(place, numbered(own), len(own))
    yield database
    await database.close()


async def days(kept: Database) -> dict[str, set[int]]:
    """How many days ago the single deployments of each site were."""
    rows = await kept.transact(lambda tx: tx.fetch("SELECT site, day FROM ii_deployment"))
    found: dict[str, set[int]] = {}
    for site, day in rows:
        ago = NOW.date() - datetime.fromisoformat(str(day)).date()
        found.setdefault(str(site), set()).add(ago.days)
    return found


async def test_single_deployments_of_every_site_go_when_they_are_old_and_the_sums_stay(
    connection: Connection, kept: Database
) -> None:
    await hub.prepare(connection.jetstream(), ())
    await EventLog(connection, subjects.ESTATE).record("option_changed")
    sums = [await History(kept, site).totals() for site in SITES]
    forgetting = Forgetting(connection, kept, lambda: KEPT, soon=0)
    await forgetting.start()
    try:
        young = {site: {0} for site in SITES}
        await eventually(lambda: days(kept), lambda found: found == young, PATIENCE)
        await forgetting.loops[0].check()
    finally:
        await forgetting.stop()
    assert [await History(kept, site).totals() for site in SITES] == sums


async def test_a_clock_that_has_jumped_ahead_removes_nothing(
    connection: Connection, kept: Database
) -> None:
    await hub.prepare(connection.jetstream(), ())
    await EventLog(connection, subjects.ESTATE).record("option_changed")
    ahead = NOW + timedelta(days=400)
    await Forgetting(connection, kept, lambda: KEPT, now=lambda: ahead).sweep()
    assert await days(kept) == {site: {0, 60} for site in SITES}
