"""A small honest site for the tests of the boot client: a real NATS server and a real responder."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import connect
from bus.contract import LOGIN, SCHEDULE, SHOW, STATUS, WELCOME, Endpoint, FromMachine
from bus.door import Door
from bus.machines import machine_key
from bus.messages import (
    AskStatus,
    ComputerRef,
    Details,
    Entry,
    FolderEntry,
    Hello,
    ItemEntry,
    JobRef,
    Login,
    Machine,
    Menu,
    Outcome,
    Schedule,
    ScheduledComputer,
    Session,
    ShowMenu,
    Welcome,
    encode,
)
from bus.names import name_rules
from bus.problems import Problem

MACHINE = Machine(
    uuid="4c4c4544-0042-3510-8052-b4c04f4d3132",
    serial="7XK2P12",
    macs=("52:54:00:12:34:56",),
    manufacturer="Dell Inc.",
    model="OptiPlex 7010",
)
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")


def welcome(site: str = "main", **changes: object) -> Welcome:
    usual = Welcome(
        site=site,
        protection="none",
        timeout=60,
        menu_type="flat",
        computer=ComputerRef(id=7, name="PC-0815"),
        may_rename=True,
        suggested_name="7XK2P12",
        name_rules=name_rules(15),
        text={},
        server_time=NOW,
    )
    return msgspec.structs.replace(usual, **changes)


def items(*titles: str) -> tuple[Entry, ...]:
    return tuple(
        ItemEntry(id=f"job:{number}", title=title) for number, title in enumerate(titles, 1)
    )


def menu(*entries: Entry, stale: bool = False) -> Menu:
    folders = any(isinstance(each, FolderEntry) for each in entries)
    return Menu(version="1", type="folders" if folders else "flat", stale=stale, entries=entries)


class Site:
    """Answers the endpoints of one site as it was told to; keeps what it was asked."""

    def __init__(self, url: str, site: str, door: Door | None = None) -> None:
        self.url = url
        self._door = door
        self.site = site
        self.welcome = welcome(site)
        self.menu = menu(*items("Windows 11 Staff", "Windows 11 Public", "Ubuntu 24.04"))
        self.password = "let me in"
        self.tries = 3
        self.tokens: set[str] = set()
        self.taken = {"TAKEN"}
        self.problems: dict[str, list[Problem]] = {}
        """What a verb answers first, one after the other."""
        self.silent: set[str] = set()
        """The verbs that do not answer; a request is carried out all the same."""
        self.polls = 0
        """How often a request is only ``accepted`` before it is carried out."""
        self.jobs = (JobRef(id=11, name="Wipe disk"), JobRef(id=12, name="Lay the image"))
        self.replaced = 0
        self.hellos: list[Hello] = []
        self.logins: list[Login] = []
        self.shown: list[ShowMenu] = []
        self.sent: list[Schedule] = []
        self.outcomes: dict[str, Outcome] = {}
        """The requests that were carried out."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Site"]:
        connection = await connect(self.url, "site", report=_quiet, door=self._door)
        await self._serve(connection, WELCOME, self._welcome)
        await self._serve(connection, LOGIN, self._login)
        await self._serve(connection, SHOW, self._show)
        await self._serve(connection, SCHEDULE, self._schedule)
        await self._serve(connection, STATUS, self._status)
        await connection.flush()
        try:
            yield self
        finally:
            await connection.close()

    async def _serve(
        self,
        connection: Client,
        endpoint: Endpoint[Asked, Answered],
        answer: Callable[[Asked], Awaitable[Answered]],
    ) -> None:
        async def on_message(message: Msg) -> None:
            assert message.reply.startswith("_INBOX_")
            question = endpoint.asked_decoder.decode(message.data)
            assert subjects.machine_of(message.subject) == machine_key(question.machine)
            body, headers = b"", None
            try:
                waiting = self.problems.get(endpoint.verb)
                if waiting:
                    raise waiting.pop(0)
                body = encode(await answer(question))
            except Problem as problem:
                body, headers = problem.wire()
            if endpoint.verb not in self.silent:
                await connection.publish(message.reply, body, headers=headers)

        subject = subjects.endpoint(self.site, endpoint.service, endpoint.verb)
        await connection.subscribe(subject, queue=endpoint.service, cb=on_message)

    async def _welcome(self, question: Hello) -> Welcome:
        self.hellos.append(question)
        return self.welcome

    async def _login(self, question: Login) -> Session:
        self.logins.append(question)
        if self.tries <= 0:
            raise Problem("locked_out", details=Details(retry_after=290.0))
        if question.password != self.password:
            self.tries -= 1
            wait = None if self.tries else 290.0
            raise Problem(
                "login_failed", details=Details(attempts_left=self.tries, retry_after=wait)
            )
        token = f"token-{len(self.logins)}"
        self.tokens.add(token)
        return Session(token=token, expires_at=datetime.now(UTC) + timedelta(hours=1))

    async def _show(self, question: ShowMenu) -> Menu:
        self.shown.append(question)
        self._check(question.token)
        return self.menu

    async def _schedule(self, question: Schedule) -> Outcome:
        self.sent.append(question)
        self._check(question.token)
        name = question.computer_name
        if name in self.taken:
            raise Problem("name_taken")
        if question.request_id not in self.outcomes:
            self.outcomes[question.request_id] = self._carried_out(question)
        return self._outcome(question.request_id)

    async def _status(self, question: AskStatus) -> Outcome:
        if question.request_id not in self.outcomes:
            raise Problem("unknown_request")
        return self._outcome(question.request_id)

    def _outcome(self, request_id: str) -> Outcome:
        if self.polls > 0:
            self.polls -= 1
            return Outcome(request_id=request_id, state="accepted")
        return self.outcomes[request_id]

    def _carried_out(self, question: Schedule) -> Outcome:
        known = self.welcome.computer
        name = question.computer_name or (known.name if known else self.welcome.suggested_name)
        renamed = known is not None and name != known.name
        return Outcome(
            request_id=question.request_id,
            state="scheduled",
            computer=ScheduledComputer(
                id=7,
                name=name,
                created=known is None,
                renamed_from=known.name if known and renamed else None,
            ),
            jobs=self.jobs,
            replaced=self.replaced,
            start_at=question.start_at,
        )

    def _check(self, token: str | None) -> None:
        if self.welcome.protection == "none":
            return
        if token is None:
            raise Problem("login_required")
        if token not in self.tokens:
            raise Problem("session_expired")


async def until(
    condition: Callable[[], bool], complain: Callable[[], str], seconds: float = 10
) -> None:
    """Waits for something to become true; says what did not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complain()
        await asyncio.sleep(0.03)


def site_name(node: str) -> str:
    """A site of its own for each test, so that tests may share a server."""
    return re.sub("[^a-z0-9-]", "-", node.lower())[-32:]


async def _quiet(_error: Exception) -> None:
    """The tests tear lines on purpose."""
