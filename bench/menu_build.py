"""How long a large menu takes to build, against how long its rows take to come over ODBC.

The building is all that the menu service does between the driver's rows and the bytes of an answer.
The fetching is a bare aioodbc program with the same statements. Both kinds of menu are built; the
figure is that of the slower one.
"""

import gc
import tempfile
import time
from pathlib import Path
from typing import Final

import aioodbc
import pyodbc
import uvloop
from aioodbc.cursor import Cursor

from bench.harness import Figure, MeasureError, Reach, Rounds, Say, middle, milliseconds
from bench.trees import fill, large_tree
from bus.contract import SHOW
from bus.messages import MenuType
from express.database import sqlite_dsn
from express.jobs import FOLDERS, JOBS, _folder, _job
from services.menu.keeper import Rules, _build

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
    connection = await aioodbc.connect(dsn=dsn)
    try:
        cursor = await connection.cursor()
        rounds = {kind: Rounds(say, f"build {kind}", "fetch", milliseconds) for kind in _KINDS}
        size = 0
        for number in range(_ROUNDS + 1):
            for kind in _KINDS:
                gc.collect()
                began = time.perf_counter()
                rows = await _fetch(cursor)
                fetched = time.perf_counter() - began
                began = time.perf_counter()
                answer = _built(rows, kind)
                built = time.perf_counter() - began
                del rows
                if number:  # The first time warms up the database's pages and the code.
                    rounds[kind].add(built, fetched)
                else:
                    entries = SHOW.answered_decoder.decode(answer).entries
                    size += len(entries)
                    say(f"menu {kind}: {len(entries):,} entries at its top, {len(answer):,} bytes")
        if not size:
            raise MeasureError("the menus are empty")
    finally:
        await connection.close()
    slowest = max(rounds[kind].median() for kind in _KINDS)
    for kind in _KINDS:
        both = [ratio + 1 for ratio in rounds[kind].ratios]
        middle(say, f"fetch and build {kind} / fetch (information)", both)
    return slowest


async def _fetch(cursor: Cursor) -> DriverRows:
    await cursor.execute(JOBS)
    jobs = await cursor.fetchall()
    await cursor.execute(FOLDERS)
    return jobs, await cursor.fetchall()


def _built(rows: DriverRows, kind: MenuType) -> bytes:
    jobs, folders = rows
    of_tree = list(map(_job, jobs)), list(map(_folder, folders))
    return _build(of_tree, Rules(tag="(MI)", root_folder=None, menu_type=kind)).fresh


FIGURE: Final = Figure(
    name="menu_build",
    about="time to build the menu of 100,000 jobs / time to fetch their rows over ODBC",
    reach=Reach("<=", 1.5),
    make=_make,
)
