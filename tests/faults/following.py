"""The jobs of a site run to their ends, and what its monitor must have made of all of it."""

import random
from collections import Counter
from collections.abc import Iterator

import pyodbc

from bus import subjects
from bus.events import Event
from bus.live import Live, live_decoder
from services.monitor.live import after
from tests.faults.estate import Estate
from tests.faults.reckoning import Books, opened
from tests.site import Express, eventually

_ENDINGS = {
    "succeeded": "finished",
    "failed": "failed",
    "replaced": "withdrawn",
    "removed": "withdrawn",
}
"""Under which outcome the monitor counts each ending of a deployment."""


def run_jobs(express: Express, chance: random.Random) -> set[int]:
    """Every pending job ends; those of a few computers fail. The ids of the computers that fail."""
    rows = express.sql("SELECT DISTINCT computer_id FROM event_schedule WHERE status_code IS NULL")
    failing = {int(row[0]) for row in rows if chance.random() < 0.2}
    for computer_id in failing:
        express.sql(
            "UPDATE event_schedule SET status_code = 5"
            " WHERE computer_id = ? AND status_code IS NULL",
            computer_id,
        )
    express.sql("UPDATE event_schedule SET status_code = 0 WHERE status_code IS NULL")
    return failing


async def followed(site: Estate, history: Express, seconds: float = 90) -> None:
    """Returns when every deployment is told to have ended, and the history holds every event."""

    async def behind() -> tuple[int, int]:
        events = (await opened(site.client, site.express)).events
        ends = Counter(event.kind for event in events)
        return ends["jobs_scheduled"] - ends["deployment_finished"], len(events) - _heard(history)

    await eventually(behind, lambda found: found == (0, 0), seconds)


async def reckon_monitor(site: Estate, history: Express, failing: set[int]) -> None:
    """Fails with everything that the monitor tells and the database does not say."""
    books = await opened(site.client, site.express)
    wrong = [*_endings(books, failing), *_rows_told(books, site.express), *_totals(books, history)]
    wrong += await _machines_shown(site, books)
    assert not wrong, "\n".join(wrong)


def _heard(history: Express) -> int:
    try:
        ((total,),) = history.sql("SELECT SUM(total) FROM ii_total WHERE family = 'event'")
    except pyodbc.Error:
        return 0
    return int(total or 0)


def _endings(books: Books, failing: set[int]) -> Iterator[str]:
    """Each deployment has ended once: replaced, or as the rows of its jobs say."""
    last = {
        outcome.computer.id: event.details["request"]
        for event in books.events
        if event.kind == "jobs_scheduled"
        and (outcome := books.done[str(event.details["request"])]).computer
    }
    for event in books.events:
        if event.kind != "deployment_finished":
            continue
        computer = books.done[str(event.details["request"])].computer
        assert computer
        expected = "failed" if computer.id in failing else "succeeded"
        if last[computer.id] != event.details["request"]:
            expected = "replaced"
        if event.details["outcome"] != expected:
            yield f"{event.details['request']} {event.details['outcome']}, and was {expected}"


def _rows_told(books: Books, express: Express) -> Iterator[str]:
    """Each job that stands in the database has ended once, and no other one."""
    rows = express.sql("SELECT schedule_id, status_code FROM event_schedule")
    there = sorted((int(row[0]), int(row[1])) for row in rows)
    told = sorted(
        (int(str(event.details["row"])), int(str(event.details["status"])))
        for event in books.events
        if event.kind in {"job_finished", "job_failed"}
    )
    if told != there:
        yield f"ended are {there}, told are {told}"


async def _machines_shown(site: Estate, books: Books) -> list[str]:
    """Each machine stands in the live view as its events leave it."""
    bucket = await site.client.connection.jetstream().key_value(subjects.LIVE)
    expected: dict[str, Live] = {}
    for event in books.events:
        if live := after(expected.get(event.machine), event):
            expected[event.machine] = live
    wrong = []
    for machine, live in expected.items():
        entry = await bucket.get(subjects.site_key(site.client.site, machine))
        shown = live_decoder.decode(entry.value or b"")
        if (shown.stage, shown.request, shown.jobs_done) != (
            live.stage, live.request, live.jobs_done,
        ):  # fmt: skip
            wrong.append(f"{machine} is shown as {shown}, and is {live}")
    return wrong


def _totals(books: Books, history: Express) -> Iterator[str]:
    kinds: Counter[str] = Counter(event.kind for event in books.events)
    yield from _differ("events", kinds, _family(history, "event"))
    states = Counter(outcome.state for outcome in books.done.values())
    deployments = Counter(
        {
            "accepted": len(books.done),
            "scheduled": states["scheduled"],
            "rejected": states["rejected"],
        }
    ) + _ended(books.events)
    yield from _differ("deployments", deployments, _family(history, "deployment"))
    columns = ("accepted", "scheduled", "rejected", "finished", "failed", "withdrawn")
    (sums,) = history.sql(f"SELECT {', '.join(f'SUM({each})' for each in columns)} FROM ii_rollup")
    rolled = Counter(dict(zip(columns, map(int, sums), strict=True)))
    yield from _differ("roll-ups", deployments, rolled)


def _ended(events: list[Event]) -> Counter[str]:
    return Counter(
        _ENDINGS[str(event.details["outcome"])]
        for event in events
        if event.kind == "deployment_finished"
    )


def _family(history: Express, family: str) -> Counter[str]:
    rows = history.sql("SELECT name, total FROM ii_total WHERE family = ?", family)
    return Counter({str(name): int(total) for name, total in rows})


def _differ(what: str, so: Counter[str], counted: Counter[str]) -> Iterator[str]:
    if +so != +counted:
        yield f"{what} are {dict(+so)}, the monitor counts {dict(+counted)}"
