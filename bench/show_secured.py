"""How fast menus are shown where the bus trusts nobody, against a bus that trusts everybody.

Two sites, each with its services as processes: one as `imageinvoker up` runs it, on a loopback bus
without any of that, and one of an estate: its bus is a leaf node of a hub, encrypts everything, and
a boot client comes in through the auth service and may do what that lets it. Either menu is asked
for over one connection, in turn, with as many requests in flight.
"""

import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.harness import Figure, Reach, Rounds, Run, Say, per_second
from bench.show_rate import IN_FLIGHT, Exchange, burst, show
from bench.site import MACHINE, Site, running_site
from bus import contract, subjects
from bus.connection import Connection, connect
from bus.door import BootLogin, Door
from bus.machines import machine_key
from estate.permissions import SERVICES
from tests.estate.servers import add_site, hub_servers, new_estate
from tests.estate.whole_site import WholeSite

_SITE: Final = "campus"
_ROUNDS: Final = 31
"""Short ones, since what else the host does moves each of them by a fifth."""
_REQUESTS: Final = 3_200


@dataclass(frozen=True)
class _Asked:
    """Where menus are asked for, and what is asked and answered there."""

    connection: Connection
    subject: str
    exchange: Exchange

    async def rate(self) -> float:
        """Menus a second."""
        return (await burst(self.connection, self.subject, [self.exchange], _REQUESTS)).rate


def _make(say: Say) -> Mapping[str, float]:
    with running_site() as plain, tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        return uvloop.run(_measure(plain, Path(scratch), say))


async def _measure(plain: Site, scratch: Path, say: Say) -> Mapping[str, float]:
    estate = new_estate(scratch / "estate", hub=1)
    add_site(estate, _SITE)
    (centre,) = hub_servers(estate)
    async with AsyncExitStack() as stack:
        centre.start()
        stack.callback(centre.stop)
        site = WholeSite(estate, _SITE, scratch)
        await stack.enter_async_context(site.working(*SERVICES))
        open_bus = await _asked(await connect(plain.url, "bench"), plain.name)
        stack.push_async_callback(open_bus.connection.close)
        key = machine_key(MACHINE)
        door = Door(ca=site.server.ready / "tls" / "ca.pem", boot=BootLogin(key, site.image))
        client = await connect(site.server.url, key, inbox=subjects.inbox(key), door=door)
        stack.push_async_callback(client.close)
        secured = await _asked(client, _SITE)
        rates = Rounds(say, "secured", "open", per_second)
        say(f"{IN_FLIGHT} requests in flight")
        for number in range(_ROUNDS + 1):
            near, plainly = await secured.rate(), await open_bus.rate()
            if number:  # The first round warms both sides up.
                rates.add(near, plainly)
        return {_SECURED.name: rates.median()}


async def _asked(connection: Connection, site: str) -> _Asked:
    exchange = await show(connection, site, MACHINE)
    return _Asked(connection, subjects.endpoint(site, "menu", contract.SHOW.verb, ""), exchange)


_SECURED: Final = Figure(
    name="show_secured",
    about="rate of showing a menu at a leaf node, with TLS and a boot client's permissions / on an "
    f"open loopback bus, {IN_FLIGHT} in flight",
    reach=Reach(">=", 0.7),
)
RUN: Final = Run((_SECURED,), _make)
