"""The history database: what a site's events have become, and how far they have been read.

Every batch of events is one transaction together with the position in the stream, so that a batch
counts once or not at all, whoever dies. One copy of the monitor holds a site's history at a time;
it shows that it lives by a beat, and another takes over when the beat has stopped. The clocks of
the copies are never compared, and a holder that was taken for dead cannot commit any more.
"""

import hashlib
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from bus.events import Event
from express.database import MAX_ROWS, Database, Transaction, Value, markers
from services.monitor.deployments import (
    NOTHING,
    Cell,
    Counts,
    Deployment,
    changed,
    contribution,
    day_of,
    machine_of,
    milliseconds,
    opened,
    request_of,
    unused,
)
from services.monitor.tables import create_tables
from services.monitor.titles import keep_titles, told_titles

LEASE: Final = 8.0
"""Seconds without a beat after which the holder of a history is taken for dead."""

_DEPLOYMENT: Final = (
    "site", "request_id", "day", "machine", "item", "technician", "computer", "problem", "outcome",
    "jobs", "ending", "portal_at", "accepted_at", "scheduled_at", "rejected_at", "finished_at",
)  # fmt: skip
_MONITOR: Final = ("site", "stream", "position", "told", "holder", "beat")
_ROLLUP: Final = ("rollup_key", "site", *Cell._fields, *Counts._fields)

T = TypeVar("T")


class OvertakenError(Exception):
    """Another copy of the monitor holds the history."""


class Place(Struct, frozen=True):
    """How far a stream has been read into the history: the sequence number of the last event."""

    stream: str = ""
    position: int = 0


class Totals(Struct, frozen=True):
    """All events by kind and all deployments by how far they came, since the history began."""

    events: Mapping[str, int]
    deployments: Mapping[str, int]


class Applied(Struct, frozen=True):
    """What a batch has come to."""

    place: Place
    totals: Totals


class _Beat(NamedTuple):
    holder: str
    number: int


