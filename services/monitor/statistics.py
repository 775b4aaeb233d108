"""What can be asked of the history: how many deployments, how many went well, how long it took.

All of it is told from the roll-ups, so that its cost depends on the days asked for, never on how
long a site has been there.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, Literal

from msgspec import Struct

from express.database import MAX_ROWS, Row, Transaction, markers
from services.monitor.deployments import Counts
from services.monitor.durations import seconds_of
from services.monitor.titles import known_titles

By = Literal["site", "day", "item", "technician"]

_UNKNOWN: Final = (None, None)


class Statistic(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Deployments that have something in common: a site, a day (UTC), an item or a technician.

    What came as far as ``finished`` is counted under ``scheduled`` and ``accepted`` as well.
    ``success_rate`` is the share of those scheduled or rejected that were scheduled and have not
    failed so far; those withdrawn do not count. ``median`` and ``p95`` are seconds from the opened
    portal to the scheduled jobs, right to 5 %. Each of the three is None where nothing is known.
    ``title`` is what an item was called when it was picked last; ``name`` is its id.
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
    title: str | None = None


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
    # By name: only so does every server use the index, which is by site and day.
    sites = [site] if site is not None else _known_sites(tx)
    counts: list[Row] = []
    waits: dict[str, list[int | None]] = {}
    for start in range(0, len(sites), MAX_ROWS):
        part = sites[start : start + MAX_ROWS]
        within = _within(len(part))
        values = (*part, since.isoformat(), until.isoformat())
        counts += tx.fetch(_counting(by, within), *values)
        waits |= {name: buckets for name, *buckets in tx.fetch(_waiting(by, within), *values)}
    titles = known_titles(tx, site) if site is not None and by == "item" else {}
    found = [
        _statistic(name, Counts(*map(int, sums)), waits.get(name, _UNKNOWN), titles.get(name))
        for name, *sums in counts
    ]
    return sorted(found, key=lambda each: each.name)


def _known_sites(tx: Transaction) -> list[str]:
    return [name for (name,) in tx.fetch("SELECT site FROM ii_monitor")]


def _within(sites: int) -> str:
    return f"site IN ({markers(sites)}) AND day >= ? AND day < ?"


def _counting(by: By, within: str) -> str:
    """How many deployments got how far."""
    sums = ", ".join(f"SUM({each})" for each in Counts._fields)
    return f"SELECT {by}, {sums} FROM ii_rollup WHERE {within} GROUP BY {by}"


def _waiting(by: By, within: str) -> str:
    """The least buckets that a half, and 19 of 20, of those whose duration is known do not exceed.

    The database adds the buckets up, lest each of them travels.
    """
    return (
        "WITH waited AS ("
        f"SELECT {by} AS name, bucket, SUM(scheduled) AS deployments FROM ii_rollup"
        f" WHERE {within} AND bucket >= 0 AND scheduled > 0 GROUP BY {by}, bucket"
        "), reached AS ("
        "SELECT name, bucket, SUM(deployments) OVER ("
        "PARTITION BY name ORDER BY bucket ROWS UNBOUNDED PRECEDING) AS part,"
        " SUM(deployments) OVER (PARTITION BY name) AS whole FROM waited"
        ") SELECT name, MIN(CASE WHEN part * 2 >= whole THEN bucket END),"
        " MIN(CASE WHEN part * 20 >= whole * 19 THEN bucket END) FROM reached GROUP BY name"
    )


def _statistic(
    name: str, counts: Counts, waits: Sequence[int | None], title: str | None
) -> Statistic:
    well = counts.scheduled - counts.failed - counts.withdrawn
    known = well + counts.failed + counts.rejected
    median, p95 = (None if bucket is None else seconds_of(int(bucket)) for bucket in waits)
    return Statistic(
        name=name,
        **counts._asdict(),
        success_rate=well / known if known else None,
        median=median,
        p95=p95,
        title=title,
    )
