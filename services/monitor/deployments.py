"""What events say of deployments, and what a deployment adds to the roll-ups. Pure.

A deployment is a request that was accepted, followed to its end. Its events may come in any order,
and what is told of it first stays: whatever comes twice changes nothing.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from bus.events import Detail, Event, one_line
from services.monitor.durations import UNKNOWN, bucket_of

_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_NAME: Final = 64
_TECHNICIAN: Final = 128
_MOST_JOBS: Final = 1_000_000

OPENINGS: Final = 4
"""How many openings of its portal are remembered of a machine: a request may be told of late."""


_ENDINGS: Final = {"succeeded": "finished", "failed": "failed"}


class Deployment(Struct, frozen=True, kw_only=True):
    """What is known of one deployment; times are milliseconds since 1970, UTC."""

    site: str
    request_id: str
    machine: str = ""
    item: str = ""
    technician: str = ""
    computer: str = ""
    problem: str = ""
    jobs: int = 0
    ending: str = ""
    """How it ended: ``succeeded``, ``failed``, or why nobody will know."""
    portal_at: int | None = None
    accepted_at: int | None = None
    scheduled_at: int | None = None
    rejected_at: int | None = None
    finished_at: int | None = None

    @property
    def began_at(self) -> int:
        """When it was accepted; if nobody told, the first that is known of it."""
        moments = (self.accepted_at, self.scheduled_at, self.rejected_at, self.finished_at)
        return next((at for at in moments if at is not None), 0)

    @property
    def outcome(self) -> str:
        """The last that is known of it."""
        if self.finished_at is not None:
            return _ENDINGS.get(self.ending, "withdrawn")
        if self.rejected_at is not None:
            return "rejected"
        return "scheduled" if self.scheduled_at is not None else "accepted"


class Cell(NamedTuple):
    """What deployments are counted by."""

    day: str
    """In UTC, as 2026-11-23."""
    item: str
    technician: str
    bucket: int
    """Of the time from the portal to the scheduled jobs."""


class Counts(NamedTuple):
    """How many deployments have come how far; one that has finished was also accepted.

    Those are withdrawn whose jobs another request or somebody else removed before they ended.
    """

    accepted: int = 0
    scheduled: int = 0
    rejected: int = 0
    finished: int = 0
    failed: int = 0
    withdrawn: int = 0

    def plus(self, other: "Counts", times: int = 1) -> "Counts":
        """The sum, with ``other`` taken so many times."""
        return Counts(*(a + times * b for a, b in zip(self, other, strict=True)))


NOTHING: Final = Counts()


def request_of(event: Event) -> str | None:
    """The request whose deployment an event changes, if it is one that does."""
    request = event.details.get("request")
    if event.kind in _CHANGES and isinstance(request, str) and _REQUEST_ID.match(request):
        return request
    return None


def changed(known: Deployment | None, event: Event, openings: Sequence[int]) -> Deployment:
    """A deployment after an event of it, which `request_of` named.

    ``openings`` are those of the portal of the event's machine that no other deployment has used.
    """
    at = milliseconds(event.at)
    now = known or Deployment(site=event.site, request_id=str(event.details["request"]))
    now = replace(
        now,
        machine=now.machine or machine_of(event),
        item=now.item or _text(event.details.get("item"), _NAME),
        technician=now.technician or _text(event.technician, _TECHNICIAN),
        computer=_text(event.computer.name, _NAME) if event.computer else now.computer,
    )
    match event.kind:
        case "request_accepted" if now.accepted_at is None:
            return _with_portal(replace(now, accepted_at=at), openings)
        case "jobs_scheduled" if now.scheduled_at is None:
            now = replace(now, scheduled_at=at, jobs=_count(event.details.get("jobs")))
            return now if now.accepted_at is not None else _with_portal(now, openings)
        case "request_rejected" if now.rejected_at is None:
            problem = _text(event.details.get("problem"), _NAME)
            return replace(now, rejected_at=at, problem=problem)
        case "deployment_finished" if now.finished_at is None:
            return replace(now, finished_at=at, ending=_text(event.details.get("outcome"), _NAME))
    return now


def contribution(deployment: Deployment) -> tuple[Cell, Counts]:
    """What a deployment adds to the roll-ups, and where."""
    bucket = UNKNOWN
    if deployment.portal_at is not None and deployment.scheduled_at is not None:
        waited = deployment.scheduled_at - deployment.portal_at
        # A clock that was set back in between has measured nothing.
        bucket = bucket_of(waited) if waited >= 0 else UNKNOWN
    outcome = deployment.outcome
    return (
        Cell(day_of(deployment.began_at), deployment.item, deployment.technician, bucket),
        Counts(
            accepted=int(deployment.accepted_at is not None),
            scheduled=int(deployment.scheduled_at is not None),
            rejected=int(deployment.rejected_at is not None),
            finished=int(outcome == "finished"),
            failed=int(outcome == "failed"),
            withdrawn=int(outcome == "withdrawn"),
        ),
    )


def opened(openings: Sequence[int], at: int) -> tuple[int, ...]:
    """The openings to be remembered of a machine whose portal was opened once more."""
    return tuple(sorted({*openings, at})[-OPENINGS:])


def unused(openings: Sequence[int], deployment: Deployment) -> tuple[int, ...]:
    """The openings that are left for others: each serves the first request after it.

    A request that is replayed days later has waited for nobody at a portal.
    """
    portal_at = deployment.portal_at
    return tuple(at for at in openings if portal_at is None or at > portal_at)


def machine_of(event: Event) -> str:
    """The machine of an event, as it is kept."""
    return _text(event.machine, _NAME)


def milliseconds(at: datetime) -> int:
    """A moment as it is kept: milliseconds since 1970, UTC; never one that no calendar has."""
    return (min(max(at, _EPOCH), _LAST) - _EPOCH) // _MILLISECOND


def day_of(at: int) -> str:
    """The day of a moment, in UTC."""
    return (_EPOCH + at * _MILLISECOND).date().isoformat()


_CHANGES: Final = frozenset(
    {"request_accepted", "jobs_scheduled", "request_rejected", "deployment_finished"}
)


def _with_portal(deployment: Deployment, openings: Sequence[int]) -> Deployment:
    """With the last opening of the portal before the deployment began."""
    mine = () if deployment.portal_at is None else (deployment.portal_at,)
    before = [at for at in (*openings, *mine) if at <= deployment.began_at]
    return replace(deployment, portal_at=max(before, default=None))


def _count(value: Detail) -> int:
    return min(max(value, 0), _MOST_JOBS) if isinstance(value, int) else 0


def _text(value: Detail, longest: int) -> str:
    """A text that every database takes: somebody may have written events by hand."""
    return one_line(value)[:longest] if isinstance(value, str) else ""
