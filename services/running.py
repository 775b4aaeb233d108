"""How a service runs as a program: connect, serve until told to stop, leave without a loss."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Final

import nats.errors
import structlog
import uvloop
from msgspec import Struct, field
from nats.js import JetStreamContext
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics

from bus import subjects
from bus.__about__ import __version__
from bus.buckets import prepare
from bus.connection import Connection, backoff, connect
from bus.door import Door, addresses_in
from bus.option_store import LiveOptions
from bus.options import Options
from bus.service import Service
from bus.waiting import unless
from services import logs
from services.health import Health
from services.measures import RequestMetrics, measure_process
from services.metrics import served

_CLOSE_TIMEOUT: Final = 5.0
_SWITCH: Final = 0.0005
"""Seconds that a thread runs while others wait to. After each statement a transaction's thread has
to come back among those that run: by Python's own 5 ms, one of ten statements takes 50 ms more."""
_YOUNG: Final = 5_000
"""New objects after which Python looks for garbage among them. By its own 700 it looks while a few
dozen questions are being answered, and what it finds is not garbage: a twentieth of all time."""


class Site(Struct, frozen=True):
    """What every service of a site is given."""

    name: str
    connection: Connection
    options: LiveOptions
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What the service counts."""
    health: Health = field(default_factory=Health)
    """What the service needs; whatever it is, besides the bus, the program says so."""

    def service(self, name: str, description: str) -> Service:
        """A service of this site, not yet on the bus.

        Where it has come in with credentials, it trusts nobody who asks.
        """
        measured = RequestMetrics(self.name, name)
        self.registry.register(measured)
        return Service(
            self.connection,
            site=self.name,
            name=name,
            version=__version__,
            description=description,
            detailed=lambda: self.options.current.detailed_logging,
            observe=measured.observe,
            strict=self.connection.door.credentials is not None,
        )


Program = Callable[[Site], AbstractAsyncContextManager[None]]
"""A service: entered it is on the bus, left it is gone without having lost a request."""
Prepare = Callable[[JetStreamContext], Awaitable[None]]
"""Makes the streams and buckets that are not there yet."""


def run(
    name: str,
    server: str,
    site: str,
    program: Program,
    metrics: str | None = None,
    log_folder: Path | None = None,
    door: Door | None = None,
    prepare: Prepare = prepare,
) -> None:
    """Runs a service until SIGINT or SIGTERM; it is watched at ``metrics``, HOST:PORT.

    Raises:
        ValueError: ``site`` is no site.
        UnprotectedError: the credentials of ``door`` would go in the clear.
        AddressError: nothing can be served at ``metrics``.
        LogFolderError: nothing can be logged in the folder.
    """
    if site != subjects.ESTATE and not subjects.valid_site(site):
        raise ValueError(f"{site!r} is no site: 1 to 32 of a-z, 0-9 and -")
    door = door or Door()
    door.check(addresses_in(server))
    detail = logs.configure(name, log_folder)

    def changed(options: Options) -> None:
        detail.on = options.detailed_logging
        detail.keep(options.retention_days)

    sys.setswitchinterval(_SWITCH)
    gc.set_threshold(_YOUNG)
    # When a counter was made is told by the start of the process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    measure_process(registry, site, name)
    health = Health()
    with served(registry, metrics, health):
        uvloop.run(
            _serve_until_told(name, server, site, door, prepare, program, changed, registry, health)
        )


async def _serve_until_told(
    name: str,
    server: str,
    site: str,
    door: Door,
    prepare: Prepare,
    program: Program,
    changed: Callable[[Options], None],
    registry: CollectorRegistry,
    health: Health,
) -> None:
    told = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, told.set)
    structlog.contextvars.bind_contextvars(site=site, service=name)
    log = structlog.get_logger(name)

    async def report(error: Exception) -> None:
        log.warning("the bus", error=str(error) or type(error).__name__)

    async def start(stack: AsyncExitStack) -> None:
        connection = await connect(server, f"{name}-{site}", report=report, door=door)
        stack.push_async_callback(_close, connection)
        _watch(connection, name, site, registry, health)
        attempt = 0
        while True:
            # What a program counts is its own, and goes with it if it cannot start.
            counted = CollectorRegistry()
            async with AsyncExitStack() as started:
                try:
                    await prepare(connection.jetstream())
                    options = LiveOptions(connection, site, changed)
                    started.push_async_callback(options.stop)
                    await options.start()
                    await started.enter_async_context(
                        program(Site(site, connection, options, counted, health))
                    )
                except (nats.errors.Error, TimeoutError) as error:
                    await report(error)
                else:
                    registry.register(counted)
                    stack.push_async_callback(started.pop_all().aclose)
                    return
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async with health.answered():
        async with AsyncExitStack() as stack:
            if await unless(told, start(stack)):
                # What is there from the start stays, and need not be looked at for garbage.
                gc.freeze()
                health.serving = True
                log.info("serving", version=__version__)
                await told.wait()
            health.serving = False
            log.info("leaving")
        log.info("left")


def _watch(
    connection: Connection, name: str, site: str, registry: CollectorRegistry, health: Health
) -> None:
    """Has the connection to the bus told of by the metrics and by the service's health."""
    health.needs("the bus", lambda: _sign_of_life(connection))
    Gauge(
        "imageinvoker_bus_connected",
        "1 while the service is connected to the bus, else 0.",
        ["site", "service"],
        registry=registry,
    ).labels(site, name).set_function(lambda: connection.is_connected)


async def _sign_of_life(connection: Connection) -> None:
    if not connection.is_connected:
        raise nats.errors.ConnectionClosedError
    # A question, since nats-py 2.16 stops reading when the answer to a ping comes too late.
    await connection.jetstream().key_value(subjects.OPTIONS)


async def _close(connection: Connection) -> None:
    with contextlib.suppress(nats.errors.Error, TimeoutError):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            if connection.is_connected:
                await connection.flush()
            await connection.close()
