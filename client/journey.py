"""The conversation of one machine with the services of its site; patient, and without a screen."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import count
from typing import Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import nats.errors

from bus import subjects
from bus.__about__ import __version__
from bus.connection import BusUnavailableError, Connection, ask, backoff, connect, jittered
from bus.contract import LOGIN, SCHEDULE, STATUS, WELCOME, WHERE, Endpoint, FromMachine
from bus.door import Door, DoorError, UnprotectedError
from bus.machines import machine_key
from bus.menus import ask_menu
from bus.messages import (
    AskStatus,
    ClientInfo,
    Hello,
    Login,
    Machine,
    Menu,
    Outcome,
    Schedule,
    Session,
    ShowMenu,
    Welcome,
    Where,
)
from bus.problems import RETRIABLE, Problem
from client.system import system
from client.troubles import OF_NETWORK, Notice, of_network, trouble

_PATIENCE: Final = 5.0
"""Seconds to wait for one answer."""
_POLL: Final = 0.2
"""Seconds to the second look at a request that is being carried out; each waits for a while."""
_LONGEST_POLL: Final = 2.0
_FAREWELL: Final = 1.0
"""Seconds the connection may take to close."""
NEEDS_LOGIN: Final = frozenset({"login_required", "session_expired"})

Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")


class Journey:
    """What a boot client asks its site, from the first connection to the last answer.

    ``notify`` is told what keeps an answer from coming, and None when it came after all. Where no
    ``site`` is named the bus is asked for it, before anything else. ``hear_time`` is told the
    server's time of each welcome.
    """

    def __init__(
        self,
        server: str,
        site: str | None,
        machine: Machine,
        notify: Callable[[Notice | None], None],
        door: Door | None = None,
        hear_time: Callable[[datetime], None] | None = None,
    ) -> None:
        self._server = server
        self._site = site
        self._machine = machine
        self._visit = str(uuid4())
        self._notify = notify
        self._door = door
        self._hear_time = hear_time
        self._connection: Connection | None = None
        self._line_down = False

    async def connect(self) -> None:
        """Connects, as the first question would too; waits for the bus as long as it takes."""
        await self._connected()

    async def welcome(self) -> Welcome:
        """What the portal needs to begin with; waits for the site as long as it takes.

        Raises:
            Problem: the site will not serve this machine.
        """
        client = ClientInfo(version=__version__, environment=system.ENVIRONMENT)
        question = Hello(machine=self._machine, client=client, visit=self._visit)
        return await self._until_answered(lambda: self._welcomed(question))

    async def login(self, password: str, username: str | None = None) -> Session:
        """Signs in, once: a failed try counts, so none is repeated unasked.

        Raises:
            Problem: the sign-in was not accepted.
            BusUnavailableError: nobody answered.
        """
        question = Login(machine=self._machine, password=password, username=username)
        return await self._ask(LOGIN, question)

    async def show(self, token: str | None) -> Menu:
        """The menu; waits for it as long as it takes.

        Raises:
            Problem: the site will not show one.
        """
        question = ShowMenu(machine=self._machine, token=token, visit=self._visit)
        return await self._until_answered(lambda: self._ask_menu(question))

    def wish(self, request_id: str, item_id: str, name: str | None) -> Schedule:
        """A request of this machine; a name of None leaves the naming to the site."""
        return Schedule(
            request_id=request_id, machine=self._machine, item_id=item_id, computer_name=name
        )

    async def schedule(self, wish: Schedule, accepted: Callable[[], None]) -> Outcome:
        """Sends a request until its outcome is final, however often the line breaks.

        It is one request to the site, since its id stays the same. ``accepted`` is called when the
        site has it safely. A refusal is an outcome too.

        Raises:
            Problem: ``login_required`` or ``session_expired``; to be sent again with a new token.
        """
        looks = count()
        while True:
            try:
                outcome = await self._insist(SCHEDULE, wish)
                while outcome.state == "accepted":
                    accepted()
                    # What takes long does so for many: they must not all ask again and again.
                    await asyncio.sleep(jittered(next(looks), _POLL, _LONGEST_POLL))
                    question = AskStatus(
                        machine=self._machine, request_id=wish.request_id, wait=True
                    )
                    outcome = await self._insist(STATUS, question)
            except Problem as problem:
                if problem.code == "unknown_request":
                    await asyncio.sleep(jittered(next(looks), _POLL, _LONGEST_POLL))
                    continue
                if problem.code in NEEDS_LOGIN:
                    raise
                return Outcome(request_id=wish.request_id, state="rejected", problem=problem.body())
            return outcome

    async def close(self) -> None:
        """Leaves the bus."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                async with asyncio.timeout(_FAREWELL):
                    await connection.close()
            except (nats.errors.Error, OSError, TimeoutError):
                return

    async def _insist(self, endpoint: Endpoint[Asked, Answered], question: Asked) -> Answered:
        return await self._until_answered(lambda: self._ask(endpoint, question))

    async def _until_answered(self, asking: Callable[[], Awaitable[Answered]]) -> Answered:
        attempt = 0
        while True:
            pause = 0.0
            try:
                answer = await asking()
            except BusUnavailableError:
                self._trouble(of_network(self._server) or Notice("trouble_service"))
            except Problem as problem:
                if problem.code not in RETRIABLE:
                    self._over()
                    raise
                self._trouble(Notice("trouble_problem", problem.message, problem.code))
                pause = problem.details.retry_after or 0.0
            else:
                self._over()
                return answer
            await asyncio.sleep(max(backoff(attempt), min(pause, 60.0)))
            attempt += 1

    async def _welcomed(self, question: Hello) -> Welcome:
        site = self._site or await self._found_site()
        welcome = await self._ask(WELCOME, question, site)
        self._site = site
        if self._hear_time is not None:
            self._hear_time(welcome.server_time)
        return welcome

    async def _found_site(self) -> str:
        """The site of this machine, as the bus knows it; if need be, by way of that site's bus."""
        try:
            here = await self._ask(WHERE, Where(machine=self._machine), subjects.ESTATE)
        except BusUnavailableError as error:
            if isinstance(error.__cause__, nats.errors.NoRespondersError):
                # A site of an older release, which does not tell. If it only starts, it is asked
                # again: no other site answers with a welcome meanwhile, unless it is this one.
                return subjects.DEFAULT_SITE
            raise
        if here.servers and not self._is_at(here.servers):
            await self._move_to(here.servers)
        return here.site

    def _is_at(self, servers: Sequence[str]) -> bool:
        url = self._connection.connected_url if self._connection else None
        return url is not None and url.netloc in {urlsplit(each).netloc for each in servers}

    async def _move_to(self, servers: Sequence[str]) -> None:
        try:
            if self._door:
                self._door.check(servers)
        except UnprotectedError:
            raise Problem(
                "unknown_site",
                "The server of this site is known by an address without encryption, so nothing is "
                "told to it. Ask an operator to register it as tls://HOST:PORT.",
            ) from None
        await self.close()
        self._server = ",".join(servers)

    async def _ask(
        self, endpoint: Endpoint[Asked, Answered], question: Asked, site: str | None = None
    ) -> Answered:
        connection = await self._connected()
        key = machine_key(self._machine)
        site = site or self._site or subjects.DEFAULT_SITE
        return await ask(connection, site, endpoint, key, question, timeout=_PATIENCE)

    async def _ask_menu(self, question: ShowMenu) -> Menu:
        connection = await self._connected()
        key = machine_key(self._machine)
        site = self._site or subjects.DEFAULT_SITE
        return await ask_menu(connection, site, key, question, timeout=_PATIENCE)

    async def _connected(self) -> Connection:
        if self._connection is None:
            key = machine_key(self._machine)
            self._connection = await connect(
                self._server,
                key,
                inbox=subjects.inbox(key),
                report=self._heard,
                door=self._door,
            )
            self._connection.on_disconnect(self._down)
            self._connection.on_reconnect(self._up)
        return self._connection

    async def _heard(self, error: Exception) -> None:
        notice = trouble(error, self._server, self._door)
        # What keeps us out, or off the network, tells more than that the line is down.
        if notice and (
            not self._line_down or isinstance(error, DoorError) or notice.text in OF_NETWORK
        ):
            self._notify(notice)

    def _down(self) -> None:
        if self._connection is None:
            return  # it is us who leave
        self._line_down = True
        self._notify(Notice("lost"))

    def _up(self) -> None:
        self._line_down = False
        self._notify(None)

    def _trouble(self, notice: Notice) -> None:
        if not self._line_down:
            self._notify(notice)

    def _over(self) -> None:
        self._line_down = False
        self._notify(None)
