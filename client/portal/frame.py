"""What all screens of the portal share: title, body, a notice and a line of help."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Size
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from client.portal.style import BAR, BAR_STRONG, KEYS, KEYS_STRONG
from client.portal.terminal import cut, help_lines, spread

Result = TypeVar("Result")
_LOW = 16
"""Fewer lines than this leave no room for empty ones."""
_NARROW = 60
"""Fewer columns than this leave no room for a margin."""


class Bar(Widget):
    """One line with a text at each end."""

    def __init__(self, left: str, right: str = "") -> None:
        super().__init__()
        self._texts = (left, right)

    def say(self, left: str, right: str = "") -> None:
        """Shows other texts."""
        if (left, right) != self._texts:
            self._texts = (left, right)
            self.refresh()

    def render(self) -> Content:
        """The line, over the whole width; never read as markup."""
        return Content(spread(*self._texts, self.size.width))


class Title(Bar):
    """The first line: what this is, and for which machine at which site."""

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        width = self.size.width
        if y or width < 2:
            return Strip.blank(width)
        line = spread(*self._texts, width - 2)
        at = min(len(self._texts[0]), len(line))
        return Strip([Segment(f" {line[:at]}", BAR_STRONG), Segment(f"{line[at:]} ", BAR)], width)


class Help(Widget):
    """The last lines: which keys do what."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def say(self, text: str) -> None:
        """Shows another text."""
        if text != self._text:
            self._text = text
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Told by Textual."""
        return len(help_lines(self._text, width - 2))

    def render_line(self, y: int) -> Strip:
        """Told by Textual."""
        width = self.size.width
        lines = help_lines(self._text, width - 2)
        if y >= len(lines) or width < 2:
            return Strip.blank(width)
        segments = [Segment(" ", KEYS)]
        for part in lines[y]:
            key, space, what = part.partition(" ")
            is_key = key.isupper() or len(key) == 1
            segments.append(Segment(key, KEYS_STRONG if is_key else KEYS))
            segments.append(Segment(f"{space}{what}   ", KEYS))
        return Strip(segments).adjust_cell_length(width, KEYS).crop(0, width)


class PortalScreen(Screen[None], Generic[Result]):
    """A screen that asks the technician one thing and then holds the ``answer``."""

    def __init__(self, title: tuple[str, str], help_text: str) -> None:
        super().__init__()
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._bar = Title(*title)
        self._help = Help(help_text)
        self._notice = Static("", id="notice", markup=False)

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Told by Textual."""
        yield self._bar
        with Vertical(id="body"):
            yield from self.body()
        yield self._notice
        yield self._help

    def finish(self, result: Result) -> None:
        """Answers, unless it was answered before."""
        if not self.answer.done():
            self.answer.set_result(result)

    def notice(self, text: str) -> None:
        """Says what goes on behind the screen; nothing when all is well."""
        text = f"! {text}" if text else ""
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
        self.set_class(event.size.width < _NARROW, "-narrow")


class Line(Widget):
    """One line of text, cut with an ellipsis."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def say(self, text: str) -> None:
        """Shows another text."""
        if text != self._text:
            self._text = text
            self.refresh()

    def render(self) -> Content:
        """The text, as much as fits; never read as markup."""
        return Content(cut(self._text, self.size.width))


def words_of(text: str, *, classes: str = "") -> Static:
    """A text that wraps; what looks like markup in it is shown as it is."""
    return Static(text, markup=False, classes=classes)


def gap() -> Static:
    """An empty line, where there is room for one."""
    return Static("", markup=False, classes="gap")
