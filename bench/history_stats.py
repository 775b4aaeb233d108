"""How long the slowest statistic takes on a history of 1,000,000 events over two years.

The roll-ups are those that the monitor makes of such events, by its own rules, without the waiting
for each batch. Each statistic is asked over all of the history and over its last 30 days, on
PostgreSQL, with the time of the ODBC driver.
"""

import statistics as measures
import time
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Final, get_args

import uvloop

from bench.harness import Figure, MeasureError, Reach, Say, milliseconds
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


def _make(say: Say) -> float:
    with postgres() as dsn:
        return uvloop.run(_measure(dsn, say))


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


async def _time(database: Database, by: By, since: date, until: date) -> float:
    """The median of the seconds that one statistic takes."""
    times: list[float] = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        await database.transact(lambda tx: statistics(tx, by, since, until, SITE))
        times.append(time.perf_counter() - began)
    return measures.median(times)


FIGURE: Final = Figure(
    name="history_stats",
    about="seconds of the slowest statistic on a history of 1,000,000 events, PostgreSQL",
    reach=Reach("<=", 0.5),
    make=_make,
)
