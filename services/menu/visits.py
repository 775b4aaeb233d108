"""Tells those who follow events that a portal was opened, and that its menu was shown.

These events tell of a visit; they promise nothing to anybody. So an answer goes out while the bus
keeps its event, and does not wait for it, unless so much is being told that memory must be bounded.
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
"""Visits of whose menu was told, or is being told, so that showing it again costs nothing."""
_AT_ONCE: Final = 1000
"""Events that are being told while answers go out."""
_PATIENCE: Final = 30.0
"""Seconds for which one is tried where nobody waits for it: a bus that restarts is back by then."""
_LEAVING: Final = 2.0


class _Event(Protocol):
    """An event that is to be kept, tried for some seconds."""

    def __call__(self, *, patience: float) -> Awaitable[None]: ...


class Visits:
    """Each visit is told of once, also where a client asks again or other copies are asked."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._shown: dict[str, None] = {}
        self._telling: set[asyncio.Task[None]] = set()
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
        event = partial(
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
        await self._sent(self._begin(asked.visit, event))

    async def shown(self, visit: str | None, machine: str, technician: str | None) -> None:
        """A visit has got a menu."""
        if visit is not None and visit not in self._shown:
            await self._sent(self._show(visit, machine, technician))

    def may_show_at_once(self, visit: str | None) -> bool:
        """Whether a visit can get a menu without waiting for what is told of it."""
        return visit is None or visit in self._shown or len(self._telling) < _AT_ONCE

    def shown_at_once(self, visit: str | None, machine: str, technician: str | None) -> None:
        """A visit that may gets a menu at once; the event is sent right after it."""
        if visit is not None and visit not in self._shown:
            self._show(visit, machine, technician)

    def _show(self, visit: str, machine: str, technician: str | None) -> asyncio.Task[None]:
        if len(self._shown) >= _REMEMBERED:
            self._shown.pop(next(iter(self._shown)))
        self._shown[visit] = None
        event = partial(
            self._events.record, "menu_shown", machine=machine, of=visit, technician=technician
        )
        return self._begin(visit, event)

    def _begin(self, visit: str, event: _Event) -> asyncio.Task[None]:
        patience = _PATIENCE if len(self._telling) < _AT_ONCE else PATIENCE
        telling = asyncio.create_task(self._tell(visit, event, patience))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return telling

    async def _tell(self, visit: str, event: _Event, patience: float) -> None:
        try:
            await event(patience=patience)
        except NotKeptError:
            # The log holds it; and a menu that is shown once more is told of once more.
            self._shown.pop(visit, None)

    async def _sent(self, telling: asyncio.Task[None]) -> None:
        """Waits for the event to be sent, and if too many are, for the bus to have it."""
        if len(self._telling) > _AT_ONCE:
            await asyncio.wait({telling})
        else:
            # Sent before the answer, it is kept before anything that the client causes by that.
            await asyncio.sleep(0)
