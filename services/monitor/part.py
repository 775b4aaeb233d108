"""The parts of the monitor: work in loops that go on until they are stopped, whatever fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
import structlog

from bus.connection import backoff
from bus.events import NotKeptError
from bus.problems import Problem
from bus.waiting import end
from engine.errors import Conflict, EngineUnavailable

_PASSING: Final = (nats.errors.Error, OSError, TimeoutError, Problem, Conflict, NotKeptError)
"""What passes by itself; of anything else the log tells where it came from."""
_PATIENCE: Final = 15.0
"""Seconds of failures in a row after which a loop does not count as well any more."""


class FailingError(Exception):
    """A loop has ended, or has failed for a while."""


class Loop:
    """Does a step again and again; what fails is logged, and done again after a pause."""

    def __init__(
        self,
        name: str,
        site: str,
        step: Callable[[], Awaitable[None]],
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """Does nothing yet.

        Args:
            name: what it does, for people.
            site: whose work it is.
            step: one turn; it waits for whatever there is to wait for.
            patience: seconds of failures in a row after which it is not well any more.
        """
        self.name = name
        self._step = step
        self._patience = patience
        self._failures = 0
        self._failing_since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("monitor").bind(site=site, work=name)

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends, and returns when it has ended."""
        if self._task:
            await end(self._task)

    def well(self) -> None:
        """A step that takes long says so when something went well."""
        self._failures = 0

    async def check(self) -> None:
        """Returns if all is well.

        Raises:
            FailingError: it has ended, or has failed for a while.
        """
        failing = self._failures and time.monotonic() - self._failing_since >= self._patience
        if self._task is None or self._task.done() or failing:
            raise FailingError(self.name)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
                self.well()
            except _PASSING as error:
                why = error.reason if isinstance(error, EngineUnavailable) else str(error)
                self._log.warning("work is held up", why=why or type(error).__name__)
                await self._pause()
            except Exception:  # noqa: BLE001 (whoever reads the log can mend it, and it goes on)
                self._log.exception("work is held up")
                await self._pause()

    async def _pause(self) -> None:
        if not self._failures:
            self._failing_since = time.monotonic()
        self._failures += 1
        await asyncio.sleep(backoff(self._failures - 1))


class Part:
    """A part of the monitor, made of loops."""

    def __init__(self, *loops: Loop) -> None:
        self.loops = loops

    async def start(self) -> None:
        """Begins; a bus or a database that is not there yet is waited for."""
        for each in self.loops:
            each.start()

    async def stop(self) -> None:
        """Ends, and returns when it has ended."""
        for each in self.loops:
            await each.stop()
