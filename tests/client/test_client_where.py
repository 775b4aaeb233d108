"""The boot client that knows only a bus: it asks at which site it is, and goes there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from client_portal import Technician
from client_site import MACHINE, Site, welcome
from nats.aio.msg import Msg

from bus import subjects
from bus.messages import Here, encode
from bus.problems import Problem
from client.portal.app import Portal
from client.portal.refused import RefusedScreen
from client.settings import Settings
from client.status import REFUSED
from tests.buses import BusServer


@asynccontextmanager
async def telling(url: str, answer: Here | Problem) -> AsyncIterator[list[str]]:
    """Somebody who tells every machine at which site it is; gives the subjects asked on."""
    asked: list[str] = []
    connection = await nats.connect(url)

    async def tell(message: Msg) -> None:
        asked.append(message.subject)
        if isinstance(answer, Problem):
            body, headers = answer.wire()
            await connection.publish(message.reply, body, headers=headers)
        else:
            await message.respond(encode(answer))

    subject = subjects.endpoint(subjects.ESTATE, "auth", "where")
    await connection.subscribe(subject, queue="auth", cb=tell)
    await connection.flush()
    await connection.flush()
    try:
        yield asked
    finally:
        await connection.close()


@asynccontextmanager
async def booted(server: str) -> AsyncIterator[Technician]:
    """A technician at a machine that was told nothing but a bus."""
    portal = Portal(Settings(server=server), server, MACHINE)
    async with portal.run_test(size=(80, 25)) as pilot:
        yield Technician(portal, pilot)


async def test_a_client_without_a_site_is_told_its_own(bus: BusServer) -> None:
    site = Site(bus.url, "london")
    async with (
        site.serving(),
        telling(bus.url, Here(site="london")) as asked,
        booted(bus.url) as technician,
    ):
        await technician.sees("london", "PC-0815")
        assert len(site.hellos) == len(asked) == 1
        await technician.enters()
        await technician.sees("Windows 11 Staff")


async def test_a_client_goes_to_the_bus_of_its_site(bus: BusServer, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = BusServer(folder)
    other.start()
    try:
        site = Site(other.url, "oslo")
        here = Here(site="oslo", servers=(other.url,))
        async with site.serving(), telling(bus.url, here), booted(bus.url) as technician:
            await technician.sees("oslo", "PC-0815")
            await technician.enters()
            await technician.sees("Windows 11 Staff")
            assert len(site.hellos) == 1
    finally:
        other.stop()


async def test_a_client_at_an_older_site_goes_on_with_main(bus: BusServer) -> None:
    site = Site(bus.url, "main")
    site.welcome = welcome("main")
    async with site.serving(), booted(bus.url) as technician:
        await technician.sees("PC-0815")
        assert len(site.hellos) == 1


async def test_a_client_at_no_known_site_is_told_so(bus: BusServer) -> None:
    problem = Problem(
        "unknown_site", "This machine is at no known site: its network address is 10.9.9.9."
    )
    async with telling(bus.url, problem), booted(bus.url) as technician:
        await technician.sees("at no known site")
        await technician.enters()
        await technician.stands_at(RefusedScreen)
        await technician.sees("10.9.9.9")
        await technician.presses("escape")
        await technician.leaves_with(REFUSED)


async def test_a_client_that_was_told_a_site_does_not_ask(bus: BusServer) -> None:
    site = Site(bus.url, "lab")
    async with site.serving(), telling(bus.url, Here(site="london")) as asked:
        portal = Portal(Settings(server=bus.url, site="lab"), bus.url, MACHINE)
        async with portal.run_test(size=(80, 25)) as pilot:
            await Technician(portal, pilot).sees("lab", "PC-0815")
        assert asked == []
