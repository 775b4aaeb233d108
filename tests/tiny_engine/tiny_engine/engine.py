"""The engine `tiny`: jobs, computers and what is scheduled stand in one SQLite file.

Its address is the file's path. Each call is a transaction on a connection of its own, in a thread,
and whoever writes is the only one: so nothing here needs a lock.
"""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bus import machines
from bus.machines import Identity
from bus.messages import ComputerRef, JobRef, Machine, Outcome, Request, Schedule
from bus.problems import Problem
from engine.errors import EngineUnavailable
from engine.matching import Candidate, which
from engine.menu_rows import MenuRows, Wanted, menu_rows
from engine.orders import (
    Offer,
    Order,
    Plan,
    Possible,
    Record,
    Wish,
    free,
    outcome_of,
    plan,
    record_of,
    rejected,
    scheduled,
)
from engine.progress import JobRow, Scheduled, Standing, scheduled_by, standing, standings
from engine.protocol import Engine, Observer
from engine.tree import Folder, Job

SCHEMA: Final = """
CREATE TABLE folder (id INTEGER PRIMARY KEY, parent INTEGER, name TEXT NOT NULL);
CREATE TABLE job (id INTEGER PRIMARY KEY, folder INTEGER, name TEXT NOT NULL, about TEXT NOT NULL);
CREATE TABLE computer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, machine TEXT NOT NULL);
CREATE TABLE scheduled (id INTEGER PRIMARY KEY AUTOINCREMENT, computer INTEGER NOT NULL,
    job INTEGER NOT NULL, start_at TEXT, status INTEGER);
CREATE TABLE record (id TEXT PRIMARY KEY, site TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL);
"""
_WAIT: Final = 5.0
"""Seconds to wait for another writer."""

_T = TypeVar("_T")
_machine = msgspec.json.Decoder(Machine)
_record = msgspec.json.Decoder(Record)


def open_engine(address: str, site: str, observe: Observer) -> Engine:
    """The engine of the file at ``address``."""
    return TinyEngine(Path(address), site, observe)


