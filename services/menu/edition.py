"""The menus of a job tree as it was read once, one for each set of rights."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import structlog
from msgspec import Struct

from bus.access import Rights
from bus.menus import PART, Division, packed
from bus.messages import Menu, MenuType, encode
from bus.problems import Problem
from bus.service import Answer
from engine.menu_rows import MenuRows
from engine.tree import JobTree
from services.menu.builder import MenuBuilder

LARGEST: Final = 24 * 1024 * 1024
"""Bytes that the menus of all rights may take."""
WHOLE: Final = 1_000_000
"""Most bytes of a menu for a client that knows of no parts: what a bus carries unless told
otherwise, less the headers."""
_FRESH: Final = b'"stale":false'
_STALE: Final = b'"stale":true'


class Rules(Struct, frozen=True):
    """What menus depend on but the job tree: options, and the ids of the jobs that are ruled.

    Those are the jobs that access rules name, without which rights over their folders are unknown.
    """

    tag: str
    root_folder: str | None
    menu_type: MenuType
    ruled: frozenset[int] = frozenset()


class Built(Struct, frozen=True):
    """A menu on the wire: whole where one message carries it, in parts where it is large."""

    whole: bytes | None
    parts: tuple[Answer, ...] = ()
    version: str = ""
    """What the parts are parts of."""

    @property
    def size(self) -> int:
        """The bytes it takes."""
        return len(self.whole or b"") + sum(len(part.data) for part in self.parts)

    def answer(
        self, part: int = 0, of: str | None = None, *, stale: bool = False
    ) -> Answer | bytes:
        """What whoever asks for a part of a version gets; part 0 is for who knows of none.

        Raises:
            Problem: ``bad_request``: it is too large for who knows of no parts, or has no such
                part.
        """
        if self.parts and part:
            if of != self.version:
                part = 1
            if part > len(self.parts):
                raise Problem("bad_request", "The menu has no such part.")
            answer = self.parts[part - 1]
            if stale:
                told = Division(part, len(self.parts), self.version, stale=True)
                answer = Answer(answer.data, told.headers())
            return answer
        if self.whole is None:
            raise Problem(
                "bad_request", "The menu is too large for this client, which knows of no parts."
            )
        # The first that looks so is the field: titles come after it.
        return self.whole.replace(_FRESH, _STALE, 1) if stale else self.whole


class Edition:
    """All menus of the rows under some rules; those that were not asked for longest are dropped.

    To make one and to `build` take their time, and may be done in threads, several at once.
    """

    def __init__(self, rows: MenuRows, rules: Rules, largest: int = LARGEST) -> None:
        self.rows = rows
        self.rules = rules
        self._largest = largest
        self._kept: OrderedDict[Rights, Built] = OrderedDict()
        self._size = 0
        tree = JobTree(rows.jobs, rows.folders, rules.tag, rules.root_folder, rows.filled)
        if not tree.root_found:
            structlog.get_logger("menu").error(
                "the root folder is not there, so the menu is empty", root_folder=rules.root_folder
            )
        self._builder = MenuBuilder(tree, rules.menu_type)

    def build(self, rights: Rights) -> Built:
        """The menu for whoever has these rights."""
        entries = self._builder.entries(rights)
        menu_type = self.rules.menu_type
        version = hashlib.sha256(encode((menu_type, entries))).hexdigest()[:16]
        return _built(encode(Menu(version=version, type=menu_type, stale=False, entries=entries)))

    def kept(self, rights: Rights) -> Built | None:
        """A menu that is ready."""
        built = self._kept.get(rights)
        if built is not None:
            self._kept.move_to_end(rights)
        return built

    def asked_for(self) -> list[Rights]:
        """The rights whose menus are ready, those that were asked for last first."""
        return list(reversed(self._kept))

    def keep(self, rights: Rights, built: Built) -> None:
        """Has a menu ready from now on, in place of the others if they would be too large."""
        before = self._kept.pop(rights, None)
        self._size += built.size - (before.size if before else 0)
        self._kept[rights] = built
        while self._size > self._largest and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size


def first_edition(
    rows: MenuRows, rules: Rules, rights: Rights, others: Iterable[Rights], seconds: float
) -> Edition:
    """An edition with the menu for some rights ready, and those of others as far as time allows."""
    began = time.monotonic()
    edition = Edition(rows, rules)
    ready = [(rights, edition.build(rights))]
    for each in others:
        if time.monotonic() - began > seconds:
            break
        if each != rights:
            ready.append((each, edition.build(each)))
    # Those that were asked for last are to be dropped last.
    for each, built in reversed(ready):
        edition.keep(each, built)
    return edition


def _built(menu: bytes) -> Built:
    if len(menu) <= PART:
        return Built(menu)
    data = packed(menu)
    # Of these bytes, not of the menu: another library may pack the same menu in another way.
    version = hashlib.sha256(data).hexdigest()[:16]
    slices = [data[start : start + PART] for start in range(0, len(data), PART)]
    parts = tuple(
        Answer(each, Division(number, len(slices), version).headers())
        for number, each in enumerate(slices, 1)
    )
    return Built(menu if len(menu) <= WHOLE else None, parts, version)
