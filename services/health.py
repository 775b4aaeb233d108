"""Whether a service is alive and ready, as those ask who watch over it from outside.

They ask in threads of their own; the service's event loop answers, so that one that hangs cannot
seem well.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from bus.waiting import end

PATIENCE: Final = 2.0
"""Seconds in which the loop must turn, and in which everything that is needed must answer."""
_MARGIN: Final = 1.0

Check = Callable[[], Awaitable[object]]
"""Asks for a sign of life; raises whatever it may where there is none."""

_T = TypeVar("_T")


class Health:
    """What a service needs, and whether all of it answers."""

    def __init__(self) -> None:
        self.serving = False
        """Whether the service is on the bus: not while it starts, nor from when it leaves."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checks: dict[str, Check] = {}
        self._looking: asyncio.Task[list[str]] | None = None

    def needs(self, name: str, check: Check) -> None:
        """The service is ready only while ``check`` succeeds; ``name`` is for people."""
        self._checks[name] = check

    @asynccontextmanager
    async def answered(self) -> AsyncIterator[None]:
        """Has the loop that runs this answer, until it is left."""
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._loop = None
            if self._looking:
                await end(self._looking)

    def alive(self) -> bool:
        """Whether the loop turns; asked from another thread, which waits for at most 2 s."""
        return self._asked(_nothing(), PATIENCE) is not None

    def missing(self) -> list[str]:
        """What is not as it must be; asked from another thread, which waits for at most 3 s."""
        found = self._asked(self._look(), PATIENCE + _MARGIN)
        return ["the service does not answer"] if found is None else found

    def _asked(self, question: Coroutine[None, None, _T], seconds: float) -> _T | None:
        """The loop's answer; None when it does not give one in time."""
        loop = self._loop
        if loop is None or loop.is_closed():
            question.close()
            return None
        future = asyncio.run_coroutine_threadsafe(question, loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            return None
        except CancelledError:
            # The service ends.
            return None

    async def _look(self) -> list[str]:
        # However many ask at once, the bus and the database are asked once.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._find_missing())
        return await asyncio.shield(self._looking)

    async def _find_missing(self) -> list[str]:
        if not self.serving:
            return ["the service is starting or leaving"]
        names = list(self._checks)
        answers = await asyncio.gather(*(_answers(self._checks[name]) for name in names))
        return [
            f"{name} does not answer" for name, well in zip(names, answers, strict=True) if not well
        ]


async def _nothing() -> bool:
    return True


async def _answers(check: Check) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except Exception:  # noqa: BLE001 (whatever it is, there was no sign of life)
        return False
    return True
