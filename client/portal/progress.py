"""Bars that show that, or for how long, something is waited for."""

import math
import time

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from client.portal.style import EMPTY, FULL, PLAIN

WIDEST = 46
"""Columns."""
_TICK = 0.25
_STEP = 2
_BLOCK = 6
"""Columns of what goes to and fro."""


def share(total: float, left: float, width: int) -> int:
    """How many of ``width`` columns are full when so much is left; none only at the very end."""
    if total <= 0 or left <= 0:
        return 0
    return min(math.ceil(width * left / total), width)


def to_and_fro(step: int, room: int) -> int:
    """Where something stands after so many steps that runs between 0 and ``room``, and back."""
    if room <= 0:
        return 0
    at = step % (2 * room)
    return at if at <= room else 2 * room - at


class Progress(Widget):
    """A bar that shows how much is left."""

    def __init__(self) -> None:
        super().__init__()
        self._full = (0.0, 0.0)

    def fill(self, total: float, left: float) -> None:
        """Shows what is left of a total."""
        if (total, left) != self._full:
            self._full = (total, left)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        width = min(self.size.width, WIDEST)
        if y or width < 1:
            return Strip.blank(self.size.width)
        begin, end = self.span(width)
        segments = [
            Segment("." * begin, EMPTY),
            Segment("#" * (end - begin), FULL),
            Segment("." * (width - end), EMPTY),
            Segment(" " * (self.size.width - width), PLAIN),
        ]
        return Strip([each for each in segments if each.text], self.size.width)

    def span(self, width: int) -> tuple[int, int]:
        """From where to where the bar is full."""
        return 0, share(*self._full, width)


class Waiting(Progress):
    """A bar that moves as long as nobody knows how long it takes."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def on_mount(self) -> None:
        """Told by Textual."""
        self._began = time.monotonic()
        self.set_interval(_TICK, self.refresh)

    @property
    def seconds(self) -> int:
        """How long it has been waited."""
        return int(time.monotonic() - self._began)

    def span(self, width: int) -> tuple[int, int]:
        """From where to where the bar is full."""
        block = min(_BLOCK, width)
        step = int((time.monotonic() - self._began) / _TICK) * _STEP
        at = to_and_fro(step, width - block)
        return at, at + block
