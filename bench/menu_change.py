"""How long a change in the database takes until a menu shows it, while many ask all the time.

The site as `imageinvoker up` runs it, on the tree of `menu_build`. Jobs are renamed one after the
other, each at another moment of the menu's second; the clock runs from the commit to the first
answer that shows the new name. The figure is the longest time.
"""

import asyncio
import functools
import random
import time
from typing import Final

import nats
import pyodbc
import uvloop
from nats.aio.client import Client

from bench.harness import MeasureError, Reach, Say, milliseconds, one_figure, share
from bench.site import MACHINE, Site, running_site
from bench.trees import fill, large_tree
from bus import contract, subjects
from bus.machines import machine_key
from bus.messages import ShowMenu, encode
from express.connection import sqlite_dsn

_CLIENTS: Final = 64
_CHANGES: Final = 30
_TIMEOUT: Final = 10.0
_APART: Final = (0.1, 1.2)
"""Seconds from a change that is shown to the next."""


def _make(say: Say) -> float:
    jobs, folders = large_tree()
    job = next(job.id for job in jobs if "(MI)" in job.name and job.name.strip() != "(MI)")
    with running_site(functools.partial(fill, jobs=jobs, folders=folders)) as site:
        say(f"{len(jobs):,} jobs in {len(folders):,} folders, {_CLIENTS} clients")
        return uvloop.run(_measure(site, job, say))


async def _measure(site: Site, job: int, say: Say) -> float:
    connection = await nats.connect(site.url)
    database = pyodbc.connect(sqlite_dsn(site.folder / "site" / "express.db"), autocommit=True)
    watch = _Watch(connection, site)
    asking = [asyncio.create_task(watch.ask()) for _ in range(_CLIENTS)]
    took: list[float] = []
    try:
        for number in range(_CHANGES):
            await asyncio.sleep(random.uniform(*_APART))
            title = f"Change {number:04} of this bench"
            shown = watch.wait_for(title)
            await asyncio.to_thread(_rename, database, job, title)
            committed = time.perf_counter()
            took.append(await asyncio.wait_for(shown, _TIMEOUT) - committed)
    finally:
        watch.over = True
        ended = await asyncio.gather(*asking, return_exceptions=True)
        database.close()
        await connection.close()
    if failed := [each for each in ended if isinstance(each, Exception)]:
        raise MeasureError(f"an answer failed: {failed[0]!r}")
    say(f"{watch.answers:,} answers meanwhile, the longest took {milliseconds(watch.longest)}")
    p50, p90 = share(took, 0.5), share(took, 0.9)
    say(f"{_CHANGES} changes: p50 {milliseconds(p50)}, p90 {milliseconds(p90)}, "
        f"longest {milliseconds(max(took))}")  # fmt: skip
    return max(took)


def _rename(database: pyodbc.Connection, job: int, title: str) -> None:
    database.execute(
        "UPDATE event SET name = ?, description = NULL WHERE event_id = ?", f"{title} (MI)", job
    )


class _Watch:
    """Clients that ask for menus, and look for a title in each."""

    def __init__(self, connection: Client, site: Site) -> None:
        key = machine_key(MACHINE)
        self._connection = connection
        self._subject = subjects.endpoint(site.name, "menu", contract.SHOW.verb, key)
        self._question = encode(ShowMenu(machine=MACHINE))
        self._title = b"?"
        self._shown: asyncio.Future[float] | None = None
        self.over = False
        self.answers = 0
        self.longest = 0.0

    def wait_for(self, title: str) -> "asyncio.Future[float]":
        """Comes true with the moment of the first answer with this title."""
        self._title = title.encode()
        self._shown = asyncio.get_running_loop().create_future()
        return self._shown

    async def ask(self) -> None:
        """Asks until it is over."""
        while not self.over:
            began = time.perf_counter()
            answer = await self._connection.request(self._subject, self._question, timeout=_TIMEOUT)
            now = time.perf_counter()
            self.answers += 1
            self.longest = max(self.longest, now - began)
            if self._shown and not self._shown.done() and self._title in answer.data:
                self._shown.set_result(now)


RUN: Final = one_figure(
    name="menu_change",
    about=f"seconds from a change in the database of 100,000 jobs to the next menu that shows it, "
    f"{_CLIENTS} clients asking all the time: the longest of {_CHANGES}",
    reach=Reach("<=", 1),
    make=_make,
)
