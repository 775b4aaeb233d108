"""The screen shown while a request is carried out."""

from collections.abc import Iterator

from textual import events
from textual.widget import Widget

from client.portal.frame import PortalScreen, gap, words_of
from client.portal.progress import Waiting
from client.words import Words


class SchedulingScreen(PortalScreen[None]):
    """Is answered when the technician does not want to wait, and says so twice."""

    def __init__(
        self,
        title: tuple[str, str],
        words: Words,
        *,
        item_title: str,
        name: str,
        request_id: str,
    ) -> None:
        super().__init__(title, words("scheduling_help"))
        self._words = words
        self._item_title = item_title
        self._name = name
        self._request_id = request_id
        self._state = words_of("")
        self._question = words_of("", classes="warn")
        self._asking = False
        self.is_safe = False

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield words_of(self._words("scheduling", item=self._item_title), classes="strong")
        yield gap()
        if self._name:
            yield words_of(self._words("scheduling_name", name=self._name))
        yield words_of(self._words("request", request_id=self._request_id))
        yield gap()
        yield Waiting()
        yield self._state
        yield gap()
        yield self._question

    def accepted(self) -> None:
        """The site has the request safely."""
        self.is_safe = True
        self._state.update(self._words("scheduling_waits"))

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "escape":
            if self._asking:
                self.finish(None)
            self._ask(True)
        elif event.key == "enter":
            self._ask(False)

    def _ask(self, asking: bool) -> None:
        self._asking = asking
        self._question.update(self._words("leave") if asking else "")
        self.help(self._words("leave_help" if asking else "scheduling_help"))
