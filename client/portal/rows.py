"""A list of lines that scrolls; as quick with 5,000 of them as with five."""

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from client.portal.style import HINT, PLAIN, SELECTED
from client.portal.terminal import cut, spread

Row = tuple[str, str]
"""The texts at both ends of a line."""

_LEAST = 9
"""Columns of a hint that is worth its place."""


class Rows(Widget):
    """Draws only the lines that are seen. One of them may be selected (reverse video)."""

    def __init__(self, rows: Sequence[Row] = (), *, selects: bool = True) -> None:
        super().__init__()
        self._rows = rows
        self._twins = _twins(rows)
        self._selects = selects
        self._index = 0
        self._top = 0

    @property
    def index(self) -> int:
        """The number of the selected line, from 0."""
        return self._index

    @property
    def count(self) -> int:
        """How many lines there are."""
        return len(self._rows)

    def fill(self, rows: Sequence[Row], index: int = 0) -> None:
        """Shows other lines."""
        self._rows = rows
        self._twins = _twins(rows)
        self._top = 0
        self._index = 0
        self._select(index)

    def press(self, key: str) -> bool:
        """Moves as the key says; False if it is none that moves."""
        page = max(self.size.height, 1)
        steps = {
            "up": -1,
            "down": 1,
            "pageup": -page,
            "pagedown": page,
            "home": -len(self._rows),
            "end": len(self._rows),
        }
        if key not in steps:
            return False
        if self._selects:
            self._select(self._index + steps[key])
        else:
            self._top += steps[key]
            self.refresh()
        return True

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        height, width = self.size.height, self.size.width
        if self._selects:
            self._top = min(max(self._top, self._index - height + 1), self._index)
        self._top = max(0, min(self._top, len(self._rows) - height))
        number = self._top + y
        if number >= len(self._rows):
            return Strip.blank(width)
        left, right = self._rows[number]
        selected = self._selects and number == self._index
        # The mark is for terminals that cannot reverse.
        mark = "> " if selected else "  "
        room = width - cell_len(mark + left) - 2
        # A title is worth more than its hint, unless it is the hint that tells it from another, or
        # there is no room for the title anyway.
        if room < -2 or left in self._twins:
            room = max(room, width // 3)
        hint = cut(f"{right} ", room) if right and room > _LEAST else ""
        text = spread(mark + left, hint, width)
        if selected:
            return Strip([Segment(text, SELECTED)], width)
        at = len(text) - len(hint)
        return Strip([Segment(text[:at], PLAIN), Segment(text[at:], HINT)], width)

    def _select(self, index: int) -> None:
        self._index = max(0, min(index, len(self._rows) - 1))
        self.refresh()


def _twins(rows: Sequence[Row]) -> frozenset[str]:
    """The titles that stand there more than once."""
    counts = Counter(left for left, _ in rows)
    return frozenset(title for title, count in counts.items() if count > 1)
