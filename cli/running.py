"""How a command talks to the bus: bounded in time, with a sentence when nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.errors

from bus.connection import Connection
from cli.fail import NoServerError
from cli.reaching import reach
from cli.target import Address
from services import logs

_T = TypeVar("_T")


def talk(address: Address, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    """Does ``work`` with a connection to the bus.

    Raises:
        NoServerError: there is no bus, it does not let us in, or does not keep what was asked for.
    """
    # What is logged on the way belongs on standard error, beside the answer.
    logs.configure()
    return asyncio.run(_talk(address, work))


async def _talk(address: Address, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    connection = await reach(address, "command")
    try:
        return await work(connection)
    except (nats.errors.Error, TimeoutError) as error:
        raise NoServerError(
            f"The bus at {address.server} does not keep what site {address.site!r} needs. "
            "Is JetStream on, and has a service of the site been started?"
        ) from error
    finally:
        await connection.close()
