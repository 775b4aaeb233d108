"""When failed sign-ins close a lock: pure functions of a count, the time and the limits."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

Scope = Literal["machine", "account", "address"]
"""What tries are counted for."""

LONGEST_LOCK: Final = 3600.0
"""Seconds that locks grow to, unless the first one is longer."""
UNDECIDED: Final = 10.0
"""Seconds after which a try of which nothing is heard counts as failed: its copy has died."""

_DAY: Final = 86_400.0
"""Seconds after which locks are forgotten, as the bucket forgets everything."""
_SKEW: Final = 300.0
"""Seconds that the clocks of two copies may be apart, as Kerberos has it."""


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


def take(count: Count, try_id: str, now: float, limit: int, limits: Limits) -> Count:
    """The count with one more try in it, or without, if it is locked or full of undecided tries.

    If failed tries alone reach the limit, the lock is closed.
    """
    counted = current(count, now, limits)
    if now < counted.locked_until or has_try(count, try_id):
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
    counted = current(count, now, limits)
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


def has_try(count: Count, try_id: str) -> bool:
    """Whether a try is in the count."""
    return any(each.id == try_id for each in count.tries)


def current(count: Count, now: float, limits: Limits) -> Count:
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
