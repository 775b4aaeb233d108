"""What items were called when they were picked last: statistics are kept by their ids.

Titles change, ids do not.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from bus.events import Event, one_line
from express.database import MAX_ROWS, Transaction, markers

_ITEM: Final = re.compile(r"(?:job|folder):-?[0-9]{1,19}", re.ASCII)
_LONGEST: Final = 128
_TABLE: Final = "ii_item"


def told_titles(events: Iterable[Event]) -> dict[str, str]:
    """The titles that events tell, by item; of several the last."""
    found: dict[str, str] = {}
    for event in events:
        item, title = event.details.get("item"), event.details.get("title")
        if isinstance(item, str) and isinstance(title, str) and title and _ITEM.fullmatch(item):
            found[item] = one_line(title)[:_LONGEST]
    return found


def keep_titles(tx: Transaction, site: str, told: dict[str, str]) -> None:
    """Keeps the titles that are not known yet, in place of older ones."""
    items = sorted(told)
    for start in range(0, len(items), MAX_ROWS):
        part = items[start : start + MAX_ROWS]
        within = f"site = ? AND item IN ({markers(len(part))})"
        rows = tx.fetch(f"SELECT item, title FROM {_TABLE} WHERE {within}", site, *part)
        known = {str(item): str(title) for item, title in rows}
        _replace(tx, site, [(item, told[item]) for item in part if known.get(item) != told[item]])


def _replace(tx: Transaction, site: str, titles: Sequence[tuple[str, str]]) -> None:
    if titles:
        items = [item for item, _ in titles]
        tx.execute(
            f"DELETE FROM {_TABLE} WHERE site = ? AND item IN ({markers(len(items))})",
            site, *items,
        )  # fmt: skip
        tx.insert(_TABLE, ("site", "item", "title"), [(site, *each) for each in titles])


def known_titles(tx: Transaction, site: str) -> dict[str, str]:
    """The titles of a site's items, by their ids."""
    rows = tx.fetch(f"SELECT item, title FROM {_TABLE} WHERE site = ?", site)
    return {str(item): str(title) for item, title in rows}
