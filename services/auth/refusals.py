"""What becomes of those who were not let on the bus: counted, told of in a bounded way, slowed.

A boot credential that somebody has made up counts as a failed try of the network address, as a
wrong password does. What comes from an address that is locked is looked at once in a while only.
Whoever has a good credential there still comes in, at once where it is known already: else one who
guesses could lock out all who share the address.
"""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Final

import nats.errors
import structlog
from msgspec import Struct

from bus.events import NO_MACHINE, Detail, EventLog, NotKeptError
from bus.problems import Problem
from bus.waiting import end
from services.auth.metrics import LoginMetrics, Reason
from services.auth.tries import LockedOut, Tries

_GUESSES: Final[frozenset[Reason]] = frozenset({"malformed", "forged"})
"""What nobody presents who has a credential of any estate."""
LOOKS: Final = 2.0
"""How often a second one of a locked address is looked at."""
_ADDRESSES: Final = 10_000
"""Addresses of which something is remembered."""
_AT_ONCE: Final = 64
"""Refusals that are written down side by side."""
_TOLD: Final = 120
"""Events a minute, from all addresses together."""
_MINUTE: Final = 60.0
_V6_NETWORK: Final = 64
"""Bits of an IPv6 address that a network has, while whoever is in it may take any of the others."""


class _Known(Struct):
    """What is remembered of an address: times in seconds since 1970."""

    locked_until: float = 0.0
    looked_at: float = 0.0
    told_in: int = -1
    more: int = 0


class Refusals:
    """The refusals of one copy of the service."""

    def __init__(
        self,
        tries: Tries,
        events: EventLog,
        metrics: LoginMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tries = tries
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._minute = -1
        self._told = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("callout")

    def may_be_looked_at(self, address: str) -> bool:
        """Whether it is worth a look what somebody from there presents."""
        known = self._known.get(place_of(address))
        now = self._clock()
        if known is None or now >= known.locked_until:
            return True
        if now - known.looked_at < 1 / LOOKS:
            return False
        known.looked_at = now
        return True

    def refused(
        self, reason: Reason, address: str, machine: str | None = None, image: str | None = None
    ) -> None:
        """One was refused; returns at once, and what is to be written is written later."""
        place = place_of(address)
        known = self._remembered(place)
        now = self._clock()
        if reason in _GUESSES and now >= known.locked_until:
            self._begin(self._count(place, known))
        minute = int(now // _MINUTE)
        if minute != self._minute:
            self._minute, self._told = minute, 0
        if known.told_in == minute or self._told >= _TOLD:
            known.more += 1
            return
        details: dict[str, Detail] = {"reason": reason, "address": address, "more": known.more}
        if image:
            details["image"] = image
        if self._begin(self._tell(f"{place}-{minute}", machine or NO_MACHINE, details, now)):
            known.told_in, known.more = minute, 0
            self._told += 1
        else:
            known.more += 1

    async def stop(self) -> None:
        """Writes nothing more."""
        for task in list(self._tasks):
            await end(task)

    def _remembered(self, place: str) -> _Known:
        known = self._known.pop(place, None) or _Known()
        if len(self._known) >= _ADDRESSES:
            del self._known[next(iter(self._known))]
        self._known[place] = known
        return known

    def _begin(self, work: Coroutine[None, None, None]) -> bool:
        if len(self._tasks) >= _AT_ONCE:
            work.close()
            return False
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _count(self, place: str, known: _Known) -> None:
        try:
            attempt = await self._tries.take({"address": place})
            locks = await attempt.failed()
            for lock in locks:
                self._metrics.lock(lock.scope)
                self._log.warning("an address is locked", address=place, seconds=lock.retry_after)
        except LockedOut as locked:
            locks = locked.locks
        except (Problem, nats.errors.Error, TimeoutError) as error:
            self._log.warning("a refusal cannot be counted", error=type(error).__name__)
            return
        for lock in locks:
            known.locked_until = max(known.locked_until, self._clock() + lock.retry_after)

    async def _tell(self, of: str, machine: str, details: dict[str, Detail], now: float) -> None:
        with contextlib.suppress(NotKeptError):
            await self._events.record(
                "connection_refused",
                machine=machine,
                of=of,
                at=datetime.fromtimestamp(now, UTC),
                details=details,
            )


def place_of(address: str) -> str:
    """What of an address is counted: of IPv6 the network, since each host has many addresses."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, _V6_NETWORK), strict=False))
