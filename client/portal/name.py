"""The screen with the computer's name."""

from collections.abc import Iterator
from dataclasses import dataclass

from textual import events
from textual.widget import Widget

from bus.messages import Welcome
from client.naming import complaint
from client.portal.field import Field
from client.portal.frame import PortalScreen, gap, words_of
from client.words import Words, plain


@dataclass(frozen=True, slots=True)
class Named:
    """The name as it stands on the screen."""

    name: str


class NameScreen(PortalScreen[Named | None]):
    """Answers the name, or None when the technician goes back.

    The name of a known computer is only shown where it may not be changed. ``message`` is what the
    site had against ``typed``.
    """

    def __init__(
        self,
        title: tuple[str, str],
        words: Words,
        welcome: Welcome,
        item_title: str,
        *,
        typed: str | None = None,
        message: str = "",
    ) -> None:
        fixed = welcome.computer is not None and not welcome.may_rename
        super().__init__(title, words("name_fixed_help" if fixed else "name_help"))
        self._words = words
        self._welcome = welcome
        self._item_title = item_title
        self._known = plain(welcome.computer.name) if welcome.computer else None
        offered = self._known if self._known is not None else plain(welcome.suggested_name)
        self._field = None if fixed else Field(offered if typed is None else typed)
        if self._field is not None:
            self._field.activate(True)
        self._rules = plain(welcome.name_rules.hint)
        self._message = words_of(message or self._rules)

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        words = self._words
        yield words_of(words("name_item", item=self._item_title), classes="strong")
        yield gap()
        if self._known is None:
            yield words_of(words("name_unknown"), classes="warn")
        else:
            yield words_of(words("name_known", name=self._known))
        yield gap()
        if self._field is None:
            yield words_of(words("name_fixed"))
        else:
            yield words_of(words("name"))
            yield self._field
            yield gap()
            yield self._message

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "escape":
            self.finish(None)
        elif event.key == "enter":
            wrong = self._complaint()
            if wrong:
                self._message.update(wrong)
            else:
                self.finish(Named(self._known or "" if self._field is None else self._field.text))
        elif self._field is not None:
            before = self._field.text
            self._field.press(event)
            self._check(before)

    def on_paste(self, event: events.Paste) -> None:
        """Told by Textual."""
        if self._field is not None:
            before = self._field.text
            self._field.insert(event.text)
            self._check(before)

    def _check(self, before: str) -> None:
        if self._field is not None and self._field.text != before:
            self._message.update(self._complaint() or self._rules)

    def _complaint(self) -> str:
        # A known computer's own name stands, whatever the rules have become since.
        if self._field is None or self._field.text == self._known:
            return ""
        return complaint(self._words, self._field.text, self._welcome.name_rules)
