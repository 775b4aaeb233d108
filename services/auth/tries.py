"""Failed sign-ins, counted by the server in a bucket: they hold across copies and restarts.

A try is taken before the password is looked at, and is undecided until what came of it is known.
So a burst of guesses gets no more looks at the password than the limit says, and a technician who
signs in at thirty machines at once is not taken for one who guesses.
"""

import asyncio
import contextlib
import itertools
import random
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Annotated, Final, Literal, TypeVar
from weakref import WeakValueDictionary

import nats.errors
import nats.js.errors
import structlog
from msgspec import Meta, Struct
from msgspec.structs import replace
from nats.js.kv import KeyValue

from bus import subjects
from bus.messages import Details, decoder, encode
from bus.problems import Problem
from bus.service import RETRY_AFTER
from bus.technicians import key_of

Scope = Literal["machine", "account", "address"]
"""What tries are counted for."""

LONGEST_LOCK: Final = 3600.0
"""Seconds that locks grow to, unless the first one is longer."""
UNDECIDED: Final = 10.0
"""Seconds after which a try of which nothing is heard counts as failed: its copy has died."""
PATIENCE: Final = 2.0
"""Seconds that a try waits for undecided ones before it is turned away."""

_DAY: Final = 86_400.0
"""Seconds after which locks are forgotten, as the bucket forgets everything."""
_SKEW: Final = 300.0
"""Seconds that the clocks of two copies may be apart, as Kerberos has it."""
_TIMEOUT: Final = 5.0
_SCOPES: Final[tuple[Scope, ...]] = ("machine", "account", "address")
_MACHINE: Final = re.compile(r"[0-9a-z]{1,64}\Z")

_T = TypeVar("_T")


class Limits(Struct, frozen=True):
    """How many failed tries close a lock; times in seconds.

    A failed try counts for ``window``. A first lock lasts ``lock``, each further one twice as long
    as the one before, up to ``LONGEST_LOCK`` or ``lock``, whichever is longer.
    """

    machine: int = 3
    account: int = 10
    address: int = 30
    window: float = 600.0
    lock: float = 60.0

    def of(self, scope: Scope) -> int:
        """How many failed tries close a lock of this scope."""
        return {"machine": self.machine, "account": self.account, "address": self.address}[scope]


class Lock(Struct, frozen=True):
    """A machine, account or address that is locked for ``retry_after`` more seconds."""

    scope: Scope
    name: str
    retry_after: float


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


class Try(Struct, frozen=True, omit_defaults=True):
    """A try, and when it was taken or, if it has failed, when that was known."""

    id: str
    at: float
    failed: bool = False


class Count(Struct, frozen=True, kw_only=True):
    """The tries of one machine, account or address, and how many locks they closed in a row."""

    name: str
    tries: tuple[Try, ...] = ()
    locks: Annotated[int, Meta(ge=0)] = 0
    locked_at: float = 0.0
    locked_until: float = 0.0


# The rule. Pure functions of a count, the time and the limits.


def take(count: Count, try_id: str, now: float, limit: int, limits: Limits) -> Count:
    """The count with one more try in it, or without, if it is locked or full of undecided tries.

    If failed tries alone reach the limit, the lock is closed.
    """
    counted = _current(count, now, limits)
    if now < counted.locked_until or _has(count, try_id):
        return count
    if _failures(counted, now) >= limit:
        return _closed(counted, now, limits)
    if len(counted.tries) >= limit:
        return count
    return replace(counted, tries=(*counted.tries, Try(try_id, now)))


def fail(
    count: Count, try_id: str, taken_at: float, now: float, limit: int, limits: Limits
) -> Count:
    """The count after a try has failed; the lock is closed if that reaches the limit."""
    counted = _current(count, now, limits)
    if now < counted.locked_until or taken_at <= counted.locked_at:
        # A lock has closed since the try was taken: it is a part of that lock.
        return count
    others = withdraw(counted, try_id).tries
    counted = replace(counted, tries=(*others, Try(try_id, now, failed=True)))
    return _closed(counted, now, limits) if _failures(counted, now) >= limit else counted


def withdraw(count: Count, try_id: str) -> Count:
    """The count without a try."""
    return replace(count, tries=tuple(each for each in count.tries if each.id != try_id))


