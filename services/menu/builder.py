"""How the job tree is presented: as one list of items, or as folders to enter."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from bus.messages import Entry, FolderEntry, ItemEntry, MenuType
from express.tree import Item, JobTree, natural_key

DEEPEST: Final = 100
"""Most folders within folders in a menu: what lies deeper is shown in the deepest one.

Readers of JSON bound its nesting (msgspec by Python's recursion limit), and a menu takes two levels
of JSON for each folder.
"""

_Key = tuple[str, bool, str, str]
_Keyed = tuple[_Key, Entry]


def build(tree: JobTree, menu_type: MenuType) -> tuple[Entry, ...]:
    """The entries of the menu of ``tree``, each item once."""
    items = tree.items()
    titles = Counter(item.title.casefold() for item in items)
    shown = [
        (item, tree.path(item.folder_id) if titles[item.title.casefold()] > 1 else "")
        for item in items
    ]
    if menu_type == "flat":
        return _in_order(_item(item, hint) for item, hint in shown)
    return _nested(tree, shown)


def _nested(tree: JobTree, shown: list[tuple[Item, str]]) -> tuple[Entry, ...]:
    """The items in their folders, with only the folders that lead to one."""
    folders = tree.folders()
    depth = {tree.top: 0}
    # The folder of the menu that shows what is in a folder of the tree.
    screen = {tree.top: tree.top}
    for folder in folders:
        depth[folder.id] = depth[folder.parent_id] + 1
        deep = depth[folder.id] > DEEPEST
        screen[folder.id] = screen[folder.parent_id] if deep else folder.id

    entries: defaultdict[int | None, list[_Keyed]] = defaultdict(list)
    for item, hint in shown:
        entries[screen[item.folder_id]].append(_item(item, hint))
    # Parents come first, so that turned round every folder is complete when it is put in its own.
    for folder in reversed(folders):
        if folder.id in entries:
            title = tree.title(folder.id)
            entry = FolderEntry(title=title, entries=_in_order(entries[folder.id]))
            key = (natural_key(title), True, "", natural_key(str(folder.id)))
            entries[folder.parent_id].append((key, entry))
    return _in_order(entries[tree.top])


def _item(item: Item, hint: str) -> _Keyed:
    key = (natural_key(item.title), False, natural_key(hint), natural_key(item.id))
    return key, ItemEntry(id=item.id, title=item.title, hint=hint)


def _in_order(entries: Iterable[_Keyed]) -> tuple[Entry, ...]:
    """Entries by title; of one title items come before folders, then hint and id decide."""
    return tuple(entry for _, entry in sorted(entries, key=_key))


def _key(keyed: _Keyed) -> _Key:
    return keyed[0]
