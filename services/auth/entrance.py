"""The entrance for boot clients, put together: two lines to the bus, and what is known of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import nats.errors
import structlog

from bus import subjects
from bus.buckets import Mirror
from bus.connection import Connection, connect
from bus.door import Door
from bus.revocations import revoked_at
from services.auth.callout import Callout
from services.auth.callout_keys import CalloutKeys
from services.auth.metrics import CalloutMetrics
from services.auth.overseer import Overseer
from services.auth.presences import Presences
from services.auth.refusals import Refusals
from services.running import Site

_CLOSE_TIMEOUT: Final = 2.0


@asynccontextmanager
async def entrance(
    site: Site,
    keys: CalloutKeys,
    server: str,
    presences: Presences,
    refusals: Refusals,
    lifetime: float,
) -> AsyncIterator[None]:
    """Open while this is entered; ``server`` is where the bus is, as for the service itself.

    A boot client stays for ``lifetime`` seconds at most.
    """
    revoked: dict[str, float] = {}
    metrics = CalloutMetrics(site.registry, site.name, lambda: len(presences))
    ca = site.connection.door.ca
    async with (
        _connected(server, f"callout-{site.name}", Door(ca, keys.callout)) as asked,
        _connected(server, f"system-{site.name}", Door(ca, keys.system)) as system,
    ):
        overseer = Overseer(system, keys.account, keys.signing.public, presences, lambda: revoked)

        def changed(values: Mapping[str, bytes]) -> None:
            revoked.clear()
            revoked.update((image, revoked_at(value)) for image, value in values.items())
            overseer.end_revoked()

        mirror = Mirror(site.connection, subjects.REVOKED, subjects.ESTATE, changed)
        callout = Callout(
            asked,
            site.name,
            keys,
            presences,
            refusals,
            lambda: revoked,
            metrics,
            lifetime=lifetime,
        )
        async with AsyncExitStack() as stack:
            for leave in (refusals.stop, mirror.stop, overseer.stop, callout.leave):
                stack.push_async_callback(leave)
            await mirror.start()
            await overseer.start()
            await callout.start()
            site.health.needs("the callout", callout.sign_of_life)
            site.health.needs("the system account", overseer.sign_of_life)
            yield


@asynccontextmanager
async def _connected(server: str, name: str, door: Door) -> AsyncIterator[Connection]:
    log = structlog.get_logger("callout")

    async def report(error: Exception) -> None:
        log.warning("the bus", name=name, error=str(error) or type(error).__name__)

    connection = await connect(server, name, report=report, door=door)
    try:
        yield connection
    finally:
        with suppress(nats.errors.Error, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await connection.close()
