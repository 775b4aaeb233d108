"""The first screen: the computer goes on starting unless somebody wants the menu."""

import math
import time
from collections.abc import Iterator, Sequence

from textual import events
from textual.widget import Widget
from textual.widgets import Static

from client.lastresort import GRACE, LastResort
from client.portal.frame import PortalScreen, gap, words_of
from client.portal.progress import Progress
from client.status import DONE, NO_SERVER
from client.words import Words

_TICK = 0.1


class CountdownScreen(PortalScreen[bool]):
    """Answers True when ``i`` was pressed, False when the time was up; no other key does a thing.

    The seconds count from the first moment the screen is seen; 0 waits for ever. ``unknown`` are
    names of what this machine was told and nobody understands.
    """

    def __init__(
        self,
        title: tuple[str, str],
        words: Words,
        server: str,
        timeout: int,
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(title, words("countdown_help"))
        self._words = words
        self._timeout = timeout
        self._began = time.monotonic()
        self._last_resort: LastResort | None = None
        self._is_welcome = False
        self._left = words_of("")
        self._computer = words_of(words("connecting", server=server))
        self._call = words_of(words("countdown"), classes="strong")
        self._progress = Progress()
        self._unknown = words("unknown", names=", ".join(unknown)) if unknown else ""

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield self._computer
        yield gap()
        yield self._call
        yield gap()
        yield self._progress
        yield self._left
        if self._unknown:
            yield gap()
            yield words_of(self._unknown, classes="warn")

    def on_mount(self) -> None:
        """Told by Textual."""
        self._began = time.monotonic()
        self._tick()
        self.set_interval(_TICK, self._tick)

    def guard(self, last_resort: LastResort | None) -> None:
        """Has the process end soon after the countdown, even if this screen never gets to it."""
        self._last_resort = last_resort
        self._end_in_time()

    def welcomed(self, words: Words, computer: str | None, timeout: int) -> None:
        """The site has answered: its texts and this time-out in seconds hold from now on."""
        self._words = words
        self._timeout = timeout
        self._is_welcome = True
        self._end_in_time()
        self._call.update(words("countdown"))
        self.help(words("countdown_help"))
        known = computer is not None
        self._computer.update(
            words("countdown_known", name=computer) if known else words("countdown_unknown")
        )
        self._tick()

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        event.stop()
        event.prevent_default()
        if event.character in {"i", "I"}:
            if self._last_resort is not None:
                self._last_resort.stay()
            self.finish(True)

    def _end_in_time(self) -> None:
        if self._last_resort is None or self.answer.done():
            return
        if self._timeout == 0:
            self._last_resort.stay()
            return
        left = self._began + self._timeout - time.monotonic()
        self._last_resort.end_in(left + GRACE, DONE if self._is_welcome else NO_SERVER)

    def _tick(self) -> None:
        if self.answer.done():
            return
        if self._timeout == 0:
            self._progress.display = False
            self._say(self._left, self._words("countdown_waits"))
            return
        left = self._began + self._timeout - time.monotonic()
        self._say(self._left, self._words("countdown_left", seconds=max(math.ceil(left), 0)))
        self._progress.display = True
        self._progress.fill(self._timeout, left)
        if left <= 0:
            self.finish(False)

    @staticmethod
    def _say(widget: Static, text: str) -> None:
        if str(widget.content) != text:
            widget.update(text)
