"""What all screens of the portal share: title, body, a notice and a line of help."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from client.portal.terminal import cut, spread

Result = TypeVar("Result")
_LOW = 16
"""Fewer lines than this leave no room for empty ones."""


class Bar(Widget):
    """One line with a text at each end."""

    def __init__(self, left: str, right: str = "", classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._texts = (left, right)

    def say(self, left: str, right: str = "") -> None:
        """Shows other texts."""
        if (left, right) != self._texts:
            self._texts = (left, right)
            self.refresh()

    def render(self) -> Content:
        """The line, over the whole width; never read as markup."""
        return Content(spread(*self._texts, self.size.width))

    @property
    def texts(self) -> tuple[str, str]:
        """What it shows, uncut."""
        return self._texts


class Rule(Widget):
    """A line across the screen."""

    def render(self) -> Content:
        """ASCII, which every console and serial line has."""
        return Content("-" * self.size.width)


class PortalScreen(Screen[None], Generic[Result]):
    """A screen that asks the technician one thing and then holds the ``answer``."""

    def __init__(self, title: tuple[str, str], help_text: str) -> None:
        super().__init__()
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._bar = Bar(*title, classes="title")
        self._help = Line(help_text, "help")
        self._notice = Static("", id="notice", markup=False)

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Told by Textual."""
        yield self._bar
        yield Rule()
        with Vertical(id="body"):
            yield from self.body()
        yield self._notice
        yield Rule()
        yield self._help

    def finish(self, result: Result) -> None:
        """Answers, unless it was answered before."""
        if not self.answer.done():
            self.answer.set_result(result)

    def notice(self, text: str) -> None:
        """Says what goes on behind the screen; nothing when all is well."""
        if str(self._notice.content) != text:
            self._notice.update(text)

    def headed(self, title: tuple[str, str]) -> None:
        """Shows another title."""
        self._bar.say(*title)

    def help(self, text: str) -> None:
        """Says which keys do what."""
        self._help.say(text)

    def on_resize(self, event: events.Resize) -> None:
        """Told by Textual."""
        self.set_class(event.size.height < _LOW, "-low")


class Line(Widget):
    """One line of text, cut with an ellipsis."""

    def __init__(self, text: str, identity: str | None = None) -> None:
        super().__init__(id=identity)
        self._text = text

    def say(self, text: str) -> None:
        """Shows another text."""
        if text != self._text:
            self._text = text
            self.refresh()

    def render(self) -> Content:
        """The text, as much as fits; never read as markup."""
        return Content(cut(self._text, self.content_size.width))


def words_of(text: str, *, classes: str = "") -> Static:
    """A text that wraps; what looks like markup in it is shown as it is."""
    return Static(text, markup=False, classes=classes)


def gap() -> Static:
    """An empty line, where there is room for one."""
    return Static("", markup=False, classes="gap")
