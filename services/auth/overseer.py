"""Sees boot clients come and go, by the system account, and ends those that may not stay.

The server tells of each that comes and goes (NATS, "System Events"); all copies of the service hear
of all. What is missed while the line is down is found by counting anew.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import Connection, backoff
from bus.messages import decoder, encode
from bus.waiting import end
from services.auth.presences import Found, Line, Presences

COUNT_EVERY: Final = 300.0
"""Seconds after which it is counted anew, in case a word of the server was lost."""
_ROUND: Final = 0.5
"""Seconds in which the servers answer."""
_PAGE: Final = 1024
"""Connections that a server tells of at once."""
_STEP: Final = 768
"""Connections from one page to the next: while one is read some of those before it may go, and the
others move up."""
_PAGES: Final = 100


class _Server(Struct, frozen=True):
    id: str = ""


class _Client(Struct, frozen=True):
    id: int = 0
    host: str = ""
    user: str = ""
    issuer_key: str = ""


class _Advisory(Struct, frozen=True):
    """What a server tells of a client that comes or goes, as far as it matters here."""

    server: _Server = _Server()
    client: _Client = _Client()


class _Connection(Struct, frozen=True):
    cid: int
    ip: str = ""
    start: datetime | None = None
    authorized_user: str = ""
    issuer_key: str = ""


class _Connections(Struct, frozen=True):
    total: int = 0
    connections: tuple[_Connection, ...] = ()


class _Page(Struct, frozen=True):
    """What a server answers of its connections."""

    server: _Server = _Server()
    data: _Connections = _Connections()


class _AskPage(Struct, frozen=True):
    offset: int
    limit: int
    auth: bool = True


class _Kick(Struct, frozen=True):
    cid: int


_advisory = decoder(_Advisory)
_page = decoder(_Page)


class Overseer:
    """Keeps `Presences` as the server sees it, and ends connections.

    ``connection`` is one of the system account, ``account`` the site's account, and ``signer`` the
    public key that has signed the users who are boot clients.
    """

    def __init__(
        self,
        connection: Connection,
        account: str,
        signer: str,
        presences: Presences,
        revoked: Callable[[], Mapping[str, float]],
    ) -> None:
        self._connection = connection
        self._account = account
        self._signer = signer
        self._presences = presences
        self._revoked = revoked
        self._doomed: dict[Line, None] = {}
        self._wanted = asyncio.Event()
        self._stale = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("callout")
        connection.on_reconnect(self._stale.set)

    async def start(self) -> None:
        """Returns when it is known who is there."""
        for subject, told in (
            (subjects.connected(self._account), self._came),
            (subjects.disconnected(self._account), self._went),
        ):
            await self._connection.subscribe(subject, cb=told)
        await self._connection.flush()
        await self._count()
        self._tasks = [asyncio.create_task(self._end_them()), asyncio.create_task(self._recount())]

    async def stop(self) -> None:
        """Sees no more."""
        for task in self._tasks:
            await end(task)

    async def sign_of_life(self) -> None:
        """Raises if nobody could be ended.

        Raises:
            nats.errors.Error: the line is down.
        """
        if not self._connection.is_connected or any(task.done() for task in self._tasks):
            raise nats.errors.ConnectionClosedError

    def end_revoked(self) -> None:
        """Ends the connections of images that are revoked."""
        self._end(self._presences.revoked(self._revoked()))

    def _end(self, lines: Iterable[Line]) -> None:
        self._doomed |= dict.fromkeys(lines)
        if self._doomed:
            self._wanted.set()

    async def _came(self, message: Msg) -> None:
        with contextlib.suppress(ValueError):
            told = _advisory.decode(message.data)
            if told.client.issuer_key == self._signer:
                line = Line(told.server.id, told.client.id)
                surplus = self._presences.came(
                    line, told.client.user, told.client.host, time.time()
                )
                self._end(surplus)

    async def _went(self, message: Msg) -> None:
        with contextlib.suppress(ValueError):
            told = _advisory.decode(message.data)
            self._presences.went(Line(told.server.id, told.client.id))

    async def _end_them(self) -> None:
        attempt = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while self._doomed:
                    line = next(iter(self._doomed))
                    # A server does nothing for who wants no answer. The answer that counts is that
                    # of another subject: the connection has gone.
                    await self._connection.publish(
                        subjects.kick(line.server),
                        encode(_Kick(line.number)),
                        reply=self._connection.new_inbox(),
                    )
                    del self._doomed[line]
                    attempt = 0
            except nats.errors.Error as error:
                self._log.warning("a connection cannot be ended", error=type(error).__name__)
                await asyncio.sleep(backoff(attempt))
                attempt += 1
                self._wanted.set()

    async def _recount(self) -> None:
        attempt = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COUNT_EVERY):
                    await self._stale.wait()
            self._stale.clear()
            try:
                await self._count()
                attempt = 0
            except (nats.errors.Error, TimeoutError) as error:
                self._log.warning("connections cannot be counted", error=type(error).__name__)
                await asyncio.sleep(backoff(attempt))
                attempt += 1
                self._stale.set()

    async def _count(self) -> None:
        began = time.time()
        self._presences.begin_count()
        found: list[Found] = []
        for page in range(_PAGES):
            answers = await self._ask(page * _STEP)
            found += [
                Found(
                    Line(answer.server.id, each.cid),
                    each.authorized_user,
                    each.ip,
                    each.start.timestamp() if each.start else began,
                )
                for answer in answers
                for each in answer.data.connections
                if each.issuer_key == self._signer
            ]
            if all(answer.data.total <= page * _STEP + _PAGE for answer in answers):
                break
        self._end(self._presences.counted(found, began))
        self.end_revoked()

    async def _ask(self, offset: int) -> list[_Page]:
        """What each server says of its connections from ``offset`` on.

        Raises:
            nats.errors.Error: the line is down, or no server has answered.
        """
        answers: list[_Page] = []

        async def heard(message: Msg) -> None:
            with contextlib.suppress(ValueError):
                answers.append(_page.decode(message.data))

        inbox = self._connection.new_inbox()
        listening = await self._connection.subscribe(inbox, cb=heard)
        try:
            question = encode(_AskPage(offset, _PAGE))
            subject = subjects.connections(self._account)
            await self._connection.publish(subject, question, reply=inbox)
            await asyncio.sleep(_ROUND)
        finally:
            with contextlib.suppress(nats.errors.Error):
                await listening.unsubscribe()
        if not answers:
            raise nats.errors.TimeoutError
        return answers
