"""The screen shown while an answer is waited for."""

from collections.abc import Iterator

from textual import events
from textual.widget import Widget

from client.portal.frame import Line, PortalScreen, gap, words_of
from client.portal.progress import Waiting
from client.words import Words

_TICK = 0.5


class WaitingScreen(PortalScreen[None]):
    """Says what is waited for; is answered when the technician does not want to wait."""

    def __init__(self, title: tuple[str, str], words: Words, text: str, help_text: str) -> None:
        super().__init__(title, help_text)
        self._words = words
        self._text = text
        self._progress = Waiting()
        self._waited = Line("")

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield words_of(self._text, classes="strong")
        yield gap()
        yield self._progress
        yield self._waited

    def on_mount(self) -> None:
        """Told by Textual."""
        self.set_interval(_TICK, self._tick)

    def _tick(self) -> None:
        self._waited.say(self._words("waited", seconds=self._progress.seconds))

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "escape":
            self.finish(None)
