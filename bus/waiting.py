"""Waiting that can be called off."""

import asyncio
from collections.abc import Coroutine


async def unless(told: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Does the work unless told to stop before it is done; whether it was done."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        return False
    return True
