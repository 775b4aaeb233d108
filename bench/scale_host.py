"""`python -m bench.scale_host SERVER FOLDER FIRST COUNT`: services of many sites in one process.

Each site has what it always has: one copy of each of the four services, each with a connection to
the bus of its own, on databases of its own (SQLite files below FOLDER). Only the processes are
fewer: one interpreter with its libraries stands for those of all these sites.

It says `ready` on standard output when all of them serve, and leaves when standard input ends.
"""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Final

import uvloop

from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from services import logs
from services.auth.program import program as auth
from services.menu.program import program as menu
from services.monitor.program import program as monitor
from services.scheduler.program import program as scheduler
from tests.site import running

_STARTING: Final = 4
"""Sites that start at a time."""


def site_name(number: int) -> str:
    """The name of the site of this number, from 1 on."""
    return f"site-{number:04}"


async def sample(folder: Path) -> Path:
    """A database with the sample job tree, to be copied for each site."""
    file = folder / "sample.db"
    database = Database(sqlite_dsn(file), create=True)
    try:
        await create_embedded(database, sample=True)
    finally:
        await database.close()
    return file


async def _serve(server: str, folder: Path, numbers: range) -> None:
    told = asyncio.Event()
    starting = asyncio.Semaphore(_STARTING)
    serving = asyncio.Semaphore(0)

    async def one(number: int) -> None:
        name = site_name(number)
        own = folder / name
        own.mkdir()
        shutil.copy(folder / "sample.db", own / "express.db")
        express, history = (sqlite_dsn(own / file) for file in ("express.db", "history.db"))
        programs = (menu(express), auth, scheduler(express), monitor(express, history))
        await starting.acquire()
        async with running(server, name, *programs):
            starting.release()
            serving.release()
            await told.wait()

    async with asyncio.TaskGroup() as sites:
        for number in numbers:
            sites.create_task(one(number))
        for _ in numbers:
            await serving.acquire()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        told.set()


if __name__ == "__main__":
    logs.configure("sites")
    first, count = int(sys.argv[3]), int(sys.argv[4])
    uvloop.run(_serve(sys.argv[1], Path(sys.argv[2]), range(first, first + count)))
