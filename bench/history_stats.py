"""How long statistics take on histories of many events and of many sites.

The slowest one on a site's history of 1,000,000 events over two years: the roll-ups are those that
the monitor makes of such events, by its own rules, without the waiting for each batch. Each
statistic is asked over all of the history and over its last 30 days.

And the last week of a hundred sites together, which the command asks for where no site is named,
when the history is four years old against when it is one year old: it must not grow with the age.

Both on PostgreSQL, with the time of the ODBC driver.
"""

import statistics as measures
import time
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Final, get_args

import uvloop

from bench.harness import MeasureError, Reach, Say, milliseconds, one_figure
from bench.history import PER_DEPLOYMENT, SITE, deployment
from bench.monitor_rate import postgres
from express.database import Database, Transaction
from services.monitor import deployments
from services.monitor.deployments import (
    Cell,
    Counts,
    Deployment,
    changed,
    contribution,
    request_of,
)
from services.monitor.statistics import By, statistics
from services.monitor.tables import create_tables

_EVENTS: Final = 1_000_000
_FIRST: Final = datetime(2025, 1, 1, 8, tzinfo=UTC)
_DAYS: Final = 730
_TRIES: Final = 7
_SITES: Final = 100


def _of_one_site(say: Say) -> float:
    with postgres() as dsn:
        return uvloop.run(_measure(dsn, say))


def _of_all_sites(say: Say) -> float:
    with postgres() as dsn:
        return uvloop.run(_compare(dsn, say))


async def _measure(dsn: str, say: Say) -> float:
    database = Database(dsn, statement_timeout=60)
    try:
        await _fill(database, say)
        end = _FIRST.date() + timedelta(days=_DAYS + 1)
        slowest = 0.0
        for by in get_args(By):
            whole = await _time(database, by, _FIRST.date(), end)
            month = await _time(database, by, end - timedelta(days=30), end)
            say(f"by {by:11} all {milliseconds(whole):>9}   last 30 days {milliseconds(month):>9}")
            slowest = max(slowest, whole, month)
        return slowest
    finally:
        await database.close()


async def _fill(database: Database, say: Say) -> None:
    """Makes the roll-ups."""
    await create_tables(database)
    count = _EVENTS // PER_DEPLOYMENT
    cells = defaultdict[Cell, Counts](Counts)
    for number in range(count):
        cell, counts = _deployed(number, _FIRST + timedelta(days=_DAYS * number / count))
        cells[cell] = cells[cell].plus(counts)
    rows = [(key, SITE, *cell, *counts) for key, (cell, counts) in enumerate(cells.items())]
    columns = ("rollup_key", "site", *Cell._fields, *Counts._fields)

    def keep(tx: Transaction) -> None:
        tx.insert("ii_rollup", columns, rows)
        tx.execute("ANALYZE ii_rollup")

    await database.transact(keep)
    say(f"{_EVENTS:,} events of {count:,} deployments, {len(rows):,} rows of roll-ups")


def _deployed(number: int, at: datetime) -> tuple[Cell, Counts]:
    """What one deployment adds to the roll-ups.

    Raises:
        MeasureError: its events tell of none.
    """
    known: Deployment | None = None
    for event in deployment(number, at):
        if request_of(event):
            known = changed(known, event, [deployments.milliseconds(at)])
    if known is None:
        raise MeasureError("the events tell of no deployment")
    return contribution(known)


async def _compare(dsn: str, say: Say) -> float:
    """The time at four years of age, against that at one year."""
    database = Database(dsn, statement_timeout=60)
    try:
        await create_tables(database)
        end = _FIRST.date() + timedelta(days=_DAYS)
        took: list[float] = []
        for years in (1, 4):
            await database.transact(partial(_all_sites, years=years, end=end))
            took.append(await _time(database, "site", end - timedelta(days=7), end, None))
            say(f"{_SITES} sites, {years} years   last 7 days {milliseconds(took[-1]):>9}")
        return took[1] / took[0]
    finally:
        await database.close()


def _all_sites(tx: Transaction, years: int, end: date) -> None:
    """Makes the roll-ups of so many years for every site, ten rows a day."""
    for table in ("ii_monitor", "ii_rollup"):
        tx.execute(f"TRUNCATE {table}")
    tx.execute(
        "INSERT INTO ii_monitor SELECT 'site' || s, '', 0, 0, '', 0"
        f" FROM generate_series(1, {_SITES}) s"
    )
    tx.execute(
        "INSERT INTO ii_rollup SELECT row_number() OVER (), 'site' || s,"
        f" to_char(date '{end}' - d, 'YYYY-MM-DD'), 'job:' || k, 'tech' || k % 7, k * 5,"
        " 1, 1, 0, 1, 0, 0"
        f" FROM generate_series(1, {_SITES}) s, generate_series(1, {365 * years}) d,"
        " generate_series(1, 10) k"
    )
    tx.execute("ANALYZE ii_rollup")


async def _time(
    database: Database, by: By, since: date, until: date, site: str | None = SITE
) -> float:
    """The median of the seconds that one statistic takes."""
    times: list[float] = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        await database.transact(lambda tx: statistics(tx, by, since, until, site))
        times.append(time.perf_counter() - began)
    return measures.median(times)


OF_ONE_SITE: Final = one_figure(
    name="history_stats",
    about="seconds of the slowest statistic on a history of 1,000,000 events, PostgreSQL",
    reach=Reach("<=", 0.5),
    make=_of_one_site,
)
OF_ALL_SITES: Final = one_figure(
    name="history_stats_ages",
    about="the last week of 100 sites: seconds after four years / after one, PostgreSQL",
    reach=Reach("<=", 2),
    make=_of_all_sites,
)
