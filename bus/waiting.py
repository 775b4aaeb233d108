"""Waiting that can be called off."""

import asyncio
from collections.abc import Coroutine, Iterable
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


async def all_of(works: Iterable[Coroutine[None, None, Result]]) -> list[Result]:
    """Does everything side by side; the first failure is raised when all of it has ended."""
    return successes(await outcomes(works))


async def outcomes(
    works: Iterable[Coroutine[None, None, Result]],
) -> list[Result | BaseException]:
    """What came of each, done side by side, or the error that it raised."""
    begun = list(works)
    if len(begun) != 1:
        return await asyncio.gather(*begun, return_exceptions=True)
    # Without the cost of a task.
    try:
        return [await begun[0]]
    except Exception as error:  # noqa: BLE001 (it is told, not hidden)
        return [error]


def successes(found: Iterable[Result | BaseException]) -> list[Result]:
    """What came of each; raises the first failure."""
    well: list[Result] = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        well.append(each)
    return well


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
