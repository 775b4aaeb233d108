"""The technician's way through the portal, from the countdown to the scheduled jobs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from uuid import uuid4

import msgspec

from bus.connection import BusUnavailableError
from bus.messages import ItemEntry, Menu, Outcome, ProblemBody, Schedule, Session, Welcome
from bus.problems import Problem
from bus.waiting import end
from client.clock import follower
from client.entry import door_of
from client.identity import this_machine
from client.journey import NEEDS_LOGIN, Journey
from client.portal.app import Portal
from client.portal.done import DoneScreen
from client.portal.frame import PortalScreen
from client.portal.login import Credentials, LoginScreen
from client.portal.menu import MenuScreen, Picked, Place
from client.portal.name import Named, NameScreen
from client.portal.refused import LockedScreen, RefusedScreen
from client.portal.scheduling import SchedulingScreen
from client.portal.waiting import WaitingScreen
from client.settings import shown
from client.status import DONE, NO_SERVER, REFUSED
from client.troubles import Notice
from client.words import Words, plain, said

_MOMENT: Final = 0.2
"""Seconds an answer may take before the screen says that it is waited for."""
_FRESH: Final = 30.0
"""Seconds for which a welcome is believed when somebody enters."""
_AGAIN: Final = 5.0
"""Seconds after which a machine that its site does not serve asks again."""
_ALONE: Final = 300
"""Seconds without a key after which nobody is taken to be there, where no site says how many."""
_NAME_PROBLEMS: Final = frozenset({"bad_name", "name_taken"})

Answered = TypeVar("Answered")
Result = TypeVar("Result")


def idle_limit(welcome: Welcome | None, timeout: int | None) -> int:
    """Seconds without a key after which the boot goes on; 0 is never.

    Before the site has said how many it is ours to say: a portal that somebody opened and left (or
    noise on a line did) holds no boot up for ever, unless it was told to wait for ever.
    """
    if welcome is not None:
        return welcome.idle_timeout
    return 0 if timeout == 0 else _ALONE


class LeftError(Exception):
    """The technician leaves the portal, with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Way:
    """One technician's way through the screens of one portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._words = Words()
        self._welcome: Welcome | None = None
        self._welcomed_at = 0.0
        self._token: str | None = None
        self._username = ""
        self._notice = ""
        self._tell = portal.first.notice
        self._journey = self._begun()
        self._finding = asyncio.create_task(self._journey.welcome())
        self._is_answered = False

    async def walk(self) -> int:
        """Goes all the way; the exit status."""
        try:
            if not await self._countdown():
                return DONE if self._is_answered else NO_SERVER
            welcome = await self._enter()
            place = Place()
            while True:
                menu = await self._signed_in(welcome, self._menu)
                picked = await self._ask(self._menu_screen(menu, place))
                if picked is None:
                    return DONE
                place = picked.place
                if await self._deploy(welcome, picked.item):
                    return DONE
        except LeftError as left:
            return left.status
        finally:
            await end(self._finding)
            await self._journey.close()

    def _begun(self) -> Journey:
        portal, settings = self._portal, self._portal.settings
        machine = portal.machine or this_machine(boot_card=settings.boot_card)
        door = door_of(settings, machine)
        return Journey(
            portal.server, settings.site, machine, self._notify, door, follower(settings)
        )

    async def _countdown(self) -> bool:
        screen = self._portal.first
        while not screen.answer.done():
            await _either(self._finding, screen.answer)
            if not self._finding.done():
                break
            self._is_answered = True
            try:
                welcome = self._finding.result()
            except Problem as problem:
                screen.notice(said(self._words, problem.body()))
                await asyncio.wait({screen.answer}, timeout=_AGAIN)
                if not screen.answer.done():
                    await self._find_again(problem)
            else:
                self._greet(welcome)
                local = self._portal.settings.timeout
                screen.headed(self._title())
                screen.welcomed(
                    self._words,
                    welcome.computer.name if welcome.computer else None,
                    welcome.timeout if local is None else local,
                )
                break
        return await screen.answer

    async def _enter(self) -> Welcome:
        """The site's welcome, a fresh one, however long it takes."""
        if self._welcome:
            if time.monotonic() - self._welcomed_at < _FRESH:
                return self._welcome
            self._finding = asyncio.create_task(self._journey.welcome())
        while True:
            waiting = self._waiting("connecting", "connecting_help")
            try:
                welcome = await self._awaited(self._finding, waiting, left=NO_SERVER)
            except Problem as problem:
                await self._refused(problem.body(), again_in=_AGAIN)
                await self._find_again(problem)
            else:
                self._greet(welcome)
                return welcome

    async def _find_again(self, problem: Problem) -> None:
        if problem.code == "bad_machine":
            # A card that was plugged in meanwhile may tell it from others.
            await self._journey.close()
            self._journey = self._begun()
        self._finding = asyncio.create_task(self._journey.welcome())

    def _greet(self, welcome: Welcome) -> None:
        self._welcome = welcome
        self._welcomed_at = time.monotonic()
        self._words = Words(welcome.text)

    async def _signed_in(
        self, welcome: Welcome, work: Callable[[str | None], Awaitable[Answered]]
    ) -> Answered:
        """Does work that may need a session, and signs in as often as that needs one."""
        protected = welcome.protection != "none"
        message = ""
        while True:
            if protected and self._token is None:
                await self._sign_in(welcome, message)
            try:
                return await work(self._token)
            except Problem as problem:
                if problem.code in NEEDS_LOGIN:
                    protected, self._token = True, None
                    message = plain(problem.message)
                else:
                    await self._refused(problem.body())

    async def _sign_in(self, welcome: Welcome, message: str) -> None:
        with_name = welcome.protection in {"server", "domain"}
        while True:
            name = self._username if with_name else None
            entry = await self._ask(LoginScreen(self._title(), self._words, name, message))
            if entry is None:
                raise LeftError(DONE)
            self._username = entry.username or ""
            try:
                session = await self._let_in(entry)
            except BusUnavailableError:
                message = self._words("trouble_service")
            except Problem as problem:
                left = problem.details.attempts_left
                message = plain(problem.message)
                if problem.code == "locked_out" or left == 0:
                    await self._ask(
                        LockedScreen(self._title(), self._words, problem.details.retry_after),
                        idle=REFUSED,
                    )
                    raise LeftError(REFUSED) from problem
                if left is not None:
                    message = self._words("attempts_left", message=message, attempts=left)
            else:
                self._token = session.token
                return

    async def _let_in(self, entry: Credentials) -> Session:
        return await self._awaited(
            self._journey.login(entry.password, entry.username),
            self._waiting("signing_in", "waiting_help"),
        )

    async def _menu(self, token: str | None) -> Menu:
        return await self._awaited(
            self._journey.show(token), self._waiting("asking", "waiting_help")
        )

    def _menu_screen(self, menu: Menu, place: Place) -> PortalScreen[Picked | None]:
        return MenuScreen(self._title(), self._words, menu, place)

    async def _deploy(self, welcome: Welcome, item: ItemEntry) -> bool:
        """Names and schedules one item; False leads back to the menu."""
        typed: str | None = None
        message = ""
        while True:
            named = await self._ask(
                NameScreen(
                    self._title(), self._words, welcome, item.title, typed=typed, message=message
                )
            )
            if named is None:
                return False
            outcome = await self._scheduled(welcome, item, named)
            if outcome.state == "scheduled":
                await self._show(DoneScreen(self._title(), self._words, outcome))
                return True
            problem = outcome.problem or Problem("internal_error").body()
            if problem.code in _NAME_PROBLEMS and (welcome.may_rename or not welcome.computer):
                typed, message = named.name, plain(problem.message)
                continue
            await self._refused(problem, outcome.request_id)
            return False

    async def _scheduled(self, welcome: Welcome, item: ItemEntry, named: Named) -> Outcome:
        unchanged = welcome.computer is not None and named.name == plain(welcome.computer.name)
        wish = self._journey.wish(str(uuid4()), item.id, None if unchanged else named.name)

        async def send(token: str | None) -> Outcome:
            return await self._sent(msgspec.structs.replace(wish, token=token), item, named)

        return await self._signed_in(welcome, send)

    async def _sent(self, wish: Schedule, item: ItemEntry, named: Named) -> Outcome:
        screen = SchedulingScreen(
            self._title(),
            self._words,
            item_title=item.title,
            name=named.name,
            request_id=wish.request_id,
        )
        await self._show_now(screen)
        work = asyncio.create_task(self._journey.schedule(wish, screen.accepted))
        try:
            # Idleness does not count here: a picked request is watched to its end.
            await _either(work, screen.answer)
            if not work.done():
                raise LeftError(DONE if screen.is_safe else NO_SERVER)
            return await work
        finally:
            await end(work)

    async def _refused(
        self, problem: ProblemBody, request_id: str = "", *, again_in: float | None = None
    ) -> None:
        """Says no; comes back when the technician wants to try something else, or by itself."""
        again = await self._ask(
            RefusedScreen(
                self._title(),
                self._words,
                said(self._words, problem),
                problem.details.computers or (),
                request_id=request_id,
                help_text="refused_help" if request_id else "refused_start_help",
                again_in=again_in,
            ),
            idle=REFUSED,
        )
        if not again:
            raise LeftError(REFUSED)

    async def _awaited(
        self, work: Awaitable[Answered], screen: WaitingScreen, *, left: int = DONE
    ) -> Answered:
        """The answer; the screen comes up if it takes more than a moment."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=_MOMENT)
            if not task.done():
                await self._show_now(screen)
                await self._unless_idle(task, screen.answer, status=left)
            if not task.done():
                raise LeftError(left)
            return await task
        finally:
            await end(task)

    async def _ask(self, screen: PortalScreen[Result], *, idle: int = DONE) -> Result:
        """What the technician answers; leaves with ``idle`` when nobody touches a key."""
        await self._show_now(screen)
        await self._unless_idle(screen.answer, screen.answer, status=idle)
        return screen.answer.result()

    async def _show(self, screen: PortalScreen[Result]) -> Result:
        await self._show_now(screen)
        return await screen.answer

    async def _show_now(self, screen: PortalScreen[Result]) -> None:
        self._tell = screen.notice
        self._tell(self._notice)
        # Textual switches between screens that were pushed, so the first one stays at the bottom.
        if len(self._portal.screen_stack) == 1:
            await self._portal.push_screen(screen)
        else:
            await self._portal.switch_screen(screen)

    async def _unless_idle(
        self,
        one: "asyncio.Future[Answered]",
        other: "asyncio.Future[Result]",
        *,
        status: int,
    ) -> None:
        """Waits for either; leaves with ``status`` when nobody touches a key for too long."""
        limit = idle_limit(self._welcome, self._portal.settings.timeout)
        while not one.done() and not other.done():
            left = limit - self._portal.idle_for
            if limit and left <= 0:
                raise LeftError(status)
            await _either(one, other, left if limit else None)

    def _waiting(self, text: str, help_text: str) -> WaitingScreen:
        words = self._words
        return WaitingScreen(
            self._title(), words, words(text, server=shown(self._portal.server)), words(help_text)
        )

    def _title(self) -> tuple[str, str]:
        welcome = self._welcome
        site = welcome.site if welcome else self._portal.settings.site or ""
        machine = ""
        if welcome is not None:
            machine = welcome.computer.name if welcome.computer else welcome.suggested_name
        return self._words("title"), plain(" - ".join(filter(None, (site, machine))))

    def _notify(self, notice: Notice | None) -> None:
        self._notice = "" if notice is None else self._words(notice.text, message=notice.message)
        self._tell(self._notice)


async def _either(
    one: "asyncio.Future[Answered]",
    other: "asyncio.Future[Result]",
    patience: float | None = None,
) -> None:
    both: set[asyncio.Future[Answered] | asyncio.Future[Result]] = {one, other}
    await asyncio.wait(both, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