class TinyEngine:
    """What `engine.protocol.Engine` says, by one SQLite file."""

    shares_marks = True

    def __init__(self, file: Path, site: str, observe: Observer) -> None:
        self._file = file
        self._site = site
        self._observe = observe
        self._under_way: set[asyncio.Task[object]] = set()
        self._closed = False

    async def mark(self) -> str:
        """A digest of all jobs and folders."""
        found = await self._do(lambda db: (_jobs(db), _folders(db)))
        return hashlib.sha256(msgspec.json.encode(found)).hexdigest()

    async def menu_rows(self, wanted: Wanted) -> MenuRows:
        """What a menu is made of."""
        return await self._do(lambda db: menu_rows(_jobs(db), _folders(db), wanted))

    async def find(self, identity: Identity) -> ComputerRef | None:
        """The computer that a machine is."""
        found = await self._do(lambda db: which(identity, _computers(db)))
        if isinstance(found, Problem):
            raise found
        return found

    async def judge(self, order: Order[Schedule]) -> Record | Possible:
        """What was done for a request, or that it can be carried out."""

        def work(db: sqlite3.Connection) -> Record | Possible:
            return _recorded(db, order.wish.request_id) or Possible(self._plan(db, order).title)

        return await self._do(work)

    async def carry_out(self, order: Order[Request]) -> Outcome:
        """What has become of a request."""
        return await self._do(lambda db: self._carry_out(db, order))

    async def reject(self, request: Request, problem: Problem) -> Outcome:
        """What has become of a request that cannot be carried out."""

        def work(db: sqlite3.Connection) -> Outcome:
            if record := _recorded(db, request.request_id):
                return outcome_of(record)
            return _keep(db, request, rejected(request, problem))

        return await self._do(work)

    async def record(self, request_id: str) -> Record | None:
        """What was done for a request."""
        return await self._do(lambda db: _recorded(db, request_id))

    async def forget(self, before: datetime) -> None:
        """Removes the site's old records."""
        statement = "DELETE FROM record WHERE site = ? AND at < ?"
        values = (self._site, before.timestamp())
        await self._do(lambda db: db.execute(statement, values).rowcount)

    async def ranges(self, ranges: Sequence[tuple[int, int]]) -> list[Standing]:
        """How all rows stand, range by range."""
        rows = await self._do(lambda db: _rows(db, 0))
        return [standing(row for row in rows if first <= row.id <= last) for first, last in ranges]

    async def standings(self, computer_ids: Collection[int], first_row: int) -> dict[int, Standing]:
        """How the rows of computers stand."""
        return standings(await self.rows(computer_ids, first_row))

    async def rows(self, computer_ids: Collection[int], first_row: int) -> list[JobRow]:
        """The rows of computers."""
        rows = await self._do(lambda db: _rows(db, first_row))
        return [row for row in rows if row.computer_id in computer_ids]

    async def scheduled(self, since: datetime) -> list[Scheduled]:
        """Which rows requests got."""
        statement = "SELECT body FROM record WHERE at >= ?"
        bodies = await self._do(lambda db: db.execute(statement, (since.timestamp(),)).fetchall())
        return scheduled_by(outcome_of(_record.decode(body)) for (body,) in bodies)

    async def sign_of_life(self) -> None:
        """Returns if the file is there."""
        await self._do(_folders)

    async def close(self) -> None:
        """Breaks off what is under way; its threads end by themselves."""
        self._closed = True
        for task in list(self._under_way):
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _plan(self, db: sqlite3.Connection, order: Order[Wish]) -> Plan:
        known = machines.identity(order.wish.machine, order.options.shared)
        computers = _computers(db)
        offer = Offer([order], _folders(db), _jobs(db))
        made = plan(order, self._site, known, which(known, computers), offer)
        owners = [
            ComputerRef(id=each.id, name=each.name)
            for each in computers
            if each.name.casefold() == made.name.casefold()
        ]
        allowed = free(made, owners)
        if isinstance(allowed, Problem):
            raise allowed
        return allowed

    def _carry_out(self, db: sqlite3.Connection, order: Order[Request]) -> Outcome:
        request = order.wish
        if record := _recorded(db, request.request_id):
            return outcome_of(record)
        made = self._plan(db, order)
        computer = made.computer.id if made.computer else None
        if computer is None:
            machine = msgspec.json.encode(request.machine).decode()
            statement = "INSERT INTO computer (name, machine) VALUES (?, ?)"
            computer = db.execute(statement, (made.name, machine)).lastrowid or 0
        elif made.new_name:
            db.execute("UPDATE computer SET name = ? WHERE id = ?", (made.name, computer))
        pending = "DELETE FROM scheduled WHERE computer = ? AND status IS NULL"
        replaced = db.execute(pending, (computer,)).rowcount
        start_at = request.start_at.isoformat() if request.start_at else None
        rows = [
            db.execute(
                "INSERT INTO scheduled (computer, job, start_at) VALUES (?, ?, ?)",
                (computer, job.id, start_at),
            ).lastrowid
            or 0
            for job in made.jobs
        ]
        outcome = scheduled(request, made, computer, replaced, (rows[0], rows[-1]))
        return _keep(db, request, outcome)

    async def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._closed:
            raise EngineUnavailable("it is closed")
        began = time.perf_counter()
        well = False
        doing = asyncio.create_task(asyncio.to_thread(self._transact, work))
        self._under_way.add(doing)
        doing.add_done_callback(self._under_way.discard)
        try:
            result = await doing
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise EngineUnavailable("it was broken off") from None
        else:
            well = True
            return result
        finally:
            self._observe("statement", time.perf_counter() - began, well)

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            address = f"{self._file.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, uri=True, timeout=_WAIT)) as db:
                db.isolation_level = None
                db.execute("BEGIN IMMEDIATE")
                # Whatever is raised rolls back: a connection that closes commits nothing.
                result = work(db)
                db.execute("COMMIT")
                return result
        except sqlite3.OperationalError as error:
            raise EngineUnavailable(str(error)) from error


def _jobs(db: sqlite3.Connection) -> list[Job]:
    return [Job(*row) for row in db.execute("SELECT id, folder, name, about FROM job ORDER BY id")]


def _folders(db: sqlite3.Connection) -> list[Folder]:
    return [Folder(*row) for row in db.execute("SELECT id, parent, name FROM folder ORDER BY id")]


def _computers(db: sqlite3.Connection) -> list[Candidate]:
    found = db.execute("SELECT id, name, machine FROM computer").fetchall()
    return [
        Candidate(id=id_, name=name, identity=machines.identity(_machine.decode(machine)))
        for id_, name, machine in found
    ]


def _rows(db: sqlite3.Connection, first: int) -> list[JobRow]:
    statement = (
        "SELECT s.id, s.computer, s.job, COALESCE(j.name, CAST(s.job AS TEXT)), s.status"
        " FROM scheduled s LEFT JOIN job j ON j.id = s.job WHERE s.id >= ? ORDER BY s.id"
    )
    return [
        JobRow(id_, computer, JobRef(id=job, name=name), status)
        for id_, computer, job, name, status in db.execute(statement, (first,))
    ]


def _recorded(db: sqlite3.Connection, request_id: str) -> Record | None:
    found = db.execute("SELECT body FROM record WHERE id = ?", (request_id,)).fetchone()
    return _record.decode(found[0]) if found else None


def _keep(db: sqlite3.Connection, request: Request, outcome: Outcome) -> Outcome:
    record = record_of(request, outcome)
    values = (record.request_id, record.site, record.created_at.timestamp())
    body = msgspec.json.encode(record).decode()
    db.execute("INSERT INTO record (id, site, at, body) VALUES (?, ?, ?, ?)", (*values, body))
    return outcome
