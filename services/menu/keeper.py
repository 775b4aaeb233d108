"""Keeps menus ready: read again when asked for and older than a moment, never per request.

The job tree is read once for all technicians. The menu for a set of rights is built when somebody
who has them asks for it, and is shared by all who have the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from msgspec import Struct

from bus.access import ALL_RIGHTS, Rights
from bus.options import Options
from bus.problems import Problem
from express.jobs import MenuRows
from services.menu.edition import Built, Edition, Rules

FRESH: Final = 0.5
"""Seconds after which a menu that is asked for is read again behind the answer."""
LATEST: Final = 1.0
"""Seconds after which an answer waits for the reading: a change shows at most this much later."""
PATIENCE: Final = 2.0
"""Seconds that an answer waits for a slow deployment server, before it gives what it has."""
_AT_ONCE: Final = 2
"""Most menus that are built at the same time, each in a thread."""


class Tally(Struct):
    """What has been done for the menus so far, and how old the one was that was shown last."""

    ready: int = 0
    """Answers for which nothing had to be read or built."""
    waited: int = 0
    """Answers that waited, also in vain."""
    stale: int = 0
    """Answers that may be out of date, and those that could not be given."""
    builds: int = 0
    readings: int = 0
    failed_readings: int = 0
    age: float = 0.0
    """Seconds since the tree was read, when a menu was shown last."""


class MenuKeeper:
    """The menus of a site, from the rows that ``read`` brings for a tag and the ruled jobs' ids."""

    def __init__(
        self,
        read: Callable[[str, frozenset[int]], Awaitable[MenuRows]],
        options: Callable[[], Options],
        ruled: Callable[[], frozenset[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what is asked for each answer: ``ruled`` are the jobs that access rules name."""
        self._read = read
        self._options = options
        self._ruled = ruled
        self._clock = clock
        self._edition: Edition | None = None
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._failed_for: Rules | None = None
        self._reading: asyncio.Task[None] | None = None
        self._building: dict[tuple[Edition, Rights], asyncio.Task[Built]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.tally: Final = Tally()
        self._log = structlog.get_logger("menu")

    async def close(self) -> None:
        """Ends what is under way."""
        running = {*self._building.values(), *([self._reading] if self._reading else [])}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def show(self, rights: Rights = ALL_RIGHTS) -> bytes:
        """The menu on the wire for whoever has these rights.

        However many ask at once, the tree is read once, and a menu is built once for all who have
        the same rights.

        Raises:
            Problem: ``deployment_server_unavailable`` when there is none to show.
        """
        asked = self._clock()
        ready = in_date = self._in_date(asked)
        if not in_date:
            await self._catch_up(asked, rights)
            in_date = self._in_date(asked)
        elif asked - self._read_at > FRESH:
            self._renewal(rights)
        edition = self._edition
        built = edition and edition.kept(rights)
        self._count(asked, ready=ready and built is not None, in_date=in_date)
        if edition is None:
            raise Problem("deployment_server_unavailable")
        built = built or await self._build(edition, rights)
        return built.fresh if in_date else built.stale

    def _count(self, asked: float, *, ready: bool, in_date: bool) -> None:
        tally = self.tally
        if ready:
            tally.ready += 1
        else:
            tally.waited += 1
        if not in_date:
            tally.stale += 1
        # One that was read meanwhile is younger than the question.
        tally.age = max(0.0, asked - self._read_at)

    def _rules(self) -> Rules:
        options = self._options()
        return Rules(options.tag, options.root_folder, options.menu_type, self._ruled())

    def _in_date(self, asked: float) -> bool:
        return (
            self._edition is not None
            and asked - self._read_at < LATEST
            and self._edition.rules == self._rules()
        )

    async def _catch_up(self, asked: float, rights: Rights) -> None:
        """Waits for a tree that is in date, unless the deployment server has just failed."""
        give_up = asked + PATIENCE
        while not self._in_date(asked) and (left := give_up - self._clock()) > 0:
            if self._clock() - self._failed_at < LATEST and self._failed_for == self._rules():
                return
            done, _ = await asyncio.wait({self._renewal(rights)}, timeout=left)
            if not done:
                self._failed(self._rules())

    def _failed(self, rules: Rules) -> None:
        self._failed_at = self._clock()
        self._failed_for = rules

    def _renewal(self, rights: Rights) -> asyncio.Task[None]:
        """The reading that is under way or begins now; ``rights`` are those of who asks for it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew(rights))
        return self._reading

    async def _renew(self, rights: Rights) -> None:
        rules = self._rules()
        try:
            await self._read_anew(rules, rights)
        except Exception as error:  # noqa: BLE001 (whatever it is, the last menus stay)
            self._failed(rules)
            self._log.warning("the menu cannot be renewed", error=str(error))

    async def _read_anew(self, rules: Rules, rights: Rights) -> None:
        began = self._clock()
        self.tally.readings += 1
        try:
            rows = await self._read(rules.tag, rules.ruled)
        except Exception:
            self.tally.failed_readings += 1
            # Rules that have changed hold for the tree as it was read last, too.
            if self._edition is not None:
                await self._publish(self._edition.rows, rules, rights)
            raise
        await self._publish(rows, rules, rights)
        self._read_at = began

    async def _publish(self, rows: MenuRows, rules: Rules, rights: Rights) -> None:
        """Has the menus of these rows shown from now on, the one for ``rights`` ready at once."""
        last = self._edition
        if last is None or rules != last.rules or rows != last.rows:
            self._edition = await asyncio.to_thread(_first_edition, rows, rules, rights)
            self.tally.builds += 1
            self._log.debug("the job tree was read anew", jobs=len(rows.jobs))

    async def _build(self, edition: Edition, rights: Rights) -> Built:
        key = edition, rights
        building = self._building.get(key)
        if building is None:
            building = asyncio.create_task(self._build_one(edition, rights))
            self._building[key] = building
            building.add_done_callback(lambda _: self._building.pop(key))
        # Whoever gives up leaves it to the others who wait for it.
        return await asyncio.shield(building)

    async def _build_one(self, edition: Edition, rights: Rights) -> Built:
        async with self._slots:
            built = await asyncio.to_thread(edition.build, rights)
        self.tally.builds += 1
        edition.keep(rights, built)
        self._log.debug("a menu was built", size=len(built.fresh))
        return built


def _first_edition(rows: MenuRows, rules: Rules, rights: Rights) -> Edition:
    edition = Edition(rows, rules)
    edition.keep(rights, edition.build(rights))
    return edition
