"""Waiting that can be called off."""

import asyncio
from collections.abc import Coroutine
from typing import Final

_AGAIN: Final = 1.0
"""Seconds after which a task that has not ended is cancelled again."""


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


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and returns when it has ended; its result is the caller's to look at.

    It is cancelled more than once if need be: ``asyncio.wait_for`` of Python 3.11, on which nats-py
    relies, loses a cancellation that comes in the same moment as what it waited for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN)