class History:
    """One site's part of a history database, for one copy of the monitor."""

    def __init__(self, database: Database, site: str, lease: float = LEASE) -> None:
        """Takes the seconds without a beat after which another copy is taken for dead."""
        self.lease = lease
        self._database = database
        self._site = site
        self._me = str(uuid.uuid4())
        self._others_beat = _Beat("", 0)
        self._others_since = 0.0

    async def prepare(self) -> None:
        """Makes the tables that are not there yet.

        Raises:
            DatabaseUnavailable: the database does not answer.
            WriteConflict: another copy makes them in this moment; try again.
            pyodbc.Error: the user may not create tables.
        """
        await create_tables(self._database)

    async def claim(self) -> Place | None:
        """Becomes the holder; where the work goes on, or None while another copy lives.

        Raises:
            DatabaseUnavailable: the database does not answer.
            WriteConflict: another copy claims it in the same moment; try again.
        """

        def take(tx: Transaction) -> Place | None:
            rows = tx.fetch(
                "SELECT stream, position, holder, beat FROM ii_monitor WHERE site = ?",
                self._site,
            )
            if not rows:
                tx.insert("ii_monitor", _MONITOR, [(self._site, "", 0, 0, self._me, 0)])
                return Place()
            ((stream, position, holder, count),) = rows
            beat = _Beat(str(holder), int(count))
            if not self._may_take(beat):
                return None
            taken = tx.execute(
                "UPDATE ii_monitor SET holder = ?, beat = beat + 1"
                " WHERE site = ? AND holder = ? AND beat = ?",
                self._me, self._site, beat.holder, beat.number,
            )  # fmt: skip
            return Place(str(stream), int(position)) if taken else None

        return await self._database.transact(take)

    async def beat(self, place: Place) -> None:
        """Shows that this copy lives.

        Raises:
            OvertakenError: another copy has taken over.
            DatabaseUnavailable, WriteConflict: it could not be shown.
        """
        await self._database.transact(lambda tx: self._advance(tx, place, place))

    async def begin_anew(self, stream: str) -> Place:
        """Goes back to the beginning: the stream is another one. What was heard counts no more.

        Raises:
            OvertakenError: another copy has taken over.
            DatabaseUnavailable, WriteConflict: it was not written.
        """
        held = await self._database.transact(
            lambda tx: tx.execute(
                "UPDATE ii_monitor SET stream = ?, position = 0, beat = beat + 1"
                " WHERE site = ? AND holder = ?",
                stream,
                self._site,
                self._me,
            )
        )
        if not held:
            raise OvertakenError(self._site)
        return Place(stream)

    async def release(self) -> None:
        """Lets another copy go on at once.

        Raises:
            DatabaseUnavailable, WriteConflict: it was not written.
        """
        await self._database.transact(
            lambda tx: tx.execute(
                "UPDATE ii_monitor SET holder = '', beat = beat + 1 WHERE site = ? AND holder = ?",
                self._site,
                self._me,
            )
        )

    async def apply(
        self, place: Place, events: Sequence[tuple[int, Event]], position: int
    ) -> Applied:
        """Applies events with their places in the stream, all of them or none.

        ``position`` is where reading goes on: that of the last event, or of what was none after it.

        Raises:
            OvertakenError: another copy has taken over, and nothing was applied.
            DatabaseUnavailable: the database does not answer; the batch may be applied or not.
            WriteConflict: nothing was applied; try again.
        """
        after = replace(place, position=position)

        def take_in(tx: Transaction) -> Applied:
            # First of all: whoever else is about to apply waits here, and then finds it done.
            self._advance(tx, place, after)
            new = self._unheard(tx, events)
            deployments = self._follow(tx, new)
            keep_titles(tx, self._site, told_titles(new))
            kinds = Counter[str](event.kind for event in new)
            return Applied(after, self._count(tx, kinds, deployments))

        return await self._database.transact(take_in)

    async def totals(self) -> Totals:
        """What has been counted so far.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        return _as_totals(await self._database.transact(self._totals))

    async def forget(self, before: datetime, heard_before: datetime) -> int:
        """Removes single deployments from before a day; the roll-ups stay. Returns how many went.

        What was heard before another day is forgotten too: it must be kept as long as the stream
        keeps its events, lest one that is read again count again.

        Raises:
            DatabaseUnavailable, WriteConflict: not all of it was removed; the rest can be later.
        """
        await self._database.transact(
            lambda tx: tx.execute(
                "DELETE FROM ii_opening WHERE site = ? AND opened_at < ?",
                self._site,
                milliseconds(before),
            )
        )
        await self._forget_days("ii_heard", day_of(milliseconds(heard_before)))
        return await self._forget_days("ii_deployment", day_of(milliseconds(before)))

    async def _forget_days(self, table: str, before: str) -> int:
        """Day by day, so that no transaction is long."""

        def forget_oldest(tx: Transaction) -> int | None:
            ((day,),) = tx.fetch(f"SELECT MIN(day) FROM {table} WHERE site = ?", self._site)
            if day is None or str(day) >= before:
                return None
            return tx.execute(
                f"DELETE FROM {table} WHERE site = ? AND day = ?", self._site, str(day)
            )

        removed = 0
        while (gone := await self._database.transact(forget_oldest)) is not None:
            removed += gone
        return removed

    def _may_take(self, beat: _Beat) -> bool:
        """Whether nobody holds the history, or who did has shown no life for long enough."""
        now = time.monotonic()
        if beat != self._others_beat:
            self._others_beat, self._others_since = beat, now
        return beat.holder in {"", self._me} or now - self._others_since >= self.lease

    def _advance(self, tx: Transaction, place: Place, after: Place) -> None:
        held = tx.execute(
            "UPDATE ii_monitor SET position = ?, beat = beat + 1"
            " WHERE site = ? AND holder = ? AND position = ? AND stream = ?",
            after.position, self._site, self._me, place.position, place.stream,
        )  # fmt: skip
        if not held:
            raise OvertakenError(self._site)

    def _unheard(self, tx: Transaction, events: Sequence[tuple[int, Event]]) -> list[Event]:
        """The events that were not heard before, each of them once; from now on they are heard."""
        first: dict[int, Event] = {}
        for _, event in events:
            first.setdefault(_hash(event.id), event)
        for keys in _parts(list(first)):
            heard = tx.fetch(
                f"SELECT event_key FROM ii_heard WHERE event_key IN ({markers(len(keys))})", *keys
            )
            for (key,) in heard:
                del first[int(key)]
        today = datetime.now(UTC).date().isoformat()
        rows = [(key, self._site, today) for key in first]
        tx.insert("ii_heard", ("event_key", "site", "day"), rows)
        return list(first.values())

    def _follow(self, tx: Transaction, events: Sequence[Event]) -> Counts:
        """Takes events into the deployments; returns by how much all of them together grew."""
        requests = {request for event in events if (request := request_of(event))}
        # Of every deployment that begins, the portal is asked for.
        machines = {
            machine_of(event)
            for event in events
            if event.kind == "portal_opened" or request_of(event)
        }
        before = self._deployments(tx, sorted(requests))
        remembered = self._openings(tx, sorted(machines))
        deployments, openings = dict(before), dict(remembered)
        for event in events:
            machine = machine_of(event)
            if event.kind == "portal_opened":
                openings[machine] = opened(openings.get(machine, ()), milliseconds(event.at))
            elif request := request_of(event):
                before_it = openings.get(machine, ())
                now = changed(deployments.get(request), event, before_it)
                deployments[request] = now
                if before_it:
                    openings[machine] = unused(before_it, now)
        self._keep_deployments(
            tx, [each for id_, each in deployments.items() if each != before.get(id_)]
        )
        self._keep_openings(
            tx, {name: at for name, at in openings.items() if at != remembered.get(name)}
        )
        return self._roll_up(tx, before, deployments)

    def _deployments(self, tx: Transaction, requests: Sequence[str]) -> dict[str, Deployment]:
        found: dict[str, Deployment] = {}
        for part in _parts(requests):
            rows = tx.fetch(
                "SELECT request_id, machine, item, technician, computer, problem, jobs, ending,"
                " portal_at, accepted_at, scheduled_at, rejected_at, finished_at"
                f" FROM ii_deployment WHERE site = ? AND request_id IN ({markers(len(part))})",
                self._site, *part,
            )  # fmt: skip
            for row in rows:
                request, machine, item, technician, computer, problem, jobs, ending, *times = row
                portal, accepted, scheduled, rejected, finished = map(_maybe_int, times)
                found[request] = Deployment(
                    site=self._site,
                    request_id=request,
                    machine=machine,
                    item=item,
                    technician=technician,
                    computer=computer,
                    problem=problem,
                    jobs=int(jobs),
                    ending=ending,
                    portal_at=portal,
                    accepted_at=accepted,
                    scheduled_at=scheduled,
                    rejected_at=rejected,
                    finished_at=finished,
                )
        return found

    def _keep_deployments(self, tx: Transaction, changed: Sequence[Deployment]) -> None:
        for part in _parts([each.request_id for each in changed]):
            tx.execute(
                "DELETE FROM ii_deployment"
                f" WHERE site = ? AND request_id IN ({markers(len(part))})",
                self._site, *part,
            )  # fmt: skip
        tx.insert("ii_deployment", _DEPLOYMENT, [_deployment_row(each) for each in changed])

    def _openings(self, tx: Transaction, machines: Sequence[str]) -> dict[str, tuple[int, ...]]:
        found = defaultdict[str, list[int]](list)
        for part in _parts(machines):
            rows = tx.fetch(
                "SELECT machine, opened_at FROM ii_opening"
                f" WHERE site = ? AND machine IN ({markers(len(part))})",
                self._site, *part,
            )  # fmt: skip
            for machine, at in rows:
                found[machine].append(int(at))
        return {machine: tuple(sorted(times)) for machine, times in found.items()}

    def _keep_openings(self, tx: Transaction, changed: Mapping[str, tuple[int, ...]]) -> None:
        for part in _parts(sorted(changed)):
            tx.execute(
                f"DELETE FROM ii_opening WHERE site = ? AND machine IN ({markers(len(part))})",
                self._site, *part,
            )  # fmt: skip
        rows = [(self._site, machine, at) for machine, times in changed.items() for at in times]
        tx.insert("ii_opening", ("site", "machine", "opened_at"), rows)

    def _roll_up(
        self,
        tx: Transaction,
        before: Mapping[str, Deployment],
        after: Mapping[str, Deployment],
    ) -> Counts:
        """Moves what the deployments add to the roll-ups; returns by how much these grew in all."""
        growth = defaultdict[Cell, Counts](lambda: NOTHING)
        for deployments, times in ((before, -1), (after, 1)):
            for each in deployments.values():
                cell, counts = contribution(each)
                growth[cell] = growth[cell].plus(counts, times)
        moved = {
            _hash(f"{self._site}\0{cell.day}\0{cell.item}\0{cell.technician}\0{cell.bucket}"): cell
            for cell, counts in growth.items()
            if counts != NOTHING
        }
        sums = dict.fromkeys(moved, NOTHING)
        for part in _parts(list(moved)):
            within = f"rollup_key IN ({markers(len(part))})"
            rows = tx.fetch(
                "SELECT rollup_key, accepted, scheduled, rejected, finished, failed, withdrawn"
                f" FROM ii_rollup WHERE {within}",
                *part,
            )
            sums |= {int(key): Counts(*map(int, counts)) for key, *counts in rows}
            tx.execute(f"DELETE FROM ii_rollup WHERE {within}", *part)
        grown = {key: sums[key].plus(growth[cell]) for key, cell in moved.items()}
        tx.insert(
            "ii_rollup",
            _ROLLUP,
            [
                (key, self._site, *moved[key], *counts)
                for key, counts in grown.items()
                if counts != NOTHING
            ],
        )
        total = NOTHING
        for counts in growth.values():
            total = total.plus(counts)
        return total

    def _count(self, tx: Transaction, kinds: Mapping[str, int], deployments: Counts) -> Totals:
        totals = self._totals(tx)
        growth = {("event", kind): count for kind, count in kinds.items()}
        growth |= {("deployment", n): count for n, count in deployments._asdict().items() if count}
        for (family, name), count in growth.items():
            before = totals.get((family, name))
            totals[family, name] = (before or 0) + count
            if before is None:
                row = (self._site, family, name, count)
                tx.insert("ii_total", ("site", "family", "name", "total"), [row])
            else:
                tx.execute(
                    "UPDATE ii_total SET total = total + ?"
                    " WHERE site = ? AND family = ? AND name = ?",
                    count, self._site, family, name,
                )  # fmt: skip
        return _as_totals(totals)

    def _totals(self, tx: Transaction) -> dict[tuple[str, str], int]:
        rows = tx.fetch("SELECT family, name, total FROM ii_total WHERE site = ?", self._site)
        return {(family, name): int(total) for family, name, total in rows}


async def known_sites(database: Database) -> list[str]:
    """The sites of which a database holds history.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    rows = await database.transact(lambda tx: tx.fetch("SELECT site FROM ii_monitor"))
    return sorted(str(site) for (site,) in rows)


def _as_totals(totals: Mapping[tuple[str, str], int]) -> Totals:
    families: dict[str, dict[str, int]] = {
        "event": {},
        "deployment": dict.fromkeys(Counts._fields, 0),
    }
    for (family, name), total in totals.items():
        families[family][name] = total
    return Totals(families["event"], families["deployment"])


def _deployment_row(each: Deployment) -> Sequence[Value]:
    return (
        each.site, each.request_id, contribution(each)[0].day, each.machine, each.item,
        each.technician, each.computer, each.problem, each.outcome, each.jobs, each.ending,
        each.portal_at, each.accepted_at, each.scheduled_at, each.rejected_at, each.finished_at,
    )  # fmt: skip


def _hash(text: str) -> int:
    """64 bits that stand for a text: of ten million, two share them once in 400,000 histories."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def _maybe_int(value: int | None) -> int | None:
    return None if value is None else int(value)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many values at a time as one statement takes."""
    for start in range(0, len(values), MAX_ROWS):
        yield values[start : start + MAX_ROWS]
