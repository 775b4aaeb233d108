"""Keeps the menu ready: read again when asked for and older than a moment, never per request."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from bus.messages import Menu, MenuType, encode
from bus.options import Options
from bus.problems import Problem
from express.jobs import MenuRows
from express.tree import JobTree
from services.menu.builder import build

FRESH: Final = 0.5
"""Seconds after which a menu that is asked for is read again behind the answer."""
LATEST: Final = 1.0
"""Seconds after which an answer waits for the reading: a change shows at most this much later."""
PATIENCE: Final = 2.0
"""Seconds that an answer waits for a slow deployment server, before it gives what it has."""


class Rules(Struct, frozen=True):
    """The options a menu depends on."""

    tag: str
    root_folder: str | None
    menu_type: MenuType


class Built(Struct, frozen=True):
    """A menu on the wire, as an answer that is in date and as one that may be out of date."""

    rules: Rules
    fresh: bytes
    stale: bytes


class MenuKeeper:
    """The menu of a site, from the rows that ``read`` brings for a tag."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[MenuRows]],
        options: Callable[[], Options],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._options = options
        self._clock = clock
        self._rows: MenuRows | None = None
        self._built: Built | None = None
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("menu")

    async def close(self) -> None:
        """Ends a reading that is under way."""
        if self._reading:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def show(self) -> bytes:
        """The menu on the wire; however many ask at once, it is read and built once.

        Raises:
            Problem: ``deployment_server_unavailable`` when there is none to show.
        """
        asked = self._clock()
        in_date = self._in_date(asked)
        if not in_date:
            await self._catch_up(asked)
            in_date = self._in_date(asked)
        elif asked - self._read_at > FRESH:
            self._renewal()
        if self._built is None:
            raise Problem("deployment_server_unavailable")
        return self._built.fresh if in_date else self._built.stale

    def _in_date(self, asked: float) -> bool:
        return (
            self._built is not None
            and self._built.rules == _rules(self._options())
            and asked - self._read_at < LATEST
        )

    async def _catch_up(self, asked: float) -> None:
        """Waits for a menu that is in date, unless the deployment server has just failed."""
        give_up = asked + PATIENCE
        while not self._in_date(asked) and (left := give_up - self._clock()) > 0:
            same_rules = self._built and self._built.rules == _rules(self._options())
            if self._clock() - self._failed_at < LATEST and (same_rules or not self._rows):
                return
            done, _ = await asyncio.wait({self._renewal()}, timeout=left)
            if not done:
                self._failed_at = self._clock()

    def _renewal(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew())
        return self._reading

    async def _renew(self) -> None:
        began = self._clock()
        rules = _rules(self._options())
        try:
            rows = await self._read(rules.tag)
            await self._build(rows, rules)
            self._read_at = began
        except Exception as error:  # noqa: BLE001 (whatever it is, the last menu stays)
            self._failed_at = self._clock()
            self._log.warning("the menu cannot be renewed", error=str(error))
            if self._rows:
                await self._build(self._rows, rules)

    async def _build(self, rows: MenuRows, rules: Rules) -> None:
        if self._built is None or rules != self._built.rules or rows != self._rows:
            self._built = await asyncio.to_thread(build_answers, rows, rules)
            self._rows = rows
            self._log.debug("the menu was built", size=len(self._built.fresh))


def _rules(options: Options) -> Rules:
    return Rules(options.tag, options.root_folder, options.menu_type)


def build_answers(rows: MenuRows, rules: Rules) -> Built:
    """The menu of the rows, on the wire."""
    tree = JobTree(rows.jobs, rows.folders, rules.tag, rules.root_folder, rows.filled)
    if not tree.root_found:
        structlog.get_logger("menu").error(
            "the root folder is not there, so the menu is empty", root_folder=rules.root_folder
        )
    entries = build(tree, rules.menu_type)
    version = hashlib.sha256(encode((rules, entries))).hexdigest()[:16]
    fresh = Menu(version=version, type=rules.menu_type, stale=False, entries=entries)
    return Built(rules, encode(fresh), encode(msgspec.structs.replace(fresh, stale=True)))
