"""The screens that say no."""

import math
from collections.abc import Iterator, Sequence

from textual import events
from textual.widget import Widget

from bus.messages import ComputerRef
from client.portal.frame import PortalScreen, gap, words_of
from client.words import Words

LOCKED_SECONDS = 10
"""How long the screen of a locked entry stays."""
_MINUTE = 60


class RefusedScreen(PortalScreen[bool]):
    """Answers True to try something else, False to leave.

    With ``again_in`` it is tried again by itself after so many seconds.
    """

    def __init__(
        self,
        title: tuple[str, str],
        words: Words,
        message: str,
        computers: Sequence[ComputerRef] = (),
        *,
        request_id: str = "",
        help_text: str = "refused_help",
        again_in: float | None = None,
    ) -> None:
        super().__init__(title, words(help_text))
        self._words = words
        self._message = message
        self._computers = computers
        self._request_id = request_id
        self._again_in = again_in

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        heading = "refused" if self._request_id else "refused_start"
        yield words_of(self._words(heading), classes="bad")
        yield gap()
        yield words_of(self._message)
        if self._computers:
            names = ", ".join(computer.name for computer in self._computers)
            yield words_of(self._words("refused_computers", names=names))
        if self._request_id:
            yield gap()
            yield words_of(self._words("request", request_id=self._request_id))

    def on_mount(self) -> None:
        """Told by Textual."""
        if self._again_in is not None:
            self.set_timer(self._again_in, lambda: self.finish(True))

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key in {"enter", "escape"}:
            self.finish(event.key == "enter")


class LockedScreen(PortalScreen[None]):
    """No entry; is answered by ENTER, or by itself after a while."""

    def __init__(self, title: tuple[str, str], words: Words, retry_after: float | None) -> None:
        minutes = max(math.ceil((retry_after or _MINUTE) / _MINUTE), 1)
        super().__init__(title, words("locked_leaves"))
        self._words = words
        self._minutes = minutes

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield words_of(self._words("locked"), classes="bad")
        yield gap()
        yield words_of(self._words("locked_help", minutes=self._minutes))

    def on_mount(self) -> None:
        """Told by Textual."""
        self.set_timer(LOCKED_SECONDS, lambda: self.finish(None))

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key in {"enter", "escape"}:
            self.finish(None)
