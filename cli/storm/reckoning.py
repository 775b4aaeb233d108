"""Did every machine get its jobs exactly once? What the machines were told, against the database.

The database is read in batches: a few queries for a thousand machines, and what is remembered of
each machine is a few bytes.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final, Literal

from msgspec import Struct

from bus.machines import machine_key
from bus.messages import Outcome, decoder
from bus.options import Options
from cli.storm.ledger import Ledger
from cli.storm.machines import Fleet, RequestIds, number_of
from engine.tree import JobTree
from express.database import MAX_ROWS, Database, Transaction, markers
from express.jobs import read_folders, read_jobs, read_jobs_in
from express.schema import read_layout

MOST_FINDINGS: Final = 20
"""Machines of which is told what is wrong; all of them are counted."""

_LAST_ROW: Final = "SELECT MAX(schedule_id) FROM event_schedule"
_RECORDS: Final = "SELECT COUNT(*) FROM ii_request WHERE machine >= ? AND machine <= ?"
_DONE: Final = (
    "SELECT request_id, machine, outcome FROM ii_request WHERE request_id >= ? AND request_id <= ?"
)

_COUNT_DONE: Final = "SELECT COUNT(*) FROM ii_request WHERE request_id >= ? AND request_id <= ?"

_STILL: Final = 3.0
"""Seconds without a change after which nothing is expected to be carried out any more."""
_SETTLES_WITHIN: Final = 60.0
_LOOK: Final = 0.3

Wrong = Literal["lost", "doubled", "unasked", "disordered", "contradicted"]

_outcome = decoder(Outcome)


class Done(Struct, frozen=True):
    """What the database says was done for a request: on which machine, and what."""

    machine: str
    outcome: Outcome


class Batch(Struct, frozen=True):
    """What the database says of some machines.

    ``done`` is by number, ``named`` has the computers of each name in lower case, ``jobs`` those
    that were scheduled for each computer since before the storm, in their order.
    """

    done: Mapping[int, Done]
    named: Mapping[str, Sequence[int]]
    jobs: Mapping[int, Sequence[int]]


class Before(Struct, frozen=True):
    """How the database was before the storm: the last row, and the storm's machines' requests."""

    last_row: int | None
    records: int


class Verdict(Struct, frozen=True, kw_only=True):
    """What came of a storm.

    ``lost`` and ``doubled`` count things: a job that is missing or there twice, an accepted request
    without an end, a second computer of one machine. ``unasked`` counts machines with jobs or a
    computer that they did not ask for, ``disordered`` those with their jobs in another order than
    the item's, ``contradicted`` those that were told something else than what is so.
    """

    with_database: bool
    lost: int = 0
    doubled: int = 0
    unasked: int = 0
    disordered: int = 0
    contradicted: int = 0
    unread: str = ""
    """Why the database could not be read in the end, so that only what was told is known."""
    findings: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.lost + self.doubled + self.unasked + self.disordered + self.contradicted
        return not wrong and not self.unread


class Findings:
    """What is wrong, counted; the first of it in words."""

    def __init__(self) -> None:
        self._counts: Counter[Wrong] = Counter()
        self._texts: list[str] = []

    def add(self, wrong: Wrong, text: str, count: int = 1) -> None:
        """So much of something is wrong; nothing, if ``count`` is 0."""
        self._counts[wrong] += count
        if count and len(self._texts) < MOST_FINDINGS:
            self._texts.append(text)

    def verdict(self, *, with_database: bool) -> Verdict:
        """All of it."""
        counts = self._counts
        return Verdict(
            with_database=with_database,
            lost=counts["lost"],
            doubled=counts["doubled"],
            unasked=counts["unasked"],
            disordered=counts["disordered"],
            contradicted=counts["contradicted"],
            findings=tuple(self._texts),
        )


def as_told(ledger: Ledger) -> Verdict:
    """What can be known from the machines alone."""
    findings = Findings()
    lost = ledger.count("accepted")
    findings.add("lost", f"{lost} requests were accepted and have no end", lost)
    shared = ledger.shared_computers()
    findings.add("doubled", f"{shared} machines were told the computer of another one", shared)
    _add_odd(findings, ledger)
    return findings.verdict(with_database=False)


def _add_odd(findings: Findings, ledger: Ledger) -> None:
    for what, count in ledger.odd.items():
        findings.add("contradicted", f"{count} machines were told {what}", count)


class Reckoner:
    """Goes through the machines, batch by batch. Pure."""

    def __init__(
        self, ledger: Ledger, fleet: Fleet, item_jobs: Sequence[int], *, known: bool, ordered: bool
    ) -> None:
        """``known`` machines had their computers before; ``ordered`` says that rows have ids."""
        self.findings = Findings()
        self._ledger = ledger
        self._fleet = fleet
        self._jobs = list(item_jobs)
        self._known = known
        self._ordered = ordered
        self._owner: dict[int, int] = {}

    def judge(self, numbers: Sequence[int], batch: Batch) -> None:
        """Looks at some machines."""
        for number in numbers:
            self._judge(number, batch)

    def _judge(self, number: int, batch: Batch) -> None:
        done = batch.done.get(number)
        told = self._ledger.told(number)
        name = self._fleet.name(number)
        named = [] if self._known else list(batch.named.get(name.lower(), ()))
        computer = done.outcome.computer if done else None
        own = None if computer is None else computer.id
        if own is None:
            # What was accepted may have been rejected later, which is an end.
            if told == "scheduled" or (told == "accepted" and done is None):
                self._wrong("lost", number, f"was told {told!r}, and nothing was done")
            surplus = sum(len(batch.jobs.get(each, ())) for each in named)
            if named:
                self._wrong("unasked", number, f"has a computer and {surplus} jobs")
            return
        if told in {"nothing", "rejected"}:
            self._wrong("unasked", number, f"has jobs, and was told {told!r}")
        if done and done.machine != machine_key(self._fleet.machine(number)):
            self._wrong("contradicted", number, f"has its jobs as machine {done.machine}")
        if told == "scheduled" and self._ledger.computer(number) != own:
            self._wrong("contradicted", number, f"was told another computer than {own}")
        others = [each for each in named if each != own]
        if others:
            self._wrong("doubled", number, f"has {len(others)} computers more", len(others))
        if self._owner.setdefault(own, number) != number:
            self._wrong("doubled", number, f"has the computer of machine {self._owner[own]}")
            return
        self._compare(number, [job for each in (own, *others) for job in batch.jobs.get(each, ())])

    def _compare(self, number: int, there: list[int]) -> None:
        missing = Counter(self._jobs) - Counter(there)
        surplus = Counter(there) - Counter(self._jobs)
        if missing:
            self._wrong("lost", number, f"lacks jobs {_listed(missing)}", missing.total())
        if surplus:
            text = f"has jobs too many: {_listed(surplus)}"
            self._wrong("doubled", number, text, surplus.total())
        if self._ordered and not missing and not surplus and there != self._jobs:
            self._wrong("disordered", number, "has its jobs in another order")

    def _wrong(self, wrong: Wrong, number: int, text: str, count: int = 1) -> None:
        self.findings.add(wrong, f"{self._fleet.name(number)} {text}", count)


def _listed(jobs: Counter[int]) -> str:
    shown = ", ".join(str(job) for job in sorted(jobs.elements())[:5])
    return shown + (" ..." if jobs.total() > 5 else "")


async def before(database: Database, fleet: Fleet, machines: int) -> Before:
    """How the database is before a storm of so many machines."""

    def read(tx: Transaction) -> Before:
        layout = read_layout(tx)
        last = tx.fetch(_LAST_ROW)[0][0] if layout.numbered else None
        return Before(int(last or 0) if layout.numbered else None, _records(tx, fleet, machines))

    return await database.transact(read)


async def settled(database: Database, ledger: Ledger, ids: RequestIds) -> None:
    """Returns when nothing is carried out any more of what the end of the storm cut off."""
    left = ledger.count("asked") + ledger.count("accepted")
    first, last = ids.of(1), ids.of(ledger.machines)
    done, since = -1, time.monotonic()
    until = since + _SETTLES_WITHIN
    while left and since + _STILL > time.monotonic() < until:
        now = await database.transact(lambda tx: int(tx.fetch(_COUNT_DONE, first, last)[0][0]))
        if now != done:
            done, since = now, time.monotonic()
        await asyncio.sleep(_LOOK)


async def reckon(
    database: Database,
    ledger: Ledger,
    fleet: Fleet,
    ids: RequestIds,
    then: Before,
    item_jobs: Sequence[int],
    *,
    known: bool,
) -> Verdict:
    """What the database says, against what the machines were told.

    ``item_jobs`` are in their order; ``known`` machines had their computers before.
    """
    reckoner = Reckoner(ledger, fleet, item_jobs, known=known, ordered=then.last_row is not None)
    found = 0
    for numbers in ledger.batches(MAX_ROWS):
        ask = _Question(
            ids.of(numbers[0]),
            ids.of(numbers[-1]),
            () if known else tuple(map(fleet.name, numbers)),
            then.last_row,
        )
        batch = await database.transact(partial(_batch, ask))
        found += len(batch.done)
        reckoner.judge(numbers, batch)
    now = await database.transact(lambda tx: _records(tx, fleet, ledger.machines))
    more = now - then.records - found
    text = f"{more} requests of these machines have ids that none of them sent"
    reckoner.findings.add("unasked", text, more)
    _add_odd(reckoner.findings, ledger)
    return reckoner.findings.verdict(with_database=True)


def jobs_of(tx: Transaction, options: Options, item_id: str) -> list[int]:
    """The jobs of an item as they stand in the database now, in their order; none of no item."""
    folders = read_folders(tx)
    needed = JobTree((), folders, options.tag, options.root_folder).needed(item_id)
    if needed is None:
        return []
    jobs = read_jobs(tx, needed.job_ids)
    jobs += read_jobs_in(tx, needed.folder_ids)
    tree = JobTree(jobs, folders, options.tag, options.root_folder)
    return [job.id for job in tree.jobs_of(item_id) or ()]


def _records(tx: Transaction, fleet: Fleet, machines: int) -> int:
    ends = (machine_key(fleet.machine(number)) for number in (0, machines))
    return int(tx.fetch(_RECORDS, *ends)[0][0])


class _Question(Struct, frozen=True):
    """Which machines are asked for: the first and the last request, and their names."""

    first: str
    last: str
    names: tuple[str, ...]
    last_row: int | None


def _batch(ask: _Question, tx: Transaction) -> Batch:
    done = {
        number_of(str(request_id)): Done(str(machine), _outcome.decode(outcome))
        for request_id, machine, outcome in tx.fetch(_DONE, ask.first, ask.last)
    }
    named: dict[str, list[int]] = defaultdict(list)
    if ask.names:
        statement = (
            "SELECT computer_id, name FROM computer WHERE group_id IS NOT NULL"
            f" AND LOWER(name) IN ({markers(len(ask.names))})"
        )
        for computer, name in tx.fetch(statement, *(name.lower() for name in ask.names)):
            named[str(name).lower()].append(int(computer))
    computers = {each.outcome.computer.id for each in done.values() if each.outcome.computer}
    computers.update(each for ids in named.values() for each in ids)
    return Batch(done, named, _jobs(tx, computers, ask.last_row))


def _jobs(
    tx: Transaction, computers: Collection[int], last_row: int | None
) -> dict[int, list[int]]:
    jobs: dict[int, list[int]] = defaultdict(list)
    unique = sorted(computers)
    # Without ids of rows, what is pending is all that may be the storm's.
    new, order = ("status_code IS NULL", "")
    bound: tuple[int, ...] = ()
    if last_row is not None:
        new, order, bound = "schedule_id > ?", " ORDER BY schedule_id", (last_row,)
    for start in range(0, len(unique), MAX_ROWS):
        some = unique[start : start + MAX_ROWS]
        statement = (
            "SELECT computer_id, event_id FROM event_schedule"
            f" WHERE computer_id IN ({markers(len(some))}) AND {new}{order}"
        )
        for computer, job in tx.fetch(statement, *some, *bound):
            jobs[int(computer)].append(int(job))
    return jobs
