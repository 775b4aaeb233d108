"""A list of lines that scrolls; as quick with 5,000 of them as with five."""

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from client.portal.terminal import spread

Row = tuple[str, str]
"""The texts at both ends of a line."""

_REVERSE = Style(reverse=True)
_PLAIN = Style()


class Rows(Widget):
    """Draws only the lines that are seen. One of them may be selected (reverse video)."""

    def __init__(self, rows: Sequence[Row] = (), *, selects: bool = True) -> None:
        super().__init__()
        self._rows = rows
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
        text = spread(mark + left, right + " " if right else "", width)
        return Strip([Segment(text, _REVERSE if selected else _PLAIN)], width)

    def _select(self, index: int) -> None:
        self._index = max(0, min(index, len(self._rows) - 1))
        self.refresh()
