"""The other copies of the menu service at a site: who has looked at the database just now.

A copy asks all others before it looks itself, and whoever has looked within the last half second
answers what was seen and how long ago. What it says of the time needs neither equal clocks nor a
fast bus: the answer was given after the question was sent, so what was seen is no older than told,
counted from the question on.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus import subjects
from bus.connection import Connection
from bus.messages import decoder, encode
from bus.waiting import end

YOUNG: Final = 0.5
"""Seconds for which a copy tells others of what it has seen."""
_COMPANY: Final = 10.0
"""Seconds for which a copy that was heard of is believed to be there."""


class Sight(Struct, frozen=True):
    """The fingerprint that the job tree had at a moment of the own clock, or later."""

    fingerprint: str
    at: float


class _Told(Struct, frozen=True):
    fingerprint: str
    age: float


_told_decoder: Final = decoder(_Told)

Last = Callable[[], Awaitable[Sight | None]]
"""What this copy has seen last; waits for what it is looking at now."""


class Copies:
    """Asks the other copies of a site, and answers them."""

    def __init__(self, connection: Connection, site: str, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._subject = subjects.menu_checked(site)
        self._clock = clock
        self._id = secrets.token_hex(8).encode()
        self._heard_at = float("-inf")
        self._subscription: Subscription | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("menu")

    @property
    def there(self) -> bool:
        """Whether there are others, as far as is known."""
        return self._clock() - self._heard_at < _COMPANY

    async def start(self, last: Last) -> None:
        """Answers the others from now on."""

        async def hear(message: Msg) -> None:
            if message.data == self._id:
                return
            self._heard_at = self._clock()
            if message.reply:
                task = asyncio.create_task(self._answer(message, last))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

        self._subscription = await self._connection.subscribe(self._subject, cb=hear)

    async def stop(self) -> None:
        """Answers no longer."""
        if self._subscription:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()
        for task in list(self._answering):
            await end(task)

    async def ask(self, patience: float) -> Sight | None:
        """What one of them has just seen; None if none says anything within ``patience`` seconds.

        If there are none, nobody is waited for; but those who come learn that this one is there.
        """
        asked = self._clock()
        try:
            if not self.there:
                await self._connection.publish(self._subject, self._id)
                return None
            reply = await self._connection.request(self._subject, self._id, timeout=patience)
            told = _told_decoder.decode(reply.data)
        except (nats.errors.Error, TimeoutError, ValueError):
            return None
        return Sight(told.fingerprint, asked - max(0.0, told.age))

    async def _answer(self, question: Msg, last: Last) -> None:
        seen = await last()
        age = self._clock() - seen.at if seen else YOUNG
        if seen and age < YOUNG:
            with contextlib.suppress(nats.errors.Error):
                await question.respond(encode(_Told(seen.fingerprint, age)))
