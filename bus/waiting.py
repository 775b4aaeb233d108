"""Waiting that can be called off."""

import asyncio
from collections.abc import Coroutine
from typing import Final, TypeVar

_AGAIN: Final = 0.1
"""Seconds after which a task that has not ended is cancelled again."""


Result = TypeVar("Result")


async def unless(told: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Does the work unless told to stop before it is done; whether it was done."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        await end(working)
    if working.cancelled():
        return False
    working.result()
    return True


async def end(task: "asyncio.Future[Result]") -> None:
    """Cancels what still runs and returns when it has ended; what it came to is the caller's.

    It is cancelled more than once if need be: ``asyncio.wait_for`` of Python 3.11, on which nats-py
    relies, loses a cancellation that comes in the same moment as what it waited for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN)
    if not task.cancelled():
        # Looked at once, so that asyncio does not report a failure that nobody waits for.
        task.exception()
