"""What a site costs where many share a bus: the services of up to 200 sites on one machine.

Bus and services are the real ones; the services of ten sites share a process, since 800 processes
would not fit (`bench/scale_host.py`). Each number of sites is measured on a bus of its own: first
while nobody asks, then while machines go through the sites in turn, as many a second whatever the
number of sites. What that takes beyond the rest is what the journeys cost.

The sites are not protected: hashes of passwords, one a minute and site, would be most of the load.
"""

import asyncio
import math
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from msgspec import Struct

from bench.harness import MeasureError, Say
from bench.processes import processor_time
from bench.scale_bus import BusCounts, monitored, pid_of, resident_bytes
from bench.scale_host import sample, site_name
from bench.scale_load import PASSWORD, Travelled, travelled_decoder
from bus.buckets import prepare
from bus.connection import connect
from bus.option_store import OptionStore
from bus.options import PASSWORD as HASHED
from bus.options import parse
from tests.buses import BusServer, free_port

SITES: Final = (10, 50, 100, 200)
IN_ONE: Final = 10
"""Sites of a process; the numbers of sites are multiples of it, so that all processes are alike."""
RATE: Final = 0.1
"""Journeys a second through each site, under load: what keeps one warm is alike for all."""
WINDOW: Final = 45.0
"""Seconds of each measure; within so many a watch is read anew once, more or less."""
_SETTLED: Final = 5.0
_STARTS_WITHIN: Final = 180.0
_LEAVES_WITHIN: Final = 60.0
_TRAVELS_WITHIN: Final = 120.0
"""Seconds that journeys may take beyond those in which they begin."""


class Cost(Struct, frozen=True, kw_only=True):
    """What all sites together took in a second, or what there is of them; bytes and seconds."""

    services: float
    """Processor seconds a second."""
    bus: float
    messages: float
    """Messages a second that the bus took in or sent."""
    seconds: float
    """For how long it was measured."""


class Estate(Struct, frozen=True, kw_only=True):
    """What so many sites cost."""

    sites: int
    started: float
    at_rest: Cost
    loaded: Cost
    travelled: Travelled
    resident: float
    """Bytes of the services' processes, at rest."""
    resident_bus: float
    counts: BusCounts

    def of_journey(self, rest: float, loaded: float) -> float:
        """What a journey took of something, from what was taken a second without any and with."""
        return (loaded - rest) * self.loaded.seconds / self.travelled.journeys

    @property
    def processor_of_journey(self) -> float:
        """Processor seconds of services and bus."""
        at_rest, loaded = self.at_rest, self.loaded
        return self.of_journey(at_rest.services + at_rest.bus, loaded.services + loaded.bus)

    @property
    def messages_of_journey(self) -> float:
        """Messages that the bus took in or sent."""
        return self.of_journey(self.at_rest.messages, self.loaded.messages)


class Serving(Struct, frozen=True):
    """Sites that serve."""

    url: str
    monitoring: str
    bus: int
    """Its process."""
    hosts: Sequence[int]
    started: float


def measured(sites: int, say: Say, window: float = WINDOW) -> Estate:
    """What so many sites cost; each measure takes ``window`` seconds.

    Raises:
        MeasureError: they do not start, or a journey failed.
    """
    say(f"{sites} sites: {-(-sites // IN_ONE)} processes and a bus start")
    with serving(sites) as estate:
        say(f"    they serve after {estate.started:.1f} s; {window:g} s at rest")
        time.sleep(_SETTLED)
        at_rest = _cost(estate, lambda: time.sleep(window))
        resident, resident_bus = sum(map(resident_bytes, estate.hosts)), resident_bytes(estate.bus)
        counts = monitored(estate.monitoring)
        say(f"    {window:g} s with {RATE * sites:g} journeys a second")
        travelled: list[Travelled] = []
        loaded = _cost(
            estate,
            lambda: travelled.append(journeys(estate.url, sites, 1 / (RATE * sites), window)),
        )
    if travelled[0].scheduled < travelled[0].journeys:
        raise MeasureError(f"of {sites} sites, journeys failed: {travelled[0]}")
    found = Estate(
        sites=sites,
        started=estate.started,
        at_rest=at_rest,
        loaded=loaded,
        travelled=travelled[0],
        resident=resident,
        resident_bus=resident_bus,
        counts=counts,
    )
    say(
        f"    a site at rest: {1000 * (at_rest.services + at_rest.bus) / sites:.2f} ms of "
        f"processor a second, {at_rest.messages / sites:.1f} messages a second, "
        f"{(resident + resident_bus) / sites / 1e6:.1f} MB; a journey: "
        f"{1000 * found.processor_of_journey:.1f} ms of processor, "
        f"{found.messages_of_journey:.0f} messages, p99 {1000 * travelled[0].p99:.0f} ms"
    )
    return found


