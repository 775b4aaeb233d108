"""Ending what was begun."""

import asyncio
from typing import Final, TypeVar

_SOON: Final = 0.1

Result = TypeVar("Result")


async def end(task: "asyncio.Future[Result]") -> None:
    """Cancels what still runs and waits for its end; what it came to is told where it is awaited.

    One cancellation may not do: `asyncio.wait_for` of Python 3.11, which nats-py connects with,
    forgets one that comes in the moment its own work fails.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_SOON)
    if not task.cancelled():
        task.exception()