def sound(count: Count, now: float) -> bool:
    """Whether the times in a count can be; those of no clock could lock for ever."""
    times = (count.locked_at, *(each.at for each in count.tries))
    return max(times) <= now + _SKEW and count.locked_until <= now + _DAY + _SKEW


def _has(count: Count, try_id: str) -> bool:
    return any(each.id == try_id for each in count.tries)


def _current(count: Count, now: float, limits: Limits) -> Count:
    """What still counts of a count."""
    tries = tuple(each for each in count.tries if now < _failed_at(each) + limits.window)
    if now >= max(count.locked_at + _DAY, count.locked_until):
        return Count(name=count.name, tries=tries)
    return replace(count, tries=tries)


def _failed_at(each: Try) -> float:
    return each.at if each.failed else each.at + UNDECIDED


def _failures(count: Count, now: float) -> int:
    return sum(each.failed or now >= _failed_at(each) for each in count.tries)


def _closed(count: Count, now: float, limits: Limits) -> Count:
    longest = min(max(LONGEST_LOCK, limits.lock), _DAY)
    seconds = min(limits.lock * 2.0 ** min(count.locks, 20), longest)
    return Count(name=count.name, locks=count.locks + 1, locked_at=now, locked_until=now + seconds)


# The bucket.


class _Place(Struct, frozen=True):
    """Whose tries are counted, and under which key."""

    scope: Scope
    name: str
    key: str


_Rule = Callable[[Count], Count]


class _Seen(Struct, frozen=True):
    """A count, and its revision, which the next writer must name."""

    count: Count
    revision: int


class _Change(Struct, frozen=True):
    """What a rule has made of the count of a place, and what the bucket holds then.

    These differ when the rules of others were applied in the same write.
    """

    place: _Place
    before: Count
    after: Count
    latest: _Seen

    def has(self, try_id: str) -> bool:
        """Whether a try is in the count now."""
        return _has(self.after, try_id)

    def closed(self) -> bool:
        """Whether this has closed a lock."""
        return self.after.locked_until > self.before.locked_until


class _Wish:
    """A rule that waits to be applied, and what has come of it."""

    def __init__(self, place: _Place, rule: _Rule) -> None:
        self.place = place
        self.rule = rule
        self.result: _Change | Exception | None = None


