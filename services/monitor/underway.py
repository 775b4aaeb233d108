"""The deployments that are under way, and what the rows of their jobs tell of them. Pure.

What stands in the stream of events is the memory: which deployments there are, and what has been
told of each. So a monitor that starts again, or a second copy, goes on where the first one was.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct, field

from bus.events import Detail, Event, Kind
from bus.messages import ComputerRef
from express.progress import JobRow

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
_ENDED: Final = 50_000
"""Deployments whose end is remembered, so that nothing brings them back."""


class Deployment(Struct, kw_only=True):
    """A request's jobs on their way, by what has been told of them."""

    request: str
    machine: str
    computer: ComputerRef
    technician: str | None
    item: str | None
    scheduled_at: datetime
    rows: tuple[int, int]
    jobs: int
    started_at: datetime | None = None
    started: set[int] = field(default_factory=set)
    ended: dict[int, int] = field(default_factory=dict)
    """The status codes of the rows that have ended."""

    @property
    def failed(self) -> int:
        """How many jobs have failed."""
        return sum(1 for status in self.ended.values() if status)

    def has(self, row: JobRow) -> bool:
        """Whether a row is one of its jobs."""
        first, last = self.rows
        return row.computer_id == self.computer.id and first <= row.id <= last

    def note(self, kind: Kind, row: int, status: int, at: datetime) -> None:
        """Takes down what has been told of a job."""
        if kind == "job_started":
            self.started.add(row)
            self.started_at = min(self.started_at or at, at)
        else:
            self.ended[row] = status

    def is_over(self, rows: Iterable[JobRow]) -> bool:
        """Whether none of its jobs is pending or running any more."""
        return all(_ended(row) or row.id in self.ended for row in rows)

    def missing(self, rows: Iterable[JobRow]) -> int:
        """How many of its jobs have gone without having ended."""
        return max(0, self.jobs - len(self.ended.keys() | {row.id for row in rows}))


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
        self._ended: dict[str, None] = {}

    def heard(self, event: Event) -> None:
        """Takes down an event of `KINDS`; one that was heard before changes nothing."""
        request = event.details.get("request")
        if not isinstance(request, str):
            return
        if event.kind == "deployment_finished":
            self.finish(request)
        elif event.kind == "jobs_scheduled":
            deployment = _deployment(event, request)
            if deployment and request not in self._ended:
                self.deployments.setdefault(request, deployment)
        elif deployment := self.deployments.get(request):
            row, status = event.details.get("row"), event.details.get("status", -1)
            if isinstance(row, int) and isinstance(status, int):
                deployment.note(event.kind, row, status, event.at)

    def finish(self, request: str) -> None:
        """Takes down that the end of a deployment has been told."""
        self.deployments.pop(request, None)
        self._ended[request] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]


def changes(deployment: Deployment, rows: Sequence[JobRow]) -> list[Change]:
    """What has not been told of a deployment's jobs, in the order of their rows."""
    found: list[Change] = []
    for row in rows:
        if row.status is None or row.id in deployment.ended:
            continue
        if row.status < 0:
            if row.id not in deployment.started:
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
        "done": len(deployment.ended.keys() | ({change.row.id} if change.status >= 0 else set())),
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
        "done": len(deployment.ended),
        "failed": deployment.failed,
        "seconds": round(max(0.0, (now - began).total_seconds()), 1),
    }


def _ended(row: JobRow) -> bool:
    return row.status is not None and row.status >= 0


def _deployment(event: Event, request: str) -> Deployment | None:
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
        technician=event.technician,
        item=item if isinstance(item, str) else None,
        scheduled_at=event.at,
        rows=(first, last),
        jobs=jobs,
    )
