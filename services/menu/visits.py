"""Tells those who follow events that a portal was opened, and that its menu was shown.

An answer waits until the bus has kept its event, so that a service may die after any answer and
nothing is missing. It does not wait for longer than somebody at a screen would: a portal opens
though the bus can keep nothing. Then the event is tried on, without anybody waiting.
"""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Final, Protocol

import structlog

from bus.events import PATIENCE, EventLog, NotKeptError
from bus.messages import ComputerRef, Hello
from bus.waiting import end

_REMEMBERED: Final = 20_000
"""Visits of whose menu was told, so that showing it again costs nothing."""
_AT_ONCE: Final = 1000
"""Events that are tried on without anybody waiting; memory must be bounded."""
_PATIENCE: Final = 30.0
"""Seconds for which one is tried on: a bus that restarts is back by then."""
_LEAVING: Final = 2.0


class _Event(Protocol):
    """An event that is to be kept, tried for some seconds."""

    def __call__(self, *, patience: float) -> Awaitable[None]: ...


class Visits:
    """Each visit is told of once, also where a client asks again or other copies are asked."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._shown: dict[str, None] = {}
        self._telling: set[asyncio.Task[bool]] = set()
        self._log = structlog.get_logger("menu")

    async def close(self) -> None:
        """Returns when all is told, after two seconds at most; then the rest is given up."""
        try:
            if self._telling:
                await asyncio.wait(self._telling, timeout=_LEAVING)
        finally:
            if self._telling:
                self._log.warning("visits are not told of", events=len(self._telling))
            for each in tuple(self._telling):
                await end(each)

    async def opened(self, asked: Hello, machine: str, computer: ComputerRef | None) -> None:
        """A client has started; one that names no visit is not followed."""
        if asked.visit is None:
            return
        await self._told(
            partial(
                self._events.record,
                "portal_opened",
                machine=machine,
                of=asked.visit,
                computer=computer,
                details={
                    "environment": asked.client.environment,
                    "version": asked.client.version,
                    "model": asked.machine.model,
                },
            )
        )

    def is_shown(self, visit: str | None) -> bool:
        """Whether nothing needs to be told when this visit gets a menu."""
        return visit is None or visit in self._shown

    async def shown(self, visit: str | None, machine: str, technician: str | None) -> None:
        """A visit gets a menu."""
        if visit is None or visit in self._shown:
            return
        event = partial(
            self._events.record, "menu_shown", machine=machine, of=visit, technician=technician
        )
        if await self._told(event):
            if len(self._shown) >= _REMEMBERED:
                self._shown.pop(next(iter(self._shown)))
            self._shown[visit] = None

    async def _told(self, event: _Event) -> bool:
        """Whether the bus has an event, waited for as long as somebody may be kept waiting."""
        patience = _PATIENCE if len(self._telling) < _AT_ONCE else PATIENCE
        telling = asyncio.create_task(_kept(event, patience))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.wait({telling}, timeout=PATIENCE)
        return telling.done() and not telling.cancelled() and telling.result()


async def _kept(event: _Event, patience: float) -> bool:
    try:
        await event(patience=patience)
    except NotKeptError:
        # The log holds it.
        return False
    return True
