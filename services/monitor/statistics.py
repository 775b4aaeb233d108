"""What can be asked of the history: how many deployments, how many went well, how long it took.

All of it is told from the roll-ups, so that its cost depends on the days asked for, never on how
long a site has been there.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, Literal

from msgspec import Struct

from express.database import Transaction
from services.monitor.deployments import Counts
from services.monitor.durations import seconds_of

By = Literal["site", "day", "item", "technician"]

_ALL_SITES: Final = "day >= ? AND day < ?"
_UNKNOWN: Final = (None, None)
_ONE_SITE: Final = f"site = ? AND {_ALL_SITES}"


class Statistic(Struct, frozen=True, kw_only=True):
    """Deployments that have something in common: a site, a day (UTC), an item or a technician.

    What came as far as ``finished`` is counted under ``scheduled`` and ``accepted`` as well.
    ``success_rate`` is the share of those scheduled or rejected that were scheduled and have not
    failed so far; those withdrawn do not count. ``median`` and ``p95`` are seconds from the opened
    portal to the scheduled jobs, right to 5 %. Each of the three is None where nothing is known.
    """

    name: str
    accepted: int
    scheduled: int
    rejected: int
    finished: int
    failed: int
    withdrawn: int
    success_rate: float | None
    median: float | None
    p95: float | None


def statistics(
    tx: Transaction, by: By, since: date, until: date, site: str | None = None
) -> list[Statistic]:
    """The deployments that began from one day on and before another, in the order of their names.

    Days are those of UTC. Without a site, all those of the history database are told, by site only.

    Raises:
        DatabaseUnavailable: the database does not answer.
        ValueError: no site is named, and one is needed.
    """
    if site is None and by != "site":
        raise ValueError(f"by {by}, one site is told of at a time")
    which = _ALL_SITES if site is None else _ONE_SITE
    values = [*([] if site is None else [site]), since.isoformat(), until.isoformat()]
    counts = tx.fetch(_counting(by, which), *values)
    waits = {name: buckets for name, *buckets in tx.fetch(_waiting(by, which), *values)}
    found = [
        _statistic(name, Counts(*map(int, sums)), waits.get(name, _UNKNOWN))
        for name, *sums in counts
    ]
    return sorted(found, key=lambda each: each.name)


def _counting(by: By, which: str) -> str:
    """How many deployments got how far."""
    sums = ", ".join(f"SUM({each})" for each in Counts._fields)
    return f"SELECT {by}, {sums} FROM ii_rollup WHERE {which} GROUP BY {by}"


def _waiting(by: By, which: str) -> str:
    """The least buckets that a half, and 19 of 20, of those whose duration is known do not exceed.

    The database adds the buckets up, lest each of them travels.
    """
    return (
        "WITH waited AS ("
        f"SELECT {by} AS name, bucket, SUM(scheduled) AS deployments FROM ii_rollup"
        f" WHERE {which} AND bucket >= 0 AND scheduled > 0 GROUP BY {by}, bucket"
        "), reached AS ("
        "SELECT name, bucket, SUM(deployments) OVER ("
        "PARTITION BY name ORDER BY bucket ROWS UNBOUNDED PRECEDING) AS part,"
        " SUM(deployments) OVER (PARTITION BY name) AS whole FROM waited"
        ") SELECT name, MIN(CASE WHEN part * 2 >= whole THEN bucket END),"
        " MIN(CASE WHEN part * 20 >= whole * 19 THEN bucket END) FROM reached GROUP BY name"
    )


def _statistic(name: str, counts: Counts, waits: Sequence[int | None]) -> Statistic:
    well = counts.scheduled - counts.failed - counts.withdrawn
    known = well + counts.failed + counts.rejected
    median, p95 = (None if bucket is None else seconds_of(int(bucket)) for bucket in waits)
    return Statistic(
        name=name,
        **counts._asdict(),
        success_rate=well / known if known else None,
        median=median,
        p95=p95,
    )
