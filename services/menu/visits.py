"""Tells those who follow events that a portal was opened, and that its menu was shown."""

import contextlib
from typing import Final

from bus.events import EventLog, NotKeptError
from bus.messages import ComputerRef, Hello

_REMEMBERED: Final = 20_000
"""Visits whose menu is known to have been told of, so that showing it again costs nothing."""


class Visits:
    """Each visit is told of once, also where a client asks again or other copies are asked."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._shown: dict[str, None] = {}

    async def opened(self, asked: Hello, machine: str, computer: ComputerRef | None) -> None:
        """A client has started; one that names no visit is not followed."""
        if asked.visit is None:
            return
        with contextlib.suppress(NotKeptError):
            await self._events.record(
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

    def is_told(self, visit: str | None) -> bool:
        """Whether nothing is left to be told of a menu that a visit gets."""
        return visit is None or visit in self._shown

    async def shown(self, visit: str | None, machine: str, technician: str | None) -> None:
        """A visit has got a menu."""
        if visit is None or self.is_told(visit):
            return
        with contextlib.suppress(NotKeptError):
            await self._events.record(
                "menu_shown", machine=machine, of=visit, technician=technician
            )
            if len(self._shown) >= _REMEMBERED:
                self._shown.pop(next(iter(self._shown)))
            self._shown[visit] = None
