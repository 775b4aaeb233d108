"""Failed sign-ins, counted by the server in a bucket: they hold across copies and restarts.

A try is taken before the password is looked at, and is undecided until what came of it is known.
So a burst of guesses gets no more looks at the password than the limit says, and a technician who
signs in at thirty machines at once is not taken for one who guesses.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct
from nats.js.kv import KeyValue

from bus.connection import jittered
from bus.messages import Details
from bus.problems import Problem
from bus.service import RETRY_AFTER
from bus.technicians import key_of
from bus.waiting import all_of, outcomes, successes
from services.auth.lockout import Count, Limits, Scope, current, fail, take, withdraw
from services.auth.try_store import (
    SCOPES,
    TIMEOUT,
    Change,
    Place,
    Rule,
    TryStore,
    uncounted,
)

PATIENCE: Final = 2.0
"""Seconds that a try waits for undecided ones before it is turned away."""


class Lock(Struct, frozen=True):
    """A machine, account or address that is locked for ``retry_after`` more seconds.

    ``closed_at`` is when the lock closed, in seconds since 1970, and ``age`` how long ago that was.
    """

    scope: Scope
    name: str
    retry_after: float
    closed_at: float
    age: float

    @property
    def id(self) -> str:
        """The same wherever it is met; no other lock has it."""
        return f"{self.scope}.{key_of(self.name)}.{self.closed_at}"


class LockedOut(Problem):
    """The problem ``locked_out``.

    ``locks`` are those that stand in the way; ``closed`` are the ones among them that this very
    try has closed, since tries that nobody decided, or a lowered limit, made them due.
    """

    def __init__(self, locks: list[Lock], closed: list[Lock]) -> None:
        longest = max(lock.retry_after for lock in locks)
        super().__init__("locked_out", details=Details(retry_after=longest))
        self.locks = locks
        self.closed = closed


class Tries:
    """TryStore the tries of a site.

    ``limits`` is asked at every try, ``clock`` tells the time in seconds. Every method raises
    nats.errors.Error or TimeoutError when the bus does not answer, and the problem ``bad_machine``
    for what cannot be a machine's key.
    """

    def __init__(
        self,
        bucket: KeyValue,
        site: str,
        limits: Callable[[], Limits],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = TryStore(bucket, site, clock)
        self._limits = limits

    async def take(self, who: Mapping[Scope, str]) -> "Attempt":
        """Takes one try of each, or of none, before the password is looked at.

        Raises:
            Problem: ``locked_out`` (a ``LockedOut``), or ``overloaded`` when tries that are
                undecided use up the limit and stay so.
        """
        places = [self._store.place(scope, name) for scope, name in who.items()]
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        for attempt in itertools.count():
            taken = await self._take(places, blind=not attempt and len(places) == 1)
            if taken or loop.time() >= end:
                break
            await asyncio.sleep(jittered(attempt, 0.02, 0.2))
        if not taken:
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER))
        return taken

    async def unlock(self, scope: Scope, name: str) -> bool:
        """Forgets the tries and locks of one; whether there were any."""
        place = self._store.place(scope, name)
        seen = await self._store.look(place)
        await self._store.forget(place)
        count = current(seen.count, self._store.clock(), self._limits())
        return bool(count.tries or count.locks)

    async def locked(self) -> list[Lock]:
        """What is locked now, by scope and name."""
        now = self._store.clock()
        async with asyncio.timeout(TIMEOUT), contextlib.aclosing(self._store.all()) as counts:
            locks = [
                _lock(scope, count, now)
                async for scope, count in counts
                if now < count.locked_until
            ]
        return sorted(locks, key=lambda lock: (SCOPES.index(lock.scope), lock.name))

    async def _take(self, places: list[Place], *, blind: bool) -> "Attempt | None":
        """An attempt, or none if undecided tries are in the way.

        ``blind`` spares the look at one whom nobody has counted: of several it would be seen too
        late that one of them is locked.
        """
        limits = self._limits()
        try_id, now = secrets.token_hex(6), self._store.clock()

        def rule(scope: Scope) -> Rule:
            return lambda count: take(count, try_id, now, limits.of(scope), limits)

        # Who is turned away writes nothing: a look comes first, or the bus refuses the write.
        if blind:
            seen = [uncounted(place) for place in places]
        else:
            seen = await all_of(self._store.look(place) for place in places)
        looks = [
            Change(place, each.count, rule(place.scope)(each.count), each)
            for place, each in zip(places, seen, strict=True)
        ]
        locks = [_lock_of(look, now) for look in looks if now < look.before.locked_until]
        if locks:
            raise LockedOut(locks, [])
        if any(look.after == look.before for look in looks):
            return None

        results = await outcomes(
            self._store.change(place, rule(place.scope), each)
            for place, each in zip(places, seen, strict=True)
        )
        changes = [each for each in results if isinstance(each, Change)]
        taken = [each for each in changes if each.has(try_id)]
        machine = next((each for each in taken if each.place.scope == "machine"), None)
        left = limits.machine - len(machine.after.tries) if machine else None
        attempt = Attempt(
            self._store, [each.place for each in taken], try_id, now, self._limits, left
        )
        if len(taken) == len(places):
            return attempt
        await attempt.withdraw()
        successes(results)
        locks = [_lock_of(each, now) for each in changes if now < each.after.locked_until]
        if locks:
            raise LockedOut(locks, [_lock_of(each, now) for each in changes if each.closed()])
        return None


class Attempt:
    """One try that has been taken; it ends in exactly one of three ways.

    ``left`` is how many tries the machine has after this one. Each way of ending raises
    nats.errors.Error or TimeoutError when the bus does not answer.
    """

    def __init__(
        self,
        store: TryStore,
        places: list[Place],
        try_id: str,
        taken_at: float,
        limits: Callable[[], Limits],
        left: int | None,
    ) -> None:
        self.left = left
        self._store = store
        self._places = places
        self._id = try_id
        self._taken_at = taken_at
        self._limits = limits

    async def failed(self) -> list[Lock]:
        """The password was wrong; the locks that this has closed, each told by one attempt only."""
        limits, now = self._limits(), self._store.clock()

        def rule(scope: Scope) -> Rule:
            return lambda count: fail(
                count, self._id, self._taken_at, now, limits.of(scope), limits
            )

        changes = await all_of(
            self._store.change(place, rule(place.scope)) for place in self._places
        )
        return [_lock_of(change, now) for change in changes if change.closed()]

    async def succeeded(self) -> None:
        """The password was right: the tries and locks of machine and account are forgotten.

        An address only gets this try back: whoever has one good account could otherwise guess at
        all others from there for ever.
        """
        await all_of(
            self._give_back(place) if place.scope == "address" else self._store.forget(place)
            for place in self._places
        )

    async def withdraw(self) -> None:
        """Nothing was decided: each gets its try back."""
        await all_of(self._give_back(place) for place in self._places)

    async def _give_back(self, place: Place) -> None:
        await self._store.change(place, lambda count: withdraw(count, self._id))


def _lock_of(change: Change, now: float) -> Lock:
    return _lock(change.place.scope, change.after, now)


def _lock(scope: Scope, count: Count, now: float) -> Lock:
    remaining = max(0.1, round(count.locked_until - now, 1))
    return Lock(scope, count.name, remaining, count.locked_at, max(0.0, now - count.locked_at))
