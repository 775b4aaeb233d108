"""One line to type into."""

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from client.words import plain

_REVERSE = Style(reverse=True)
_PLAIN = Style()
_LONGEST = 256
"""Characters; what a password may have."""


class Field(Widget, can_focus=True):
    """A line to type into, in plain ASCII; a secret shows stars."""

    class Changed(Message):
        """The text is another one now."""

    def __init__(self, text: str = "", *, secret: bool = False) -> None:
        super().__init__()
        self._text = text
        self._at = len(text)
        self._secret = secret

    @property
    def text(self) -> str:
        """What stands in the field."""
        return self._text

    def clear(self) -> None:
        """Empties the field."""
        self._set("", 0)

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
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
            case _:
                if not event.character or not event.character.isprintable():
                    return
                self._insert(event.character)
        event.stop()

    def on_paste(self, event: events.Paste) -> None:
        """Told by Textual."""
        self._insert(plain(event.text.strip("\r\n")))
        event.stop()

    def on_focus(self) -> None:
        """Told by Textual."""
        self.refresh()

    def on_blur(self) -> None:
        """Told by Textual."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        width = self.size.width
        if y or width < 2:
            return Strip.blank(width)
        shown = "*" * len(self._text) if self._secret else self._text
        before, under, after = shown[: self._at], shown[self._at : self._at + 1], ""
        after = shown[self._at + 1 :]
        while cell_len(before) > width - 2:
            before = before[1:]
        cursor = _REVERSE if self.has_focus else _PLAIN
        line = Strip(
            [Segment(before, _PLAIN), Segment(under or " ", cursor), Segment(after, _PLAIN)]
        )
        return line.crop(0, width).adjust_cell_length(width)

    def _insert(self, typed: str) -> None:
        room = _LONGEST - len(self._text)
        typed = typed[:room]
        self._set(self._text[: self._at] + typed + self._text[self._at :], self._at + len(typed))

    def _set(self, text: str, at: int) -> None:
        changed = text != self._text
        self._text, self._at = text, at
        self.refresh()
        if changed:
            self.post_message(self.Changed())
