"""Deploys one item without a screen and without a question; reports by lines and exit status."""

import asyncio
import contextlib
import io
import os
import stat
import sys
import threading
from typing import Final, TextIO
from uuid import uuid4

import msgspec

from bus.connection import BusUnavailableError
from bus.messages import Machine, Outcome, Schedule, Welcome, encode
from bus.problems import RETRIABLE, Problem
from bus.waiting import end
from client.clock import follower
from client.entry import door_of
from client.identity import this_machine
from client.items import item_called
from client.journey import NEEDS_LOGIN, Journey
from client.lastresort import GRACE, LastResort
from client.lookups import leave_without_lookups
from client.outcomes import headline
from client.settings import Settings, shown
from client.status import DONE, NO_SERVER, REFUSED
from client.troubles import OF_TIME, Notice
from client.words import Words, plain, said

_USUAL_PATIENCE: Final = 60
"""Seconds until an unattended client gives up, unless it was told otherwise."""
_PAUSE: Final = 1.0
"""Seconds between two tries to sign in that nobody answered."""


def deploy(settings: Settings, server: str, item: str) -> int:
    """Deploys ``item`` on this machine; the exit status.

    Raises:
        WrongUseError: the file with the machine makes no sense.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console without Unicode may show a letter wrongly, but not end a deployment.
            stream.reconfigure(errors="replace")
    machine = this_machine(settings.machine, settings.boot_card)
    patience = _USUAL_PATIENCE if settings.timeout is None else settings.timeout
    run = _Run(settings, machine, server)
    return asyncio.run(run.deploy(item, patience or None))


class _Run:
    def __init__(self, settings: Settings, machine: Machine, server: str) -> None:
        self._settings = settings
        self._server = server
        self._words = Words()
        self._told = ""
        self._is_safe = False
        self._line: str | None = None
        self._lines = sys.stderr if settings.json else sys.stdout
        door = door_of(settings, machine)
        self._journey = Journey(
            server, settings.site, machine, self._notify, door, follower(settings)
        )

    async def deploy(self, item: str, patience: float | None) -> int:
        """Goes all the way in ``patience`` seconds; the exit status."""
        leave_without_lookups()
        last_resort = LastResort()
        if patience is not None:
            last_resort.end_in(patience + GRACE, NO_SERVER)
        request_id = str(uuid4())
        deploying = asyncio.create_task(self._deploy(item, request_id))
        try:
            await asyncio.wait({deploying}, timeout=patience)
            if not deploying.done():
                so_far = "scheduling_waits" if self._is_safe else "no_server"
                _complain(self._words("out_of_time"), self._words(so_far))
                return NO_SERVER
            outcome = await deploying
        except Problem as problem:
            outcome = Outcome(request_id=request_id, state="rejected", problem=problem.body())
        finally:
            await end(deploying)
            await self._journey.close()
            last_resort.stay()
        return self._report(outcome)

    async def _deploy(self, item: str, request_id: str) -> Outcome:
        if self._settings.unknown:
            _complain(self._words("unknown", names=", ".join(self._settings.unknown)))
        self._say(self._words("connecting", server=shown(self._server)))
        welcome = await self._journey.welcome()
        self._words = Words(welcome.text)
        token = await self._sign_in(welcome) if welcome.protection != "none" else None
        wish = await self._wish(welcome, item, request_id, token)
        self._say(self._words("request", request_id=request_id))
        while True:
            try:
                return await self._journey.schedule(wish, self._accepted)
            except Problem as problem:
                if problem.code not in NEEDS_LOGIN or token is None:
                    raise
                token = await self._sign_in(welcome)
                wish = msgspec.structs.replace(wish, token=token)

    async def _wish(
        self, welcome: Welcome, item: str, request_id: str, token: str | None
    ) -> Schedule:
        menu = await self._journey.show(token)
        found = item_called(menu.entries, item)
        if not found:
            raise Problem("unknown_item", self._words("no_item", item=item))
        if len(found) > 1:
            ids = ", ".join(each.id for each in found)
            raise Problem("unknown_item", self._words("several_items", item=item, ids=ids))
        known = welcome.computer.name if welcome.computer else None
        name = self._settings.name or known or welcome.suggested_name
        self._say(self._words("scheduling", item=found[0].title))
        self._say(self._words("scheduling_name", name=name))
        wish = self._journey.wish(request_id, found[0].id, None if name == known else name)
        return msgspec.structs.replace(wish, token=token)

    async def _sign_in(self, welcome: Welcome) -> str:
        password = self._settings.password or await self._piped_password()
        if not password:
            raise Problem("login_required", self._words("no_password"))
        username = self._settings.username if welcome.protection != "hash" else None
        self._say(self._words("signing_in"))
        while True:
            try:
                return (await self._journey.login(password, username)).token
            except BusUnavailableError:
                self._notify(Notice("trouble_service"))
            except Problem as problem:
                if problem.code not in RETRIABLE:
                    raise
                self._notify(Notice("trouble_problem", problem.message))
            await asyncio.sleep(_PAUSE)

    async def _piped_password(self) -> str:
        if not self._settings.password_stdin and not is_piped(sys.stdin):
            return ""
        if self._line is None:
            self._line = await first_line(sys.stdin)
        return self._line

    def _accepted(self) -> None:
        self._is_safe = True
        self._tell(self._words("scheduling_waits"))

    def _notify(self, notice: Notice | None) -> None:
        if notice is not None:
            said = self._words(notice.text, message=notice.message)
            # A minute that has passed makes no new trouble of an old one.
            self._tell(said, about=notice.text if notice.text in OF_TIME else said)

    def _tell(self, text: str, about: str | None = None) -> None:
        """Says something, but not twice in a row what is ``about`` the same."""
        about = about or text
        if about != self._told:
            self._say(text)
        self._told = about

    def _say(self, text: str) -> None:
        self._lines.write(plain(text) + "\n")
        self._lines.flush()

    def _report(self, outcome: Outcome) -> int:
        problem = outcome.problem
        if problem is not None:
            _complain(self._words("refused"), said(self._words, problem))
            computers = problem.details.computers
            if computers:
                names = ", ".join(computer.name for computer in computers)
                _complain(self._words("refused_computers", names=names))
            _complain(self._words("request", request_id=outcome.request_id))
        else:
            self._say(headline(self._words, outcome))
            for job in outcome.jobs:
                self._say(f"  - {job.name}")
            if outcome.replaced:
                self._say(self._words("scheduled_replaced", count=outcome.replaced))
        if self._settings.json:
            sys.stdout.write(encode(outcome).decode() + "\n")
            sys.stdout.flush()
        return DONE if outcome.state == "scheduled" else REFUSED


def is_piped(stdin: TextIO | None) -> bool:
    """Whether somebody hands in something by a pipe or a file; a null device hands in nothing."""
    if stdin is None or stdin.closed:
        return False
    try:
        mode = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


async def first_line(stdin: TextIO) -> str:
    """The first line without its end, empty where there is none; a pipe may keep us waiting."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def hand_over(text: str) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        try:
            text = stdin.readline().rstrip("\r\n")
        except (OSError, ValueError):
            text = ""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(hand_over, text)

    # A thread of its own, not of the pool: the end of the loop must not wait for the pipe.
    threading.Thread(target=read, name="password", daemon=True).start()
    return await line


def _complain(*texts: str) -> None:
    for text in texts:
        sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()
