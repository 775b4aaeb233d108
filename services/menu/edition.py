"""The menus of a job tree as it was read once, one for each set of rights."""

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from bus.access import Rights
from bus.messages import Menu, MenuType, encode
from express.jobs import MenuRows
from express.tree import JobTree
from services.menu.builder import MenuBuilder

LARGEST: Final = 64 * 1024 * 1024
"""Bytes that the menus of all rights may take."""


class Rules(Struct, frozen=True):
    """What menus depend on but the job tree: options, and the ids of the jobs that are ruled.

    Those are the jobs that access rules name, without which rights over their folders are unknown.
    """

    tag: str
    root_folder: str | None
    menu_type: MenuType
    ruled: frozenset[int] = frozenset()


class Built(Struct, frozen=True):
    """A menu on the wire, as an answer that is in date and as one that may be out of date."""

    fresh: bytes
    stale: bytes

    @property
    def size(self) -> int:
        """The bytes it takes."""
        return len(self.fresh) + len(self.stale)


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
        menu = Menu(version=version, type=menu_type, stale=False, entries=entries)
        return Built(encode(menu), encode(msgspec.structs.replace(menu, stale=True)))

    def kept(self, rights: Rights) -> Built | None:
        """A menu that is ready."""
        built = self._kept.get(rights)
        if built is not None:
            self._kept.move_to_end(rights)
        return built

    def keep(self, rights: Rights, built: Built) -> None:
        """Has a menu ready from now on, in place of the others if they would be too large."""
        before = self._kept.pop(rights, None)
        self._size += built.size - (before.size if before else 0)
        self._kept[rights] = built
        while self._size > self._largest and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size
