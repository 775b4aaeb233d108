"""The first screen: only ``i`` enters, and the boot goes on when nobody does."""

import asyncio

from client_portal import at_portal
from client_site import MACHINE, Site, until, welcome

from bus.machines import machine_key
from bus.problems import Problem
from tests.buses import BusServer


async def test_an_unused_countdown_is_shown_by_the_second_and_passes_by(site: Site) -> None:
    site.welcome = welcome(timeout=2)
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("Press i for the deployment menu")
        await technician.sees("goes on starting in 2 s")
        await technician.sees("goes on starting in 1 s")
        await technician.leaves_with(0)
    assert site.shown == []


async def test_no_stray_key_stops_or_prolongs_the_countdown(site: Site) -> None:
    site.welcome = welcome(timeout=1)
    loop = asyncio.get_running_loop()
    async with at_portal(site.url, site.site) as technician:
        began = loop.time()
        await technician.presses("escape", "enter", " ", "x", "tab", "f1")
        await technician.presses("ctrl+c", "ctrl+q", "ctrl+p", "ctrl+z")
        await technician.leaves_with(0)
        assert loop.time() - began < 3
    assert site.shown == []


async def test_a_capital_i_enters_too(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await technician.presses("I")
        await technician.sees("What is to be deployed on this computer?")


async def test_the_local_timeout_wins_over_the_sites(site: Site) -> None:
    site.welcome = welcome(timeout=0)
    async with at_portal(site.url, site.site, seconds=1) as technician:
        await technician.sees("known as PC-0815", "goes on starting in 1 s")
        await technician.leaves_with(0)


async def test_a_zero_of_the_site_waits_for_ever(site: Site) -> None:
    site.welcome = welcome(timeout=0)
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("The computer waits for your choice")
        await technician.enters()
        await technician.sees("Windows 11 Staff")


async def test_a_local_zero_waits_for_ever(site: Site) -> None:
    site.welcome = welcome(timeout=1)
    async with at_portal(site.url, site.site, seconds=0) as technician:
        await technician.sees("known as PC-0815", "The computer waits for your choice")
        await asyncio.sleep(1.3)  # longer than the site's time-out, which must not count
        await technician.sees("The computer waits for your choice")


async def test_without_a_server_the_countdown_runs_and_says_that_there_was_none(
    own_server: BusServer,
) -> None:
    async with at_portal(own_server.url, "main", seconds=1) as technician:
        await technician.sees("goes on starting in 1 s", "Nobody answers at this address.")
        await technician.leaves_with(4)


async def test_a_server_that_comes_up_later_is_found(own_server: BusServer) -> None:
    async with at_portal(own_server.url, "main", seconds=0) as technician:
        await technician.sees(f"Looking for the deployment service at {own_server.url}")
        await technician.sees("Nobody answers at this address.")
        await technician.enters()
        await technician.sees("ESC goes on without the portal.")
        own_server.start()
        await technician.sees("The server is there, but the deployment service does not answer")
        async with Site(own_server.url, "main").serving():
            await technician.sees("Windows 11 Staff")
            await technician.sees_no("The server is there")


async def test_whoever_does_not_want_to_wait_for_the_server_leaves(own_server: BusServer) -> None:
    async with at_portal(own_server.url, "main", seconds=0) as technician:
        await technician.enters()
        await technician.sees("ESC goes on without the portal.")
        await technician.presses("x", "enter", "escape")
        await technician.leaves_with(4)


async def test_an_unknown_computer_is_said_to_be_unknown(site: Site) -> None:
    site.welcome = welcome(computer=None)
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("This computer is not known to the deployment server yet")


async def test_a_machine_the_site_will_not_serve_is_told_why_and_may_try_again(site: Site) -> None:
    site.problems["welcome"] = [Problem("ambiguous_machine"), Problem("ambiguous_machine")]
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("Several computers match this machine.")
        await technician.enters()
        await technician.sees("This computer cannot be served here", "Several computers match")
        first = technician.portal.screen
        await technician.presses("enter")
        await until(lambda: technician.portal.screen is not first, technician.text)
        await technician.sees("ENTER tries again")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")


async def test_a_machine_the_site_will_not_serve_leaves_refused(site: Site) -> None:
    site.problems["welcome"] = [Problem("ambiguous_machine")]
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Several computers match")
        await technician.presses("escape")
        await technician.leaves_with(3)


async def test_the_machine_says_who_it_is_and_which_client_it_runs(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("PC-0815")
    (hello,) = site.hellos
    assert machine_key(hello.machine) == machine_key(MACHINE)
    assert hello.client.version
