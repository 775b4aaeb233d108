"""Events for tests of the history, and the history that they should make, slowly."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct, field

from bus.events import Detail, Event, Kind
from express.database import Database

SITE = "main"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
REQUESTS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(6)]
REQUEST_KINDS: list[Kind] = [
    "request_accepted", "jobs_scheduled", "request_rejected", "deployment_finished", "job_failed",
]  # fmt: skip


def event(
    kind: Kind,
    at: datetime = NOON,
    *,
    id_: str | None = None,
    machine: str = "m1",
    technician: str | None = None,
    **details: Detail,
) -> Event:
    """An event of the site; without an id, one that its contents make."""
    made = f"{SITE}.{kind}.{details.get('request', at.isoformat() + machine)}"
    return Event(
        id=id_ or made, site=SITE, kind=kind, at=at, machine=machine, technician=technician,
        details=dict(details),
    )  # fmt: skip


def deployed(
    number: int, at: datetime = NOON, *, item: str = "job:1", technician: str = "alice",
    waited: float = 10.0, outcome: str = "succeeded",
) -> list[Event]:  # fmt: skip
    """The events of one deployment from the opened portal to its end."""
    request = f"{number:08x}-1111-4000-8000-000000000000"
    machine = f"m{number}"
    of: dict[str, Any] = {"machine": machine, "technician": technician, "request": request}
    scheduled = at + timedelta(seconds=waited)
    return [
        event("portal_opened", at, machine=machine),
        event("request_accepted", scheduled, item=item, **of),
        event("jobs_scheduled", scheduled, item=item, jobs=3, **of),
        event("deployment_finished", scheduled + timedelta(hours=1), outcome=outcome, **of),
    ]


_moments = st.one_of(
    st.integers(-3 * 86_400_000, 3 * 86_400_000).map(lambda ms: NOON + timedelta(milliseconds=ms)),
    st.sampled_from(
        [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)],
    ),
    st.integers(0, 60).map(lambda seconds: NOON + timedelta(seconds=seconds)),
)
_machines = st.sampled_from(["m1", "M1", "m\N{LATIN SMALL LETTER E WITH ACUTE}" + "x" * 80])


@st.composite
def _told(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from([*REQUEST_KINDS, "portal_opened", "portal_opened", "login_failed"]))
    details: dict[str, Detail] = {}
    if kind in REQUEST_KINDS:
        details["request"] = draw(st.sampled_from([*REQUESTS, "junk", 7, None]))
        details["item"] = draw(st.sampled_from(["job:1", "folder:2", None, 5, "x\0" * 100]))
        details["jobs"] = draw(st.sampled_from([3, 10**20, -1, "x"]))
        details["outcome"] = draw(st.sampled_from(["succeeded", "failed", "replaced", None]))
        details["problem"] = draw(st.sampled_from(["name_taken", "\udc80"]))
    return Event(
        # Few ids, so that some come again.
        id=f"{SITE}.{kind}.{draw(st.integers(0, 30))}",
        site=SITE,
        kind=kind,
        at=draw(_moments),
        machine=draw(_machines),
        technician=draw(st.sampled_from(["alice", "Alice", "bob\0", None])),
        details=details,
    )


histories = st.lists(_told(), max_size=40)
"""Events in any order, some of them twice, some of them nonsense."""


class Seen(Struct):
    """A deployment as the reference knows it."""

    request: str
    item: str = ""
    technician: str = ""
    ending: object = None
    times: dict[str, int] = field(default_factory=dict)
    portal: int | None = None


class Reference:
    """The history of events, one after the other, all of it in memory."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._openings: dict[str, list[int]] = {}
        self.seen: dict[str, Seen] = {}
        self.kinds: Counter[str] = Counter()

    def hear(self, events: Iterable[Event]) -> "Reference":
        for each in events:
            if each.id not in self._ids:
                self._ids.add(each.id)
                self.kinds[each.kind] += 1
                self._one(each)
        return self

    def _one(self, told: Event) -> None:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        at = min(max(told.at, epoch), datetime(9999, 12, 31, tzinfo=UTC))
        moment = int((at - epoch) / timedelta(milliseconds=1))
        machine = told.machine[:64]
        if told.kind == "portal_opened":
            openings = sorted({*self._openings.get(machine, []), moment})
            self._openings[machine] = openings[-4:]
            return
        request = told.details.get("request")
        if request not in REQUESTS and not str(request).endswith("1111-4000-8000-000000000000"):
            return
        if told.kind in {"job_failed", "login_failed"}:
            return
        self._of_a_request(told, str(request), machine, moment)
        used = self.seen[str(request)].portal
        left = [at for at in self._openings.get(machine, []) if used is None or at > used]
        self._openings[machine] = left

    def _of_a_request(self, told: Event, request: str, machine: str, moment: int) -> None:
        known = self.seen.setdefault(request, Seen(request))
        known.item = known.item or _line(told.details.get("item"))[:64]
        known.technician = known.technician or _line(told.technician)
        if told.kind in known.times:
            return
        known.times[told.kind] = moment
        if told.kind == "deployment_finished":
            known.ending = told.details.get("outcome")
        if told.kind == "request_accepted" or (
            told.kind == "jobs_scheduled" and "request_accepted" not in known.times
        ):
            usable = [*self._openings.get(machine, [])]
            if known.portal is not None:
                usable.append(known.portal)
            before = [each for each in usable if each <= moment]
            known.portal = max(before) if before else None

    def rollup(self) -> dict[tuple[object, ...], tuple[int, ...]]:
        """What the roll-ups should hold."""
        cells: dict[tuple[object, ...], list[int]] = {}
        for each in self.seen.values():
            times = each.times
            began = next(times[kind] for kind in REQUEST_KINDS if kind in times)
            day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=began)).date()
            bucket = -1
            if each.portal is not None and times.get("jobs_scheduled", -1) >= each.portal:
                bucket = _bucket(times["jobs_scheduled"] - each.portal)
            cell = cells.setdefault((day.isoformat(), each.item, each.technician, bucket), [0] * 6)
            ended = "deployment_finished" in times
            for column, counted in enumerate((
                "request_accepted" in times, "jobs_scheduled" in times, "request_rejected" in times,
                each.ending == "succeeded", each.ending == "failed",
                ended and each.ending not in {"succeeded", "failed"},
            )):  # fmt: skip
                cell[column] += counted
        return {cell: tuple(counts) for cell, counts in cells.items()}


