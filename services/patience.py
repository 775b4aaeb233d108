"""No answer waits for the deployment server longer than its caller waits for the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bus.problems import Problem

PATIENCE: Final = 3.0
"""Seconds that an answer waits for the deployment server; boot clients wait five for an answer."""


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Ends what is done inside after so many seconds.

    Raises:
        Problem: ``deployment_server_unavailable`` when the time is up.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem("deployment_server_unavailable") from None
