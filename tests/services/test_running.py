"""How a service starts where the bus does not let it at once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from prometheus_client import CollectorRegistry, Counter, generate_latest

from bus.buckets import prepare
from bus.door import Door
from services.health import Health
from services.running import Site, _serve_until_told
from tests.buses import BusServer
from tests.echo import until


async def test_a_program_that_the_bus_fails_at_its_start_is_started_again(bus: BusServer) -> None:
    entered: list[int] = []

    @asynccontextmanager
    async def program(site: Site) -> AsyncIterator[None]:
        starts = Counter("starts", "Of this program.", registry=site.registry)
        starts.inc()
        entered.append(len(entered))
        if len(entered) < 3:
            raise nats.errors.TimeoutError
        yield

    registry, health = CollectorRegistry(), Health()
    serving = asyncio.create_task(
        _serve_until_told(
            "echo", bus.url, "main", Door(), prepare, program, lambda _: None, registry, health
        )
    )
    await until(lambda: health.serving or serving.done())
    assert len(entered) == 3
    # What was counted by those that did not start is gone with them.
    assert b"starts_total 1.0" in generate_latest(registry)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 10)
    assert not health.serving