def _line(value: object) -> str:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else ""


def _bucket(milliseconds: int) -> int:
    bucket, bound = 0, 100.0
    while milliseconds > bound and bucket <= math.log(7 * 864_000, 1.1):
        bucket += 1
        bound = 100 * 1.1**bucket
    return bucket + (milliseconds > bound)


async def rollup(database: Database) -> dict[tuple[object, ...], tuple[int, ...]]:
    """What the roll-ups hold."""
    rows = await database.transact(
        lambda tx: tx.fetch(
            "SELECT day, item, technician, bucket, accepted, scheduled, rejected, finished, failed,"
            " withdrawn FROM ii_rollup WHERE site = ?",
            SITE,
        )
    )
    return {tuple(row[:4]): tuple(map(int, row[4:])) for row in rows}


async def deployments(database: Database) -> dict[str, dict[str, object]]:
    """The single deployments, by their requests."""
    names = (
        "request_id", "day", "machine", "item", "technician", "computer", "problem", "outcome",
        "jobs", "ending", "portal_at", "accepted_at", "scheduled_at", "rejected_at", "finished_at",
    )  # fmt: skip
    query = f"SELECT {', '.join(names)} FROM ii_deployment"
    rows = await database.transact(lambda tx: tx.fetch(query))
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def numbered(events: Sequence[Event], first: int = 1) -> list[tuple[int, Event]]:
    """Events at their places in a stream."""
    return list(enumerate(events, first))
