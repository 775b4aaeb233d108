"""How the job tree is presented: as one list of items, or as folders to enter."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from bus.access import ALL_RIGHTS, Rights
from bus.messages import Entry, FolderEntry, ItemEntry, MenuType
from engine.rights import Permissions
from engine.tree import Item, JobTree, natural_key

DEEPEST: Final = 100
"""Most folders within folders in a menu: what lies deeper is shown in the deepest one.

Readers of JSON bound its nesting (msgspec by Python's recursion limit), and a menu takes two levels
of JSON for each folder.
"""

_Key = tuple[str, bool, str, str]
_Keyed = tuple[_Key, Entry]


class _Line(NamedTuple):
    """An item as any menu may show it; ``twin`` is what its title shares with other items'."""

    item: Item
    twin: str | None
    alone: _Keyed
    among_twins: _Keyed


class _Branch(NamedTuple):
    """A folder to enter, if a menu has anything in it."""

    folder_id: int
    parent_id: int | None
    title: str
    key: _Key


class MenuBuilder:
    """Builds the menus of a tree; what is alike in all of them is worked out once."""

    def __init__(self, tree: JobTree, menu_type: MenuType) -> None:
        self._tree = tree
        items = tree.items()
        titles = Counter(item.title.casefold() for item in items)
        self._lines = [_line(tree, item, titles) for item in items]
        # Which folder of the menu shows what is in a folder of the tree; flat, it is one for all.
        self._screens: dict[int | None, int | None] = {}
        self._branches: list[_Branch] = []
        if menu_type == "folders":
            self._screens = _screens(tree)
            self._branches = _branches(tree, {self._screens[item.folder_id] for item in items})

    def entries(self, rights: Rights = ALL_RIGHTS) -> tuple[Entry, ...]:
        """The entries of the menu for whoever has these rights, each item once."""
        lines = self._lines
        if not rights.everything:
            permissions = Permissions(self._tree, rights)
            lines = [line for line in lines if permissions.permits_item(line.item)]
        # Among those that are shown, so that a hint never tells of an item that is not.
        twins: Counter[str | None] = Counter(line.twin for line in lines if line.twin is not None)

        entries: defaultdict[int | None, list[_Keyed]] = defaultdict(list)
        for line in lines:
            keyed = line.among_twins if twins[line.twin] > 1 else line.alone
            entries[self._screens.get(line.item.folder_id)].append(keyed)
        # The deepest come first, so that every folder is complete when it is put in its own.
        for branch in self._branches:
            if branch.folder_id in entries:
                inner = _in_order(entries[branch.folder_id])
                entry = FolderEntry(title=branch.title, entries=inner)
                entries[branch.parent_id].append((branch.key, entry))
        return _in_order(entries[self._screens.get(self._tree.top)])


def _line(tree: JobTree, item: Item, titles: Counter[str]) -> _Line:
    title, id_ = natural_key(item.title), natural_key(item.id)

    def keyed(hint: str) -> _Keyed:
        key = (title, False, natural_key(hint), id_)
        return key, ItemEntry(id=item.id, title=item.title, hint=hint)

    alone, folded = keyed(""), item.title.casefold()
    if titles[folded] == 1:
        return _Line(item, None, alone, alone)
    return _Line(item, folded, alone, keyed(tree.path(item.folder_id)))


def _screens(tree: JobTree) -> dict[int | None, int | None]:
    depth = {tree.top: 0}
    screens = {tree.top: tree.top}
    for folder in tree.folders():
        depth[folder.id] = depth[folder.parent_id] + 1
        deep = depth[folder.id] > DEEPEST
        screens[folder.id] = screens[folder.parent_id] if deep else folder.id
    return screens


def _branches(tree: JobTree, filled: set[int | None]) -> list[_Branch]:
    """The folders that lead to one of those that are filled, the deepest first."""
    leading = set(filled)
    branches: list[_Branch] = []
    for folder in reversed(tree.folders()):
        if folder.id in leading:
            leading.add(folder.parent_id)
            title = tree.title(folder.id)
            key = (natural_key(title), True, "", natural_key(str(folder.id)))
            branches.append(_Branch(folder.id, folder.parent_id, title, key))
    return branches


def _in_order(entries: Iterable[_Keyed]) -> tuple[Entry, ...]:
    """Entries by title; of one title items come before folders, then hint and id decide."""
    return tuple(entry for _, entry in sorted(entries, key=_key))


def _key(keyed: _Keyed) -> _Key:
    return keyed[0]
