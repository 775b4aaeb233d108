"""Protection ``hash``: one password for all."""

import contextlib

import structlog

from bus.events import EventLog, NotKeptError
from bus.option_store import LiveOptions, OptionStore
from bus.options import PASSWORD
from services.auth.passwords import OLD, Passwords
from services.auth.ways import SignInRefused


class SharedPassword:
    """Lets in who knows the password of the site."""

    def __init__(
        self, options: LiveOptions, store: OptionStore, passwords: Passwords, events: EventLog
    ) -> None:
        self._options = options
        self._store = store
        self._passwords = passwords
        self._events = events
        self._log = structlog.get_logger("auth")

    def account(self, _username: str | None) -> None:
        """There are no accounts."""

    async def sign_in(self, _username: str | None, password: str) -> None:
        """Verifies the password.

        Raises:
            SignInRefused: it is another one.
            Problem: ``overloaded``.
        """
        known = self._options.password_hash
        if known is None:
            self._log.error("the site is protected by a password that nobody has set")
            raise SignInRefused("no password is set")
        if not await self._passwords.verify(known, password):
            raise SignInRefused("wrong password")
        if known.startswith(OLD):
            await self._replace(known, password)

    async def _replace(self, known: str, password: str) -> None:
        """An old hash has served once; whoever changed the password meanwhile is right."""
        fresh = await self._passwords.hash(password)
        if await self._store.replace(PASSWORD, fresh.encode(), known.encode()):
            with contextlib.suppress(NotKeptError):
                await self._events.record(
                    "option_changed", details={"option": "password", "why": "old hash replaced"}
                )
