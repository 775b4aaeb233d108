"""What a site costs where many share a bus: the services of up to 200 sites on one machine.

Bus and services are the real ones; the services of 25 sites share a process, since 800 processes
would not fit (`bench/scale_host.py`). Each number of sites is measured on a bus of its own: first
while nobody asks, then with one journey in ten seconds and site. The sites are not protected:
hashes of passwords, one a minute and site, would be most of the load.
"""

import asyncio
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
from bench.scale_bus import BusCounts, monitored, pid_of
from bench.scale_host import sample, site_name
from bench.scale_load import PASSWORD, Travelled, travelled_decoder
from bench.site import end
from bus.buckets import prepare
from bus.connection import connect
from bus.option_store import OptionStore
from bus.options import PASSWORD as HASHED
from bus.options import parse
from tests.buses import BusServer, free_port

SITES: Final = (1, 25, 50, 100, 200)
IN_ONE: Final = 25
"""Sites of a process."""
EACH: Final = 10.0
"""Seconds between two journeys of a site, under load."""
_SETTLED: Final = 5.0
_WINDOW: Final = 30.0
"""Seconds of each measure; within so many every watch is read anew once."""


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
    """Bytes of the services' processes, after the load."""
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


def measured(sites: int, say: Say) -> Estate:
    """What so many sites cost.

    Raises:
        MeasureError: they do not start, or a journey failed.
    """
    with serving(sites) as estate:
        say(f"{sites} sites serve after {estate.started:.1f} s")
        time.sleep(_SETTLED)
        at_rest = _cost(estate, lambda: time.sleep(_WINDOW))
        travelled: list[Travelled] = []
        loaded = _cost(
            estate, lambda: travelled.append(journeys(estate.url, sites, EACH / sites, _WINDOW))
        )
        if travelled[0].scheduled < travelled[0].journeys:
            raise MeasureError(f"of {sites} sites, journeys failed: {travelled[0]}")
        found = Estate(
            sites=sites,
            started=estate.started,
            at_rest=at_rest,
            loaded=loaded,
            travelled=travelled[0],
            resident=sum(map(_resident, estate.hosts)),
            resident_bus=_resident(estate.bus),
            counts=monitored(estate.monitoring),
        )
    say(
        f"at rest {1000 * (found.at_rest.services + found.at_rest.bus) / sites:.2f} ms of "
        f"processor a second and site, {found.at_rest.messages / sites:.1f} messages; a journey "
        f"{1000 * found.processor_of_journey:.1f} ms, {found.messages_of_journey:.0f} messages; "
        f"{found.resident / sites / 1e6:.1f} MB"
    )
    return found


def constancy(of: Estate, few: Estate) -> float:
    """The dearest of a site's costs among ``of`` so many, against those among ``few``. Pure."""
    return max(
        one / other
        for one, other in zip(_costs_of_site(of), _costs_of_site(few), strict=True)
        if other
    )


def _costs_of_site(estate: Estate) -> tuple[float, ...]:
    at_rest, counts = estate.at_rest, estate.counts
    together = (
        at_rest.services + at_rest.bus,
        at_rest.messages,
        estate.resident + estate.resident_bus,
        counts.connections,
        counts.subscriptions,
        counts.consumers,
    )
    of_journey = (estate.processor_of_journey, estate.messages_of_journey)
    return (*(cost / estate.sites for cost in together), *of_journey)


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
            more=f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}\n'
            f'http: "{watched}"',
        )
        bus.start()
        stack.callback(bus.stop)
        log = stack.enter_context((folder / "log").open("wb"))
        began = time.monotonic()
        hosts: list[subprocess.Popen[bytes]] = []
        for first in range(1, sites + 1, IN_ONE):
            count = min(IN_ONE, sites + 1 - first)
            arguments = [bus.url, str(folder), str(first), str(count)]
            host = subprocess.Popen(
                [sys.executable, "-m", "bench.scale_host", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            stack.callback(_leave, host)
            hosts.append(host)
        for host in hosts:
            if host.stdout is None or host.stdout.readline() != b"ready\n":
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


def _leave(host: "subprocess.Popen[bytes]") -> None:
    for pipe in (host.stdin, host.stdout):
        if pipe:
            pipe.close()
    try:
        host.wait(60)
    except subprocess.TimeoutExpired:
        end(host)


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
    ran = subprocess.run(
        [sys.executable, "-m", "bench.scale_load", *arguments],
        capture_output=True,
        timeout=seconds + 300,
        check=False,
    )
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


def _resident(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return float(status.partition("VmRSS:")[2].split()[0]) * 1024
