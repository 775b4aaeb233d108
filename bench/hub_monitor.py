"""How much processor the monitor at a hub takes for fifty sites with twenty events a second each.

Real processes: the hub's bus, one bus a site as a leaf node of it, and the monitor as
`imageinvoker monitor --estate` runs it, with its history in a SQLite file. This one publishes at
every site; NATS brings the events to the hub. What is measured begins when every site is followed.
"""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import uvloop
from msgspec.structs import replace

from bench.harness import MeasureError, Reach, Say, one_figure
from bench.history import deployment
from bench.processes import processor_time, total
from bench.site import clean_environment, end
from bus import hub, subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import Event
from bus.messages import encode
from bus.sites import SiteEntry, SiteStore
from cli.ports import HOST, held_port, port_of
from express.connection import sqlite_dsn
from tests.hubs import Hub, SiteBus

_SITES: Final = 50
_RATE: Final = 20
"""Events a second at each of them."""
_SECONDS: Final = 30
_PATIENCE: Final = 120.0
_LOOK: Final = 0.2


class _Direct(NamedTuple):
    """A line that nobody cuts."""

    host: str
    port: int


def _make(say: Say) -> float:
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        return uvloop.run(_measure(Path(scratch), say))


async def _measure(folder: Path, say: Say) -> float:
    sites = [f"site-{number:02}" for number in range(_SITES)]
    async with contextlib.AsyncExitStack() as stack:
        centre = Hub(folder / "hub")
        centre.start()
        stack.callback(centre.stop)
        at_hub = await connect(centre.url, "bench")
        stack.push_async_callback(at_hub.close)
        await hub.prepare(at_hub.jetstream(), ())
        store = await SiteStore.open(at_hub)
        connections: list[Connection] = []
        for site in sites:
            server = SiteBus(folder / site, site, _Direct(HOST, centre.leaf_port))
            server.start()
            stack.callback(server.stop)
            connection = await connect(server.url, "bench")
            stack.push_async_callback(connection.close)
            await prepare(connection.jetstream(), hub=hub.DOMAIN)
            connections.append(connection)
            await store.write(SiteEntry(name=site))
        say(f"{_SITES} sites, each a bus of its own, with {_RATE} events a second each")
        metrics = f"{HOST}:{port_of(stack.enter_context(held_port()))}"
        monitor = stack.enter_context(_monitor(centre.url, metrics, folder))
        streams = [_events(site) for site in sites]
        # The first of each, so that everything that is done once is done.
        await _publish(connections, [[next(events)] for events in streams])
        await _shown(metrics, monitor, _SITES)
        before, began = processor_time(monitor.pid), time.monotonic()
        for number in range(_SECONDS):
            await _publish(
                connections, [list(itertools.islice(events, _RATE)) for events in streams]
            )
            await asyncio.sleep(max(0.0, began + number + 1 - time.monotonic()))
        published = time.monotonic()
        await _shown(metrics, monitor, _SITES * (1 + _SECONDS * _RATE))
        taken, shown = processor_time(monitor.pid) - before, time.monotonic()
        say(
            f"published in {published - began:.1f} s, all shown {shown - published:.1f} s later, "
            f"{taken:.2f} s of processor time"
        )
        return taken / (published - began)


def _events(site: str) -> Iterator[Event]:
    """What happens at a site, without an end."""
    now = datetime.now(UTC)
    for number in itertools.count():
        for event in deployment(number, now):
            yield replace(event, site=site, id=f"{site}.{event.id}")


async def _publish(connections: Sequence[Connection], lots: Sequence[Sequence[Event]]) -> None:
    for connection, events in zip(connections, lots, strict=True):
        for each in events:
            subject = subjects.event(each.site, each.machine, each.kind)
            await connection.publish(subject, encode(each))
        await connection.flush()


async def _shown(metrics: str, monitor: "subprocess.Popen[bytes]", count: int) -> None:
    """Returns when the monitor shows so many events of all sites.

    Raises:
        MeasureError: it does not.
    """
    until = time.monotonic() + _PATIENCE
    while await asyncio.to_thread(_total, metrics) < count:
        if monitor.poll() is not None or time.monotonic() > until:
            raise MeasureError("the monitor does not show all events")
        await asyncio.sleep(_LOOK)


def _total(metrics: str) -> float:
    with contextlib.suppress(MeasureError):
        return total(f"http://{metrics}/metrics", "imageinvoker_events_total")
    return 0.0


@contextlib.contextmanager
def _monitor(url: str, metrics: str, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    environment = clean_environment(folder) | {
        "IMAGEINVOKER_SERVER": url,
        "IMAGEINVOKER_HISTORY": sqlite_dsn(folder / "history.db"),
    }
    with (folder / "monitor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "monitor", "--estate", "--metrics", metrics],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        end(process)


RUN: Final = one_figure(
    "hub_monitor",
    f"processor of the monitor at the hub of {_SITES} sites with {_RATE} events a second each, "
    "in cores",
    Reach("<=", 0.5),
    _make,
)
