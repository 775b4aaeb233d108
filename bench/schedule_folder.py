"""How long scheduling a folder of 1,000 jobs takes, against the bare insertion of its rows.

The scheduling is all that the scheduler does for one accepted request: locks, the folder tree, the
machine's computer among 1,000 others, the jobs in their order, the rows, the record of the request,
the commit. The bare insertion is one transaction as a plain program would write it: ``executemany``
and a commit. Both have their connection already, with the same settings, and both schedule on
computers that have nothing pending. (PostgreSQL runs without fsync, so that no disk evens them
out.)
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyodbc
import uvloop

from bench.harness import MeasureError, Reach, Rounds, Say, middle, milliseconds, one_figure
from bench.trees import fill
from bus.access import ALL_RIGHTS
from bus.messages import Machine, Request
from bus.options import DEFAULTS
from engine.orders import Order
from engine.tree import Folder, Job
from express.carrying import carry_out
from express.connection import sqlite_dsn
from express.database import Database
from express.layout_cache import LayoutCache
from tests.databases import PostgresServer

_JOB_IDS: Final = range(3_000_000, 3_001_000)
_FOLDER: Final = 900
_COMPUTERS: Final = 1000
_ROUNDS: Final = 15
_INSERT: Final = "INSERT INTO event_schedule (event_id, computer_id, start_time) VALUES (?, ?, ?)"
_BATCH: Final = 500
"""Rows of one statement where the bare insertion takes many at a time."""

Rows = list[tuple[int, int, datetime]]


def _on_sqlite(say: Say) -> float:
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        return _make(sqlite_dsn(Path(scratch) / "express.db"), say)


def _on_postgres(say: Say) -> float:
    with _postgres() as dsn:
        return _make(dsn, say)


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        raise MeasureError("PostgreSQL is not installed (Debian: postgresql)")
    server = PostgresServer()
    try:
        server.start()
        yield server.dsn(server.create())
    finally:
        server.remove()


def _make(dsn: str, say: Say) -> float:
    jobs = [Job(id_, _FOLDER, f"{number}. Step", "") for number, id_ in enumerate(_JOB_IDS, 1)]
    fill(dsn, jobs, [Folder(_FOLDER, 1, "Everything there is (MI)")], sample=True)
    bare = pyodbc.connect(dsn, autocommit=False)
    try:
        return uvloop.run(_compare(dsn, bare, _add_computers(bare), say))
    finally:
        bare.close()


async def _compare(dsn: str, bare: pyodbc.Connection, computers: list[int], say: Say) -> float:
    database = Database(dsn)
    layouts = LayoutCache()
    rounds = Rounds(say, "schedule", "insert", milliseconds)
    against_batches: list[float] = []
    over_pending: list[float] = []
    try:
        for number in range(_ROUNDS + 1):
            scheduled = await _scheduling(database, layouts, number)
            inserted = _inserting(bare, computers[-1 - 2 * number], _row_by_row)
            in_batches = _inserting(bare, computers[-2 - 2 * number], _in_batches)
            again = await _scheduling(database, layouts, number)
            if number:  # The first round warms both sides up.
                rounds.add(scheduled, inserted)
                against_batches.append(scheduled / in_batches)
                over_pending.append(again / inserted)
    finally:
        await database.close()
    say(f"for information, {_BATCH} rows with each INSERT, and {len(_JOB_IDS)} jobs pending:")
    middle(say, "schedule / insert in batches", against_batches)
    middle(say, "schedule over pending jobs / insert", over_pending)
    return rounds.median()


def _add_computers(bare: pyodbc.Connection) -> list[int]:
    """Makes the computers of `_machine`, and tells their ids in order."""
    cursor = bare.cursor()
    names = [f"BENCH-{number:04}" for number in range(_COMPUTERS)]
    cursor.executemany(
        "INSERT INTO computer (group_id, name, status) VALUES (3, ?, 1)", [(n,) for n in names]
    )
    cursor.execute("SELECT computer_id FROM computer WHERE name LIKE 'BENCH-%' ORDER BY name")
    ids = [int(row[0]) for row in cursor.fetchall()]
    machines = [(id_, _machine(number)) for number, id_ in enumerate(ids)]
    cursor.executemany(
        "INSERT INTO hardware (computer_id, serial_num, uuid) VALUES (?, ?, ?)",
        [(id_, machine.serial, machine.uuid) for id_, machine in machines],
    )
    cursor.executemany(
        "INSERT INTO nics (computer_id, mac_addr) VALUES (?, ?)",
        [(id_, mac) for id_, machine in machines for mac in machine.macs],
    )
    bare.commit()
    return ids


def _machine(number: int) -> Machine:
    return Machine(
        uuid=f"6F0C2B5E-31D4-4A7C-9B52-0D6E8A2F{number:04}",
        serial=f"BENCH7GX{number:04}",
        macs=(f"3C5282{number:06}",),
    )


async def _scheduling(database: Database, layouts: LayoutCache, number: int) -> float:
    """Seconds that one request for the whole folder takes.

    Raises:
        MeasureError: not all of its jobs were scheduled.
    """
    request = Request(
        request_id=str(uuid4()),
        site="main",
        machine=_machine(number),
        item_id=f"folder:{_FOLDER}",
        accepted_at=datetime.now(UTC),
        digest="0" * 64,
    )
    order = Order(request, DEFAULTS, ALL_RIGHTS)
    began = time.perf_counter()
    (outcome,) = await database.transact(
        lambda tx: carry_out(tx, layouts.layout, request.site, [order])
    )
    seconds = time.perf_counter() - began
    if isinstance(outcome, Exception):
        raise outcome
    if [job.id for job in outcome.jobs] != list(_JOB_IDS):
        raise MeasureError(f"{len(outcome.jobs)} jobs were scheduled, or not in order")
    return seconds


def _inserting(
    bare: pyodbc.Connection, computer: int, insert: Callable[[pyodbc.Cursor, Rows], None]
) -> float:
    """Seconds that the bare insertion of the same rows takes."""
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    rows = [(id_, computer, start) for id_ in _JOB_IDS]
    began = time.perf_counter()
    insert(bare.cursor(), rows)
    bare.commit()
    return time.perf_counter() - began


def _row_by_row(cursor: pyodbc.Cursor, rows: Rows) -> None:
    cursor.executemany(_INSERT, rows)


def _in_batches(cursor: pyodbc.Cursor, rows: Rows) -> None:
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        cursor.execute(_INSERT + ", (?, ?, ?)" * (len(batch) - 1), *chain.from_iterable(batch))


_ABOUT: Final = "time to schedule a folder of 1,000 jobs / time to insert 1,000 rows"
_REACH: Final = Reach("<=", 1.5)
ON_SQLITE: Final = one_figure("schedule_folder", f"{_ABOUT}, SQLite", _REACH, _on_sqlite)
ON_POSTGRES: Final = one_figure(
    "schedule_folder_postgres", f"{_ABOUT}, PostgreSQL", _REACH, _on_postgres
)