class _Line:
    """Who wants to change one count."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.wishes: list[_Wish] = []


_count = decoder(Count)


class _Counts:
    """The counts of a site.

    A write succeeds only at the revision that was read, so one of many wins each time. Those of one
    copy do not race: whoever has the turn applies the rules of all who wait, in one write.
    """

    def __init__(self, bucket: KeyValue, site: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._bucket = bucket
        self._site = site
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()
        self._junk: set[str] = set()
        self._log = structlog.get_logger("auth").bind(site=site)

    def place(self, scope: Scope, name: str) -> _Place:
        if scope != "machine":
            token = key_of(name)
        elif _MACHINE.match(name):
            token = name
        else:
            raise Problem("bad_machine", "This is no machine's key.")
        return _Place(scope, name, subjects.site_key(self._site, f"{scope}.{token}"))

    async def look(self, place: _Place) -> _Seen:
        """A count as it is."""
        return (await self.change(place, lambda count: count)).latest

    async def change(self, place: _Place, rule: _Rule, seen: _Seen | None = None) -> _Change:
        """Changes a count by a rule; ``seen`` saves reading it once more, unless others wait."""
        line = self._lines.setdefault(place.key, _Line())
        wish = _Wish(place, rule)
        line.wishes.append(wish)
        try:
            async with asyncio.timeout(_TIMEOUT), line.turn:
                while wish.result is None:
                    await self._fulfil(line, seen if line.wishes == [wish] else None)
        finally:
            if wish in line.wishes:
                line.wishes.remove(wish)
        if isinstance(wish.result, Exception):
            raise wish.result
        return wish.result

    async def _fulfil(self, line: _Line, seen: _Seen | None) -> None:
        wishes, line.wishes = line.wishes, []
        try:
            await self._apply(wishes, seen)
        except (nats.errors.Error, TimeoutError) as error:
            for wish in wishes:
                wish.result = error
        finally:
            # Who is called off here has not called off the others: the next in turn sees to them.
            line.wishes[:0] = [wish for wish in wishes if wish.result is None]

    async def _apply(self, wishes: list[_Wish], seen: _Seen | None) -> None:
        place = wishes[0].place
        for attempt in itertools.count():
            found = seen or await self._read(place)
            counts = [found.count]
            for wish in wishes:
                counts.append(wish.rule(counts[-1]))
            try:
                latest = await self._write(place, found, counts[-1])
                break
            except nats.js.errors.KeyWrongLastSequenceError:
                seen = None
                await asyncio.sleep(_pause(attempt, 0.002, 0.05))
        for wish, (before, after) in zip(wishes, itertools.pairwise(counts), strict=True):
            wish.result = _Change(wish.place, before, after, latest)

    async def _write(self, place: _Place, found: _Seen, count: Count) -> _Seen:
        if count == found.count:
            return found
        revision = await self._bucket.update(place.key, encode(count), last=found.revision)
        return _Seen(count, revision)

    async def _read(self, place: _Place) -> _Seen:
        none = Count(name=place.name)
        try:
            entry = await self._bucket.get(place.key)
        except nats.js.errors.KeyNotFoundError as gone:
            # A deleted key has a revision, too.
            deleted = gone.entry
            return _Seen(none, (deleted.revision or 0) if deleted else 0)
        return _Seen(self._decode(place.key, entry.value) or none, entry.revision or 0)

    async def forget(self, place: _Place) -> None:
        await self._bucket.delete(place.key)

    async def all(self) -> AsyncGenerator[tuple[Scope, Count], None]:
        # The whole bucket, since of a part of it nobody says that it is empty.
        if not (await self._bucket.status()).values:
            return
        watcher = await self._bucket.watch(">")
        try:
            async for entry in watcher:
                if entry is None:
                    # nats-py 2.16 says so, too, while the keys are still on their way.
                    continue
                scope = self._scope(entry.key)
                if scope and not entry.operation:
                    count = self._decode(entry.key, entry.value)
                    if count:
                        yield scope, count
                if entry.delta == 0:
                    return
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]

    def _scope(self, key: str) -> Scope | None:
        """What a key of the bucket counts for; nothing if it is not this site's, or an old one."""
        starts = ((scope, subjects.site_key(self._site, f"{scope}.")) for scope in _SCOPES)
        return next((scope for scope, start in starts if key.startswith(start)), None)

    def _decode(self, key: str, value: bytes | None) -> Count | None:
        """A count, or nothing for junk: what cannot be read has counted nothing."""
        with contextlib.suppress(ValueError, RecursionError):
            count = _count.decode(value or b"")
            if sound(count, self.clock()):
                return count
        if key not in self._junk:
            self._junk.add(key)
            self._log.error("counted tries cannot be read; counting begins anew", key=key)
        return None


# What the auth service asks.


