"""One line to type into."""

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.strip import Strip
from textual.widget import Widget

from client.portal.style import CURSOR, FIELD, FIELD_AT_REST
from client.words import plain

_LONGEST = 256
"""Characters; what a password may have."""
_WIDEST = 46
"""Columns."""


class Field(Widget):
    """A line to type into, in plain ASCII; a secret shows stars.

    Its screen hands it the keys, so that none overtakes a change from one field to another.
    """

    def __init__(self, text: str = "", *, secret: bool = False) -> None:
        super().__init__()
        self._text = text
        self._at = len(text)
        self._secret = secret
        self._active = False

    @property
    def text(self) -> str:
        """What stands in the field."""
        return self._text

    def activate(self, active: bool) -> None:
        """Shows or hides the cursor."""
        self._active = active
        self.refresh()

    def press(self, event: events.Key) -> None:
        """Does what the key says, if it says anything here."""
        text, at = self._text, self._at
        match event.key:
            case "left":
                self._set(text, max(at - 1, 0))
            case "right":
                self._set(text, min(at + 1, len(text)))
            case "home":
                self._set(text, 0)
            case "end":
                self._set(text, len(text))
            case "backspace":
                self._set(text[: max(at - 1, 0)] + text[at:], max(at - 1, 0))
            case "delete":
                self._set(text[:at] + text[at + 1 :], at)
            case _ if event.character and event.character.isprintable():
                self.insert(event.character)

    def insert(self, typed: str) -> None:
        """Adds text at the cursor, as much as there is room for."""
        typed = plain(typed.strip("\r\n"))[: _LONGEST - len(self._text)]
        self._set(self._text[: self._at] + typed + self._text[self._at :], self._at + len(typed))

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        width = self.size.width
        if y or width < 4:
            return Strip.blank(width)
        shown = "*" * len(self._text) if self._secret else self._text
        before, under = shown[: self._at], shown[self._at : self._at + 1]
        after = shown[self._at + 1 :]
        wide = min(width, _WIDEST)
        while cell_len(before) > wide - 3:
            before = before[1:]
        look = FIELD if self._active else FIELD_AT_REST
        line = Strip(
            [
                Segment(f" {before}", look),
                Segment(under or " ", CURSOR if self._active else look),
                Segment(after, look),
            ]
        )
        return line.crop(0, wide).adjust_cell_length(wide, look).adjust_cell_length(width)

    def _set(self, text: str, at: int) -> None:
        self._text, self._at = text, at
        self.refresh()
