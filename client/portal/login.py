"""The screen that asks who is there."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from textual import events
from textual.widget import Widget

from client.portal.field import Field
from client.portal.frame import PortalScreen, gap, words_of
from client.words import Words


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a technician signs in with."""

    password: str = field(repr=False)
    username: str | None = None


class LoginScreen(PortalScreen[Credentials | None]):
    """Answers what was typed, or None when the technician leaves.

    A ``username`` of None asks for the password alone.
    """

    def __init__(
        self, title: tuple[str, str], words: Words, username: str | None, message: str
    ) -> None:
        super().__init__(title, words("login_help"))
        self._words = words
        self._username = None if username is None else Field(username)
        self._password = Field(secret=True)
        self._message = message
        named = self._username is None or bool(self._username.text)
        self._active = self._password if named else self._username or self._password
        self._active.activate(True)

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield words_of(self._words("login"), classes="strong")
        yield gap()
        if self._username is not None:
            yield words_of(self._words("username"))
            yield self._username
            yield gap()
        yield words_of(self._words("password"))
        yield self._password
        yield gap()
        yield words_of(self._message, classes="bad")

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        match event.key:
            case "escape":
                self.finish(None)
            case "enter" if self._active is self._username:
                self._go_to(self._password)
            case "enter":
                self._sign_in()
            case "up" | "down" | "tab" | "shift+tab":
                other = self._username if self._active is self._password else self._password
                self._go_to(other or self._password)
            case _:
                self._active.press(event)

    def on_paste(self, event: events.Paste) -> None:
        """Told by Textual."""
        self._active.insert(event.text)

    def _go_to(self, field: Field) -> None:
        self._active.activate(False)
        self._active = field
        self._active.activate(True)

    def _sign_in(self) -> None:
        if self._password.text:
            name = None if self._username is None else self._username.text.strip()
            self.finish(Credentials(self._password.text, name))
