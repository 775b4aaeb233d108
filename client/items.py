"""Finding a menu item among all of them. Pure functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bus.messages import Entry, ItemEntry

SEPARATOR = " / "


@dataclass(frozen=True, slots=True)
class Found:
    """A menu item and the titles of the folders it lies in."""

    item: ItemEntry
    folders: tuple[str, ...]


def every_item(entries: Sequence[Entry], folders: tuple[str, ...] = ()) -> Iterator[Found]:
    """Every item, depth first, in the order of the menu."""
    for entry in entries:
        if isinstance(entry, ItemEntry):
            yield Found(entry, folders)
        else:
            yield from every_item(entry.entries, (*folders, entry.title))


def matching(items: Sequence[Found], folded: Sequence[str], text: str) -> list[Found]:
    """The items whose title holds ``text``; ``folded`` has their titles as `str.casefold` does."""
    wanted = text.casefold()
    return [found for found, title in zip(items, folded, strict=True) if wanted in title]


def item_called(entries: Sequence[Entry], wanted: str) -> list[ItemEntry]:
    """The item of that id, else every item of that title, be it in upper or lower case."""
    items = [found.item for found in every_item(entries)]
    by_id = [item for item in items if item.id == wanted]
    title = wanted.strip().casefold()
    return by_id[:1] or [item for item in items if item.title.casefold() == title]
