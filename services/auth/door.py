"""Decides who comes in: counts tries, asks the way in that protects the site, tells the audit."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import nats.errors
import structlog
from msgspec import Struct

from bus.caller import Caller
from bus.events import Detail, EventLog, Kind, NotKeptError
from bus.messages import Details, Login, Protection, Session
from bus.option_store import LiveOptions
from bus.problems import Problem
from bus.service import RETRY_AFTER
from bus.sessions import Claims, Signer
from bus.technicians import Technician
from bus.waiting import all_of
from services.auth.lockout import Scope
from services.auth.metrics import LoginMetrics
from services.auth.tries import Attempt, Lock, LockedOut, Tries
from services.auth.ways import (
    LONGEST_NAME,
    LONGEST_PASSWORD,
    DirectoryUnavailable,
    SignInRefused,
    WayIn,
)

STEP: Final = 0.25
"""Seconds. A refusal is answered when a whole number of steps has passed since the question, so
that the time it takes does not tell whether there is such an account."""
_YOUNG: Final = 3000.0
"""Seconds after which a lock is told of no more: for an hour the bus knows what it was told."""
_REMEMBERED: Final = 10_000
"""Locks that are known to have been told of."""


class Visitor(Struct, frozen=True):
    """Who stands at the door, as far as can be told before anybody is asked."""

    caller: Caller
    protection: Protection
    username: str | None
    account: str | None
    address: str | None


class Door:
    """Answers who signs in."""

    def __init__(
        self,
        options: LiveOptions,
        ways: Mapping[Protection, WayIn],
        tries: Tries,
        signer: Signer,
        events: EventLog,
        metrics: LoginMetrics,
        address_of: Callable[[Caller], str | None],
    ) -> None:
        """``address_of`` gives the network address of a caller if the bus tells it."""
        self._options = options
        self._ways = ways
        self._tries = tries
        self._signer = signer
        self._events = events
        self._metrics = metrics
        self._address_of = address_of
        self._told: dict[str, None] = {}
        self._log = structlog.get_logger("auth")

    async def login(self, asked: Login, caller: Caller) -> Session:
        """A session for who may come in.

        Raises:
            Problem: ``login_failed``, ``locked_out``, ``directory_unavailable`` or ``overloaded``.
        """
        began = time.monotonic()
        options = self._options.current
        way = self._ways.get(options.protection)
        username = asked.username if way and way.account("") is not None else None
        visitor = Visitor(
            caller,
            options.protection,
            username,
            way.account(username) if way else None,
            self._address_of(caller),
        )
        try:
            technician = None
            if way:
                attempt, technician = await self._ask(way, visitor, asked.password)
                await all_of([attempt.succeeded(), self._tell_succeeded(visitor, technician)])
            else:
                await self._tell_succeeded(visitor, technician)
            session = self._session(visitor, technician, options.session_lifetime)
        except (nats.errors.Error, TimeoutError) as error:
            # Without the bus no try can be counted, so nobody can be let in.
            self._log.warning("a sign-in cannot be counted", error=type(error).__name__)
            refused = Problem("overloaded", details=Details(retry_after=RETRY_AFTER))
            self._metrics.login(visitor.protection, refused.code)
            raise refused from error
        except Problem as problem:
            await self._tell_refused(visitor, problem)
            if problem.code == "login_failed":
                passed = time.monotonic() - began
                await asyncio.sleep(STEP - passed % STEP)
            raise
        self._metrics.login(visitor.protection, "success")
        return session

    async def _ask(
        self, way: WayIn, visitor: Visitor, password: str
    ) -> tuple[Attempt, Technician | None]:
        """The try that was taken, and who has come in by it."""
        try:
            attempt = await self._tries.take(_counted(visitor))
        except LockedOut as locked:
            self._count(locked.closed)
            # Also those that another copy has closed: it may have died before it told of them.
            await self._tell_locked(visitor, locked.locks)
            raise
        try:
            _require_sense(visitor.username, password)
            technician = await way.sign_in(visitor.username, password)
        except SignInRefused as refused:
            locks = await attempt.failed()
            self._log_of(visitor).warning(
                "login failed", reason=refused.reason, attempts_left=attempt.left
            )
            self._count(locks)
            await self._tell_locked(visitor, locks)
            wait = max((lock.retry_after for lock in locks), default=None)
            raise Problem(
                "login_failed", details=Details(attempts_left=attempt.left, retry_after=wait)
            ) from None
        except DirectoryUnavailable as unavailable:
            await attempt.withdraw()
            self._log_of(visitor).warning("the directory cannot be asked", why=str(unavailable))
            raise Problem("directory_unavailable") from None
        except Problem:
            await attempt.withdraw()
            raise
        return attempt, technician

    def _log_of(self, visitor: Visitor) -> structlog.typing.FilteringBoundLogger:
        bound: structlog.typing.FilteringBoundLogger = self._log.bind(
            machine=visitor.caller.machine, account=visitor.account
        )
        return bound

    async def _tell_succeeded(self, visitor: Visitor, technician: Technician | None) -> None:
        name = technician.name if technician else None
        try:
            await self._events.record(
                "login_succeeded",
                machine=visitor.caller.machine,
                technician=name,
                details=_details(visitor),
            )
        except NotKeptError:
            # Nobody comes in of whom the audit knows nothing.
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER)) from None
        self._log.info("login succeeded", machine=visitor.caller.machine, account=name)

    def _session(self, visitor: Visitor, technician: Technician | None, lifetime: float) -> Session:
        claims = Claims(
            username=technician.name if technician else None,
            protection=visitor.protection,
            generation=technician.generation if technician else 0,
        )
        session = self._signer.session(visitor.caller.machine, claims, lifetime)
        shown = technician.display_name if technician else None
        return msgspec.structs.replace(session, display_name=shown)

    async def _tell_refused(self, visitor: Visitor, problem: Problem) -> None:
        self._metrics.login(visitor.protection, problem.code)
        if problem.code != "overloaded":
            await self._tell("login_failed", visitor, problem=problem.code)

    def _count(self, closed: list[Lock]) -> None:
        for lock in closed:
            self._metrics.lock(lock.scope)

    async def _tell_locked(self, visitor: Visitor, locks: list[Lock]) -> None:
        """Tells of each lock once, whoever else meets it."""
        for lock in locks:
            if lock.id in self._told or lock.age > _YOUNG:
                continue
            seconds = round(lock.age + lock.retry_after, 1)
            if await self._tell(
                "login_locked", visitor, of=lock.id, locked=lock.scope, seconds=seconds
            ):
                if len(self._told) >= _REMEMBERED:
                    del self._told[next(iter(self._told))]
                self._told[lock.id] = None

    async def _tell(
        self, kind: Kind, visitor: Visitor, *, of: str | None = None, **details: Detail
    ) -> bool:
        """Tells of a refusal, which stands whether the bus keeps the event or not; if it does."""
        try:
            await self._events.record(
                kind,
                machine=visitor.caller.machine,
                of=of,
                technician=visitor.username,
                details=_details(visitor) | details,
            )
        except NotKeptError:
            return False
        return True


def _require_sense(username: str | None, password: str) -> None:
    """Refuses what no way in could accept.

    Raises:
        SignInRefused: an empty, an endless or a malformed name or password.
    """
    # An empty password would be an anonymous bind in LDAP, which succeeds (RFC 4513, 5.1.2).
    if not password or (username is not None and not username.strip()):
        raise SignInRefused("empty")
    if "\0" in password + (username or ""):
        raise SignInRefused("malformed")
    if len(password) > LONGEST_PASSWORD or len(username or "") > LONGEST_NAME:
        raise SignInRefused("too long")


def _details(visitor: Visitor) -> dict[str, Detail]:
    details: dict[str, Detail] = {"protection": visitor.protection}
    return details | ({"address": visitor.address} if visitor.address else {})


def _counted(visitor: Visitor) -> dict[Scope, str]:
    who: dict[Scope, str] = {"machine": visitor.caller.machine}
    if visitor.account is not None:
        who["account"] = visitor.account
    if visitor.address is not None:
        who["address"] = visitor.address
    return who
