"""The deployments that are under way, and what the rows of their jobs tell of them. Pure.

What stands in the stream of events is the memory: which deployments there are, and what has been
told of each. So a monitor that starts again, or a second copy, goes on where the first one was.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct, field

from bus.events import Detail, Event, Kind
from bus.messages import ComputerRef
from engine.progress import JobRow
from services.monitor.recent import Recent

KINDS: Final[tuple[Kind, ...]] = (
    "jobs_scheduled",
    "job_started",
    "job_finished",
    "job_failed",
    "deployment_finished",
)
"""The events that deployments are known by."""

Ending = Literal["succeeded", "failed", "replaced", "removed"]
"""How a deployment ends: ``replaced`` by a later request's jobs, or its rows ``removed`` by others.
"""

_IDS: Final = range(2**63)
"""What can be the id of a row: a database refuses a query for any other."""
_RUNS: Final = -1
_UNKNOWN_FAILURE: Final = 1
"""Stands for the status of a job of which the event does not tell how it ended."""
_COHORT: Final = 2_500
"""Jobs of the deployments that are looked at together."""
_ENDED: Final = 10_000
"""Deployments, at least, whose end is remembered, so that nothing brings them back."""


class Deployment(Struct, kw_only=True, gc=False):
    """A request's jobs on their way, by what has been told of them."""

    request: str
    machine: str
    computer: ComputerRef
    technician: str | None
    item: str | None
    scheduled_at: datetime
    first_row: int
    last_row: int
    jobs: int
    cohort: int
    """Those that were scheduled one after the other have the same one; their rows stand together.
    """
    started_at: datetime | None = None
    told: dict[int, int] = field(default_factory=dict)
    """The status codes of the rows that have been told of, negative for those that run."""
    seen: int | None = None
    """By the hash of `Standing`, how its rows stood when nothing was left to be told of them."""

    @property
    def done(self) -> int:
        """How many jobs have ended."""
        return sum(1 for status in self.told.values() if status >= 0)

    @property
    def failed(self) -> int:
        """How many jobs have failed."""
        return sum(1 for status in self.told.values() if status > 0)

    def has(self, row: JobRow) -> bool:
        """Whether a row is one of its jobs."""
        return row.computer_id == self.computer.id and self.first_row <= row.id <= self.last_row

    def has_ended(self, row: int) -> bool:
        """Whether it has been told that a job has ended."""
        return self.told.get(row, -1) >= 0

    def note(self, kind: Kind, row: int, status: int, at: datetime) -> None:
        """Takes down what has been told of a job."""
        if kind == "job_started":
            self.told.setdefault(row, _RUNS)
            self.started_at = min(self.started_at or at, at)
        else:
            if not self.has_ended(row):
                self.seen = None
            self.told[row] = status if status >= 0 else _UNKNOWN_FAILURE

    def is_over(self, rows: Iterable[JobRow]) -> bool:
        """Whether none of its jobs is pending or running any more."""
        return all(_ended(row) or self.has_ended(row.id) for row in rows)

    def missing(self, rows: Iterable[JobRow]) -> int:
        """How many of its jobs have gone without having ended."""
        there = {row.id for row in rows}
        gone = sum(1 for row, status in self.told.items() if status >= 0 and row not in there)
        return max(0, self.jobs - len(there) - gone)


class Change(Struct, frozen=True, kw_only=True):
    """What a job's row says that has not been told."""

    kind: Kind
    row: JobRow
    status: int


class Underway:
    """Every deployment of a site that has not come to its end."""

    def __init__(self) -> None:
        self.deployments: dict[str, Deployment] = {}
        """By the ids of their requests."""
        self._ended = Recent(_ENDED)
        self._cohort = 0
        self._room = _COHORT

    def heard(self, event: Event) -> None:
        """Takes down an event of `KINDS`; one that was heard before changes nothing."""
        request = event.details.get("request")
        if not isinstance(request, str):
            return
        if event.kind == "deployment_finished":
            self.finish(request)
        elif event.kind == "jobs_scheduled":
            deployment = _deployment(event, request, self._cohort)
            if deployment and request not in self.deployments and request not in self._ended:
                self.deployments[request] = deployment
                self._make_room(deployment.jobs)
        elif deployment := self.deployments.get(request):
            row, status = event.details.get("row"), event.details.get("status", -1)
            if isinstance(row, int) and isinstance(status, int):
                deployment.note(event.kind, row, status, event.at)

    def _make_room(self, jobs: int) -> None:
        self._room -= max(jobs, 1)
        if self._room <= 0:
            self._cohort, self._room = self._cohort + 1, _COHORT

    def finish(self, request: str) -> None:
        """Takes down that the end of a deployment has been told."""
        self.deployments.pop(request, None)
        self._ended.add(request)


def changes(deployment: Deployment, rows: Sequence[JobRow]) -> list[Change]:
    """What has not been told of a deployment's jobs, in the order of their rows."""
    found: list[Change] = []
    for row in rows:
        if row.status is None or deployment.has_ended(row.id):
            continue
        if row.status < 0:
            if row.id not in deployment.told:
                found.append(Change(kind="job_started", row=row, status=row.status))
        else:
            kind: Kind = "job_failed" if row.status else "job_finished"
            found.append(Change(kind=kind, row=row, status=row.status))
    return found


def job_details(deployment: Deployment, change: Change) -> dict[str, Detail]:
    """What is told of a job, once it has been noted."""
    details: dict[str, Detail] = {
        "request": deployment.request,
        "item": deployment.item,
        "job": change.row.job.name,
        "job_id": change.row.job.id,
        "row": change.row.id,
        "done": deployment.done + (change.status >= 0 and not deployment.has_ended(change.row.id)),
        "jobs": deployment.jobs,
    }
    if change.status >= 0:
        details["status"] = change.status
    return details


def end_details(deployment: Deployment, outcome: Ending, now: datetime) -> dict[str, Detail]:
    """What is told of a deployment's end; ``seconds`` since its first job was seen to start.

    Where none was seen, they count from when it was scheduled.
    """
    began = deployment.started_at or deployment.scheduled_at
    return {
        "request": deployment.request,
        "item": deployment.item,
        "outcome": outcome,
        "jobs": deployment.jobs,
        "done": deployment.done,
        "failed": deployment.failed,
        "seconds": round(max(0.0, (now - began).total_seconds()), 1),
    }


def _ended(row: JobRow) -> bool:
    return row.status is not None and row.status >= 0


def _deployment(event: Event, request: str, cohort: int) -> Deployment | None:
    """The deployment that was scheduled; None where its rows are not known."""
    first, last, jobs = (event.details.get(name) for name in ("first_row", "last_row", "jobs"))
    item = event.details.get("item")
    if not (isinstance(first, int) and isinstance(last, int) and isinstance(jobs, int)):
        return None
    if event.computer is None or not all(id_ in _IDS for id_ in (first, last, event.computer.id)):
        return None
    return Deployment(
        request=request,
        machine=event.machine,
        computer=event.computer,
        # There are few of these, and each is told in an event of its own.
        technician=sys.intern(event.technician) if event.technician else None,
        item=sys.intern(item) if isinstance(item, str) else None,
        scheduled_at=event.at,
        first_row=first,
        last_row=last,
        jobs=jobs,
        cohort=cohort,
    )
