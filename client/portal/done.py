"""The last screen: what was scheduled."""

import math
import time
from collections.abc import Iterator

from textual import events
from textual.widget import Widget

from bus.messages import Outcome
from client.outcomes import headline
from client.portal.frame import Line, PortalScreen, gap, words_of
from client.portal.progress import Progress
from client.portal.rows import Rows
from client.words import Words, plain

SECONDS = 5
"""How long the screen stays."""
_TICK = 0.1


class DoneScreen(PortalScreen[None]):
    """Is answered by itself after a while, so that the agent can load, or at once by ENTER."""

    def __init__(
        self, title: tuple[str, str], words: Words, outcome: Outcome, shown_for: float = SECONDS
    ) -> None:
        super().__init__(title, words("scheduled_help"))
        self._words = words
        self._outcome = outcome
        self._shown_for = shown_for
        self._until = time.monotonic() + shown_for
        self._left = Line("")
        self._progress = Progress()
        self._rows = Rows(
            # Not numbered: many a job's name begins with a number of its own.
            [(f"- {plain(job.name)}", "") for job in outcome.jobs],
            selects=False,
        )

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield words_of(headline(self._words, self._outcome), classes="good")
        if self._outcome.start_at is not None:
            at = f"{self._outcome.start_at.astimezone():%Y-%m-%d %H:%M}"
            yield words_of(self._words("scheduled_at", time=at))
        if self._outcome.replaced:
            yield words_of(self._words("scheduled_replaced", count=self._outcome.replaced))
        yield gap()
        yield words_of(self._words("scheduled_jobs"))
        yield self._rows
        yield self._progress
        yield self._left

    def on_mount(self) -> None:
        """Told by Textual."""
        self._until = time.monotonic() + self._shown_for
        self._tick()
        self.set_interval(_TICK, self._tick)

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "enter":
            self.finish(None)
        elif self._rows.press(event.key):
            # Whoever reads the list may finish reading.
            self._until = time.monotonic() + self._shown_for

    def _tick(self) -> None:
        left = self._until - time.monotonic()
        self._left.say(self._words("countdown_left", seconds=max(math.ceil(left), 0)))
        self._progress.fill(self._shown_for, left)
        if left <= 0:
            self.finish(None)
