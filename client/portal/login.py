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

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield gap()
        yield words_of(self._words("login"))
        yield gap()
        if self._username is not None:
            yield words_of(self._words("username"))
            yield self._username
            yield gap()
        yield words_of(self._words("password"))
        yield self._password
        yield gap()
        yield words_of(self._message)

    def on_mount(self) -> None:
        """Told by Textual."""
        empty = self._username is not None and not self._username.text
        self.set_focus(self._username if empty else self._password)

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        if event.key == "escape":
            self.finish(None)
        elif event.key in {"up", "down"} and self._username is not None:
            on_name = self.focused is self._username
            self.set_focus(self._password if on_name else self._username)
        elif event.key == "enter":
            if self._username is not None and self.focused is self._username:
                self.set_focus(self._password)
            elif self._password.text:
                name = None if self._username is None else self._username.text.strip()
                self.finish(Credentials(self._password.text, name))
