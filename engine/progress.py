"""How far scheduled jobs have come: what an engine tells of the rows that it keeps of them.

A scheduled job is a row with a number that grows. A request's jobs are known by their first and
last row, which its `Outcome` names, so that nothing has to be guessed from jobs or times. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from bus.messages import JobRef, Outcome


class JobRow(Struct, frozen=True):
    """A scheduled job: ``status`` is None before it starts, negative while it runs, then its code.

    The code 0 means that the job succeeded.
    """

    id: int
    computer_id: int
    job: JobRef
    status: int | None


class Standing(NamedTuple):
    """How some rows stand, in three numbers, of which one is another where any row has changed.

    A row that starts, ends, comes or goes changes the count of all, the count of those that have
    started, or the sum of the ids, in which each counts once, twice or three times.
    """

    rows: int = 0
    started: int = 0
    ids: int = 0


class Scheduled(Struct, frozen=True):
    """Which rows a request's jobs got on which computer: from the first to the last."""

    request_id: str
    computer_id: int
    rows: tuple[int, int]


def standing(rows: Iterable[JobRow]) -> Standing:
    """How these rows stand, for engines that have them at hand."""
    count = started = ids = 0
    for row in rows:
        count += 1
        started += row.status is not None
        ids += row.id * (1 if row.status is None else 2 if row.status < 0 else 3)
    return Standing(count, started, ids)


def standings(rows: Iterable[JobRow]) -> dict[int, Standing]:
    """How the rows of each computer stand, for engines that have them at hand."""
    of_computer: defaultdict[int, list[JobRow]] = defaultdict(list)
    for row in rows:
        of_computer[row.computer_id].append(row)
    return {computer: standing(found) for computer, found in of_computer.items()}


def scheduled_by(outcomes: Iterable[Outcome]) -> list[Scheduled]:
    """Which rows the jobs of requests got; nothing for those of which that is not known."""
    return [
        Scheduled(done.request_id, done.computer.id, done.rows)
        for done in outcomes
        if done.computer and done.rows
    ]