def growth(of: Estate, few: Estate) -> dict[str, float]:
    """Each cost of a site and of a journey among ``of`` so many, against that among ``few``. Pure.

    How long a journey takes is no cost: it says how busy this machine is with all of them.
    """
    before = _costs(few)
    return {
        name: cost / before[name] if before[name] else math.inf
        for name, cost in _costs(of).items()
        if cost or before[name]
    }


def _costs(estate: Estate) -> dict[str, float]:
    at_rest, counts, sites = estate.at_rest, estate.counts, estate.sites
    return {
        "processor at rest": (at_rest.services + at_rest.bus) / sites,
        "messages at rest": at_rest.messages / sites,
        "memory": (estate.resident + estate.resident_bus) / sites,
        "connections": counts.connections / sites,
        "subscriptions": counts.subscriptions / sites,
        "consumers": sum(counts.consumers.values()) / sites,
        "processor of a journey": estate.processor_of_journey,
        "messages of a journey": estate.messages_of_journey,
    }


@contextmanager
def serving(sites: int) -> Iterator[Serving]:
    """A bus, and the services of so many sites on it; ended on leaving.

    Raises:
        MeasureError: they do not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ii-bench-")))
        asyncio.run(sample(folder))
        watched = f"127.0.0.1:{free_port()}"
        bus = BusServer(
            folder,
            more=f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always\n'
            f'limits {{ default_max_consumers: 20000 }} }}\nhttp: "{watched}"',
        )
        bus.start()
        stack.callback(bus.stop)
        log = stack.enter_context((folder / "log").open("wb"))
        began = time.monotonic()
        hosts: list[subprocess.Popen[bytes]] = []
        stack.callback(_leave, hosts)
        for first in range(1, sites + 1, IN_ONE):
            count = min(IN_ONE, sites + 1 - first)
            arguments = [bus.url, str(folder), str(first), str(count)]
            host = subprocess.Popen(
                [sys.executable, "-m", "bench.scale_host", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            hosts.append(host)
        for host in hosts:
            if not _is_ready(host, began + _STARTS_WITHIN - time.monotonic()):
                text = (folder / "log").read_text(encoding="utf-8")
                raise MeasureError(f"the sites did not start:\n{text[-2000:]}")
        started = time.monotonic() - began
        yield Serving(
            bus.url,
            f"http://{watched}",
            pid_of(folder / "nats.conf"),
            [host.pid for host in hosts],
            started,
        )


def _is_ready(host: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether its sites serve, within so many seconds."""
    return (
        host.stdout is not None
        and bool(select.select([host.stdout], [], [], max(0.0, seconds))[0])
        and host.stdout.readline() == b"ready\n"
    )


def _leave(hosts: "Sequence[subprocess.Popen[bytes]]") -> None:
    for host in hosts:
        for pipe in (host.stdin, host.stdout):
            if pipe:
                pipe.close()
    until = time.monotonic() + _LEAVES_WITHIN
    for host in hosts:
        try:
            host.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()


async def protect(url: str, sites: int) -> None:
    """Protects the sites by one shared password."""
    hashed = PasswordHasher().hash(PASSWORD).encode()
    connection = await connect(url, "bench")
    try:
        await prepare(connection.jetstream())
        for number in range(1, sites + 1):
            store = await OptionStore.open(connection, site_name(number))
            await store.write(HASHED, hashed)
            await store.write("protection", parse("protection", "hash"))
    finally:
        await connection.close()


def journeys(url: str, sites: int, each: float, seconds: float) -> Travelled:
    """Has machines go through the sites, by a process of its own.

    Raises:
        MeasureError: it failed.
    """
    arguments = [url, str(sites), str(each), str(seconds)]
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "bench.scale_load", *arguments],
            capture_output=True,
            timeout=seconds + _TRAVELS_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"the journeys do not end: {error}") from error
    if ran.returncode:
        raise MeasureError(f"no journeys could be made:\n{ran.stderr.decode()[-2000:]}")
    return travelled_decoder.decode(ran.stdout)


def _cost(estate: Serving, meanwhile: Callable[[], object]) -> Cost:
    before, began = _taken(estate), time.monotonic()
    meanwhile()
    seconds = time.monotonic() - began
    services, bus, messages = (
        (after - was) / seconds for after, was in zip(_taken(estate), before, strict=True)
    )
    return Cost(services=services, bus=bus, messages=messages, seconds=seconds)


def _taken(estate: Serving) -> tuple[float, float, float]:
    counts = monitored(estate.monitoring)
    return (
        sum(map(processor_time, estate.hosts)),
        processor_time(estate.bus),
        float(counts.messages_in + counts.messages_out),
    )
