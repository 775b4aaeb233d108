"""Who is on the bus, as services tell it by ADR-32."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import nats.errors
from msgspec import Struct
from nats.aio.msg import Msg

from bus.connection import Connection
from bus.messages import decoder

_ROUND: Final = 0.5
"""Seconds in which a service on the bus answers a ping."""


class Present(Struct, frozen=True, kw_only=True):
    """One copy of a service."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]


_present = decoder(Present)


async def present(connection: Connection, site: str, seconds: float = _ROUND) -> list[Present]:
    """The copies of the site's services that answer within ``seconds``."""
    found: dict[str, Present] = {}

    async def heard(message: Msg) -> None:
        with contextlib.suppress(ValueError):
            copy = _present.decode(message.data)
            if copy.metadata.get("site") == site:
                found[copy.id] = copy

    inbox = connection.new_inbox()
    listening = await connection.subscribe(inbox, cb=heard)
    try:
        await connection.publish("$SRV.PING", reply=inbox)
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(nats.errors.Error):
            await listening.unsubscribe()
    return sorted(found.values(), key=lambda copy: (copy.name, copy.id))


async def wait_for_services(connection: Connection, site: str, names: Iterable[str]) -> None:
    """Returns when a copy of each service answers; waits as long as that takes."""
    wanted = set(names)
    while True:
        try:
            wanted -= {copy.name for copy in await present(connection, site, _ROUND / 5)}
        except nats.errors.Error:
            # The line is down, and says so at once.
            await asyncio.sleep(_ROUND / 5)
        if not wanted:
            return