class Tries:
    """Counts the tries of a site.

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
        self._counts = _Counts(bucket, site, clock)
        self._limits = limits

    async def take(self, who: Mapping[Scope, str]) -> "Attempt":
        """Takes one try of each, or of none, before the password is looked at.

        Raises:
            Problem: ``locked_out`` (a ``LockedOut``), or ``overloaded`` when tries that are
                undecided use up the limit and stay so.
        """
        places = [self._counts.place(scope, name) for scope, name in who.items()]
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        for attempt in itertools.count():
            taken = await self._take(places)
            if taken or loop.time() >= end:
                break
            await asyncio.sleep(_pause(attempt, 0.02, 0.2))
        if not taken:
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER))
        return taken

    async def unlock(self, scope: Scope, name: str) -> bool:
        """Forgets the tries and locks of one; whether there were any."""
        place = self._counts.place(scope, name)
        seen = await self._counts.look(place)
        await self._counts.forget(place)
        count = _current(seen.count, self._counts.clock(), self._limits())
        return bool(count.tries or count.locks)

    async def locked(self) -> list[Lock]:
        """What is locked now, by scope and name."""
        now = self._counts.clock()
        async with asyncio.timeout(_TIMEOUT), contextlib.aclosing(self._counts.all()) as counts:
            locks = [
                Lock(scope, count.name, _remaining(count, now))
                async for scope, count in counts
                if now < count.locked_until
            ]
        return sorted(locks, key=lambda lock: (_SCOPES.index(lock.scope), lock.name))

    async def _take(self, places: list[_Place]) -> "Attempt | None":
        """An attempt, or none if undecided tries are in the way."""
        limits = self._limits()
        try_id, now = secrets.token_hex(6), self._counts.clock()

        def rule(scope: Scope) -> _Rule:
            return lambda count: take(count, try_id, now, limits.of(scope), limits)

        # A look first: who is turned away writes nothing.
        seen = await _together(self._counts.look(place) for place in places)
        looks = [
            _Change(place, each.count, rule(place.scope)(each.count), each)
            for place, each in zip(places, seen, strict=True)
        ]
        locks = [_lock(look, now) for look in looks if now < look.before.locked_until]
        if locks:
            raise LockedOut(locks, [])
        if any(look.after == look.before for look in looks):
            return None

        results = await asyncio.gather(
            *(
                self._counts.change(place, rule(place.scope), each)
                for place, each in zip(places, seen, strict=True)
            ),
            return_exceptions=True,
        )
        changes = [each for each in results if isinstance(each, _Change)]
        taken = [each for each in changes if each.has(try_id)]
        machine = next((each for each in taken if each.place.scope == "machine"), None)
        left = limits.machine - len(machine.after.tries) if machine else None
        attempt = Attempt(
            self._counts, [each.place for each in taken], try_id, now, self._limits, left
        )
        if len(taken) == len(places):
            return attempt
        await attempt.withdraw()
        _raise_first(results)
        locks = [_lock(each, now) for each in changes if now < each.after.locked_until]
        if locks:
            raise LockedOut(locks, [_lock(each, now) for each in changes if each.closed()])
        return None


class Attempt:
    """One try that has been taken; it ends in exactly one of three ways.

    ``left`` is how many tries the machine has after this one. Each way of ending raises
    nats.errors.Error or TimeoutError when the bus does not answer.
    """

    def __init__(
        self,
        counts: _Counts,
        places: list[_Place],
        try_id: str,
        taken_at: float,
        limits: Callable[[], Limits],
        left: int | None,
    ) -> None:
        self.left = left
        self._counts = counts
        self._places = places
        self._id = try_id
        self._taken_at = taken_at
        self._limits = limits

    async def failed(self) -> list[Lock]:
        """The password was wrong; the locks that this has closed, each told by one attempt only."""
        limits, now = self._limits(), self._counts.clock()

        def rule(scope: Scope) -> _Rule:
            return lambda count: fail(
                count, self._id, self._taken_at, now, limits.of(scope), limits
            )

        changes = await _together(
            self._counts.change(place, rule(place.scope)) for place in self._places
        )
        return [_lock(change, now) for change in changes if change.closed()]

    async def succeeded(self) -> None:
        """The password was right: the tries and locks of machine and account are forgotten.

        An address only gets this try back: whoever has one good account could otherwise guess at
        all others from there for ever.
        """
        await _together(
            self._give_back(place) if place.scope == "address" else self._counts.forget(place)
            for place in self._places
        )

    async def withdraw(self) -> None:
        """Nothing was decided: each gets its try back."""
        await _together(self._give_back(place) for place in self._places)

    async def _give_back(self, place: _Place) -> None:
        await self._counts.change(place, lambda count: withdraw(count, self._id))


async def _together(works: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
    """Does everything side by side; an error is raised when all of it has ended."""
    results = await asyncio.gather(*works, return_exceptions=True)
    _raise_first(results)
    return [each for each in results if not isinstance(each, BaseException)]


def _raise_first(results: Iterable[object]) -> None:
    for each in results:
        if isinstance(each, BaseException):
            raise each


def _lock(change: _Change, now: float) -> Lock:
    return Lock(change.place.scope, change.after.name, _remaining(change.after, now))


def _remaining(count: Count, now: float) -> float:
    return max(0.1, round(count.locked_until - now, 1))


def _pause(attempt: int, first: float, longest: float) -> float:
    limit = min(longest, first * 2 ** min(attempt, 10))
    return random.uniform(limit / 4, limit)  # noqa: S311 (no secret)
