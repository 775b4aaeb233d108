"""How long a change in the deployment server's database takes until a menu shows it.

A menu item of the probe's own is made, given another name time and again, and removed: nobody
else's job is ever touched.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pyodbc

from bus.connection import BusUnavailableError
from bus.messages import Machine
from bus.options import Options
from bus.problems import RETRIABLE, Problem
from bus.waiting import end
from cli.fail import CommandError
from cli.storm.journeys import Errand
from cli.storm.results import Probed
from cli.storm.tally import Histogram
from client.items import every_item
from client.journey import NEEDS_LOGIN, Journey
from engine.tree import JobTree
from express.database import Database, Transaction, Value, WriteConflict
from express.jobs import read_folders

_EVERY: Final = 1.0
"""Seconds between the sight of a change and the next change."""
_LOOK: Final = 0.02
"""Seconds between two looks at the menu."""
_PATIENCE: Final = 10.0
"""Seconds after which a change counts as never seen."""

_REMOVALS: Final = 5
"""Tries to remove the job, a second apart."""

_FILLED: Final = {"event_id", "folder_id", "name"}
_LAST: Final = "SELECT MAX(event_id) FROM event"
_FIND: Final = "SELECT event_id FROM event WHERE name = ?"
_RENAME: Final = "UPDATE event SET name = ? WHERE event_id = ? AND name LIKE ?"
_REMOVE: Final = "DELETE FROM event WHERE event_id = ? AND name LIKE ?"


class Probe:
    """A job that is given another name again and again, and how long each took to be seen."""

    def __init__(
        self, database: Database, errand: Errand, machine: Machine, options: Options
    ) -> None:
        self._database = database
        self._errand = errand
        self._options = options
        self._journey = Journey(
            errand.server, errand.site, machine, lambda _notice: None, errand.door
        )
        self._token: str | None = None
        self._seen = Histogram()
        self._unseen = 0
        self._mark = secrets.token_hex(4)
        self._changes = 0
        self._job = 0
        self._left: int | None = None

    def probed(self) -> Probed:
        """What was found."""
        return Probed(
            count=self._seen.count,
            unseen=self._unseen,
            p50=self._seen.percentile(0.5),
            max=self._seen.max,
            left=self._left,
        )

    async def make(self) -> None:
        """Makes the job.

        Raises:
            CommandError: none can be made in this database.
        """
        try:
            self._job = self._left = await self._database.transact(self._make)
        except (pyodbc.Error, WriteConflict) as error:
            raise CommandError(f"--probe cannot make a job in this database: {error}") from error

    async def go_on(self) -> None:
        """Changes the job's name and waits until it is seen, for ever.

        A change that the database or the site refuses at the moment is none that counts.
        """
        while True:
            with contextlib.suppress(WriteConflict, pyodbc.Error, Problem, BusUnavailableError):
                await self._change()
            await asyncio.sleep(_EVERY)

    async def remove(self) -> None:
        """Removes the job, or keeps in mind that it is left; leaves."""
        await self._journey.close()
        for _ in range(_REMOVALS):
            with contextlib.suppress(WriteConflict, Problem, pyodbc.Error):
                if await self._database.transact(self._removed):
                    self._left = None
                    return
            await asyncio.sleep(_EVERY)

    def _removed(self, tx: Transaction) -> bool:
        return bool(tx.execute(_REMOVE, self._job, self._pattern()))

    def _pattern(self) -> str:
        """What the job's name is like, whatever change was the last to reach the database."""
        return f"Storm probe {self._mark} %"

    def _name(self) -> str:
        return f"Storm probe {self._mark} {self._changes} {self._options.tag}"

    def _make(self, tx: Transaction) -> int:
        columns = tx.columns("event")
        unknown = [each.name for each in columns if each.required and each.name not in _FILLED]
        if unknown:
            raise CommandError(
                f"--probe does not know what to put into event.{', event.'.join(unknown)}."
            )
        top = JobTree((), read_folders(tx), self._options.tag, self._options.root_folder).top
        row: dict[str, Value] = {"folder_id": top, "name": self._name()}
        if not any(each.name == "event_id" and each.generated for each in columns):
            row["event_id"] = int(tx.fetch(_LAST)[0][0] or 0) + 1
        tx.insert("event", list(row), [list(row.values())])
        return int(tx.fetch(_FIND, self._name())[0][0])

    async def _change(self) -> None:
        self._changes += 1
        new, pattern = self._name(), self._pattern()
        await self._database.transact(lambda tx: tx.execute(_RENAME, new, self._job, pattern))
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._until_shown()
        except TimeoutError:
            self._unseen += 1
        else:
            self._seen.add(time.monotonic() - began)

    async def _until_shown(self) -> None:
        while True:
            if await self._is_shown():
                return
            await asyncio.sleep(_LOOK)

    async def _is_shown(self) -> bool:
        try:
            menu = await self._journey.show(self._token)
        except Problem as problem:
            if problem.code not in NEEDS_LOGIN:
                raise
            await self._sign_in()
            return False
        title = " ".join(self._name().replace(self._options.tag, "").split())
        return any(found.item.title == title for found in every_item(menu.entries))

    async def _sign_in(self) -> None:
        welcome = await self._journey.welcome()
        username = self._errand.username if welcome.protection != "hash" else None
        try:
            self._token = (await self._journey.login(self._errand.password, username)).token
        except Problem as problem:
            if problem.code not in RETRIABLE:
                raise


@asynccontextmanager
async def probing(
    database: Database, errand: Errand, machine: Machine, options: Options
) -> AsyncIterator[Probe]:
    """A probe that goes on until the end; its job is gone then."""
    probe = Probe(database, errand, machine, options)
    await probe.make()
    going = asyncio.create_task(probe.go_on())
    try:
        yield probe
    finally:
        await end(going)
        await probe.remove()
