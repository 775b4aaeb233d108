"""How a command comes on the bus: bounded in time, with a sentence that says what is in the way."""

import asyncio
from typing import Final

from bus.connection import Connection, connect
from bus.door import DoorError
from cli.fail import NoServerError
from cli.target import Address
from client.settings import shown

PATIENCE: Final = 5.0
"""Seconds in which a bus that is there lets a command in."""


class NotReachedError(NoServerError):
    """There is no bus, or it does not let us in: what is in the way, and what to do."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} {cure}")
        self.cause: Final = cause
        self.cure: Final = cure


async def reach(address: Address, name: str, within: float = PATIENCE) -> Connection:
    """A connection to the bus, in ``within`` seconds.

    Raises:
        NotReachedError: it cannot be had.
    """
    kept_out: list[DoorError] = []

    async def hear(error: Exception) -> None:
        if isinstance(error, DoorError):
            kept_out.append(error)

    try:
        async with asyncio.timeout(within):
            return await connect(address.server, name, report=hear, door=address.door)
    except DoorError as error:
        raise NotReachedError(error.cause, error.cure) from error
    except TimeoutError as error:
        if kept_out:
            raise NotReachedError(kept_out[-1].cause, kept_out[-1].cure) from kept_out[-1]
        raise NotReachedError(
            f"Nobody answers at {shown(address.server)}.",
            "Is the bus up, and is that its address (--server nats://HOST:PORT)?",
        ) from error
