"""How long a large menu takes to build, against how long its rows take to come over ODBC.

The building is all that the menu service does from the database to the bytes of an answer, its own
reading included. The fetching is a bare pyodbc program that reads both tables in a thread beside
the event loop, as the service does. Both kinds of menu are built; the figure is that of the slower
one.
"""

import asyncio
import gc
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import pyodbc
import uvloop

from bench.harness import MeasureError, Reach, Rounds, Say, middle, milliseconds, one_figure
from bench.trees import fill, large_tree
from bus.access import ALL_RIGHTS
from bus.contract import SHOW
from bus.messages import MenuType
from express.connection import sqlite_dsn
from express.database import Database
from express.jobs import read_menu_rows
from services.menu.edition import Edition, Rules

_ROUNDS: Final = 21
_KINDS: Final[tuple[MenuType, ...]] = ("flat", "folders")

DriverRows = tuple[list[pyodbc.Row], list[pyodbc.Row]]


def _make(say: Say) -> float:
    jobs, folders = large_tree()
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        dsn = sqlite_dsn(Path(scratch) / "express.db")
        fill(dsn, jobs, folders)
        say(f"{len(jobs):,} jobs in {len(folders):,} folders")
        del jobs, folders
        return uvloop.run(_compare(dsn, say))


async def _compare(dsn: str, say: Say) -> float:
    connection = pyodbc.connect(dsn)
    database = Database(dsn)
    try:
        cursor = connection.cursor()
        rounds = {kind: Rounds(say, f"build {kind}", "fetch", milliseconds) for kind in _KINDS}
        alone: dict[MenuType, list[float]] = {kind: [] for kind in _KINDS}
        for number in range(_ROUNDS + 1):
            for kind in _KINDS:
                gc.collect()
                began = time.perf_counter()
                await asyncio.to_thread(_fetch, cursor)
                fetched = time.perf_counter() - began
                rules = Rules(tag="(MI)", root_folder=None, menu_type=kind)
                began = time.perf_counter()
                rows = await database.transact(partial(read_menu_rows, tag=rules.tag))
                read = time.perf_counter() - began
                answer = Edition(rows, rules).build(ALL_RIGHTS).whole or b""
                built = time.perf_counter() - began
                if number:  # The first time warms up the database's pages and the code.
                    rounds[kind].add(built, fetched)
                    alone[kind].append((built - read) / fetched)
                    continue
                entries = SHOW.answered_decoder.decode(answer).entries
                say(f"menu {kind}: {len(entries):,} entries at its top, {len(answer):,} bytes")
                if not entries:
                    raise MeasureError("the menu is empty")
    finally:
        connection.close()
        await database.close()
    slowest = max(rounds[kind].median() for kind in _KINDS)
    for kind in _KINDS:
        middle(say, f"build {kind} without its reading / fetch (information)", alone[kind])
    return slowest


def _fetch(cursor: pyodbc.Cursor) -> DriverRows:
    jobs = cursor.execute("SELECT event_id, folder_id, name, description FROM event").fetchall()
    folders = cursor.execute("SELECT folder_id, parent_id, name FROM event_folder").fetchall()
    return jobs, folders


RUN: Final = one_figure(
    name="menu_build",
    about="time to read and build the menu of 100,000 jobs / time to fetch their rows over ODBC",
    reach=Reach("<=", 1.2),
    make=_make,
)
