"""Keeps menus ready: looked after when asked for and older than a moment, never per request.

The job tree is read once for all technicians, and again when it has changed. The menu for a set of
rights is built when somebody who has them asks for it, and is shared by all who have the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from msgspec.structs import replace

from bus.access import ALL_RIGHTS, Rights
from bus.options import Options
from bus.problems import Problem
from bus.service import Answer
from engine.menu_rows import MenuRows, Wanted
from services.menu.edition import Built, Edition, Rules, first_edition
from services.menu.lookout import Seen
from services.menu.tally import Tally

LATEST: Final = 1.0
"""Seconds after which an answer waits for a look at the tree: a change shows no later than this."""
PATIENCE: Final = 2.0
"""Seconds that an answer waits for a slow deployment server, before it gives what it has."""
_AT_ONCE: Final = 2
"""Most menus that are built at the same time, each in a thread."""
_SPARE: Final = 0.1
"""Seconds before the last menus may be shown no longer, in which no further ones are built."""

Look = Callable[[Wanted, Seen | None], Awaitable[Seen]]
"""Tells the rows as they are now, given what was seen last: its very rows if none has changed."""


class MenuKeeper:
    """The menus of a site, from the rows that ``look`` finds."""

    def __init__(
        self,
        look: Look,
        options: Callable[[], Options],
        ruled: Callable[[], frozenset[int]],
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what is asked for each answer: ``ruled`` are the jobs that access rules name."""
        self._look = look
        self._options = options
        self._ruled = ruled
        self._clock = clock
        self._known: tuple[Options, frozenset[int]] | None = None
        self._rules_now = Rules("", None, "flat")
        self._edition: Edition | None = None
        self._seen: Seen | None = None
        self._failed_at = float("-inf")
        self._failed_for: Rules | None = None
        self._looking: asyncio.Task[None] | None = None
        self._building: dict[tuple[Edition, Rights], asyncio.Task[Built]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tally = tally
        self._log = structlog.get_logger("menu")

    async def close(self) -> None:
        """Ends what is under way."""
        running = {*self._building.values(), *([self._looking] if self._looking else [])}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def ready(self, rights: Rights = ALL_RIGHTS) -> bytes | None:
        """What `show` answers, whatever the part, if nothing must be waited for; else None.

        It is None for menus so large that they come in parts, too.
        """
        asked = self._clock()
        edition, seen = self._edition, self._seen
        if edition is None or seen is None or not self._in_date(asked):
            return None
        built = edition.kept(rights)
        if built is None or built.parts:
            return None
        if asked >= seen.due:
            self._renewal(rights)
        self._tally.ready += 1
        self._tally.age = asked - seen.at
        return built.whole

    async def show(
        self, rights: Rights = ALL_RIGHTS, part: int = 0, of: str | None = None
    ) -> Answer | bytes:
        """The menu on the wire for whoever has these rights; the part that is asked for.

        However many ask at once, the tree is read once, and a menu is built once for all who have
        the same rights.

        Raises:
            Problem: ``deployment_server_unavailable`` when there is none to show, ``bad_request``
                when it has no such part.
        """
        asked = self._clock()
        ready = in_date = self._in_date(asked)
        if not in_date:
            await self._catch_up(asked, rights)
            in_date = self._in_date(asked)
        elif self._seen is None or asked >= self._seen.due:
            self._renewal(rights)
        edition = self._edition
        built = edition and edition.kept(rights)
        self._count(asked, ready=ready and built is not None, in_date=in_date)
        if edition is None:
            raise Problem("deployment_server_unavailable")
        built = built or await self._build(edition, rights)
        return built.answer(part, of, stale=not in_date)

    def _count(self, asked: float, *, ready: bool, in_date: bool) -> None:
        tally = self._tally
        if ready:
            tally.ready += 1
        else:
            tally.waited += 1
        if not in_date:
            tally.stale += 1
        # What was seen meanwhile is younger than the question.
        tally.age = max(0.0, asked - self._seen.at) if self._seen else float("inf")

    def _rules(self) -> Rules:
        """The rules as they are now; made anew only when what they are made of is another."""
        options, ruled = self._options(), self._ruled()
        known = self._known
        if known is None or known[0] is not options or known[1] is not ruled:
            self._known = options, ruled
            rules = Rules(options.tag, options.root_folder, options.menu_type, ruled)
            if rules != self._rules_now:
                self._rules_now = rules
        return self._rules_now

    def _in_date(self, asked: float) -> bool:
        """Whether the edition is by the rules of now, and of what was seen less than LATEST ago."""
        edition, seen = self._edition, self._seen
        if edition is None or seen is None or asked - seen.at >= LATEST:
            return False
        rules = self._rules()
        if edition.rules is not rules and edition.rules != rules:
            return False
        return edition.rows is seen.rows

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
        """The look that is under way or begins now; ``rights`` are those of who asks for it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._renew(rights))
        return self._looking

    async def _renew(self, rights: Rights) -> None:
        rules = self._rules()
        try:
            await self._look_again(rules, rights)
        except Exception as error:  # noqa: BLE001 (whatever it is, the last menus stay)
            self._failed(rules)
            self._log.warning("the menu cannot be renewed", error=str(error))

    async def _look_again(self, rules: Rules, rights: Rights) -> None:
        try:
            seen = await self._look(Wanted(rules.tag, rules.ruled), self._seen)
        except Exception:
            self._tally.failed_readings += 1
            # Rules that have changed hold for the tree as it was seen last, too; but what they want
            # of it may not be in what was read, so that is not in date.
            if self._edition is not None and self._edition.rules != rules:
                rows = self._edition.rows
                await self._publish(MenuRows(rows.jobs, rows.folders, rows.filled), rules, rights)
            raise
        await self._publish(seen.rows, rules, rights)
        if self._edition is not None:
            self._seen = replace(seen, rows=self._edition.rows)

    async def _publish(self, rows: MenuRows, rules: Rules, rights: Rights) -> None:
        """Has the menus of these rows shown from now on; those asked for last are ready at once."""
        last = self._edition
        if last is not None and rules == last.rules and (rows is last.rows or rows == last.rows):
            return
        others = last.asked_for() if last else []
        left = self._seen.at + LATEST - _SPARE - self._clock() if self._seen else 0.0
        self._edition = await asyncio.to_thread(first_edition, rows, rules, rights, others, left)
        self._tally.builds += 1
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
        self._tally.builds += 1
        edition.keep(rights, built)
        self._log.debug("a menu was built", size=built.size)
        return built
