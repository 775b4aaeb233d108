"""The screen shown while an answer is waited for."""

from collections.abc import Iterator

from textual import events
from textual.widget import Widget

from client.portal.frame import PortalScreen, gap, words_of


class WaitingScreen(PortalScreen[None]):
    """Says what is waited for; is answered when the technician does not want to wait."""

    def __init__(self, title: tuple[str, str], text: str, help_text: str) -> None:
        super().__init__(title, help_text)
        self._text = text

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield gap()
        yield words_of(self._text)

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "escape":
            self.finish(None)
