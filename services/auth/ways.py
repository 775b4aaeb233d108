"""What every way of signing in has in common."""

from typing import Final, Protocol

from bus.technicians import Technician

LONGEST_NAME: Final = 256
"""Characters of a user name, as it is typed."""
LONGEST_PASSWORD: Final = 1024
"""Characters of a password."""


class SignInRefused(Exception):
    """The sign-in was not accepted; ``reason`` is for the log, never for the screen."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DirectoryUnavailable(Exception):
    """Nobody could be asked who this is; the text is for the log."""


class WayIn(Protocol):
    """One way of signing in: a shared password, accounts of the site, a directory."""

    def account(self, username: str | None) -> str | None:
        """The one name under which the tries of an account are counted, whether it exists or not.

        None where there are no accounts.
        """

    async def sign_in(self, username: str | None, password: str) -> Technician | None:
        """Who this is; None where there are no accounts.

        Raises:
            SignInRefused: it is nobody, or not now.
            DirectoryUnavailable: who it is cannot be told now.
        """
