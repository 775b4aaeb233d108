"""Machines on their way: at a real bus, against a small honest site."""

import asyncio
from collections.abc import AsyncIterator
from itertools import repeat
from typing import Final

import pytest

from bus.messages import Details
from bus.problems import Problem
from cli.storm.journeys import Errand
from cli.storm.ledger import Ledger
from cli.storm.machines import Fleet, RequestIds
from cli.storm.playing import Storm
from cli.storm.tally import STEPS, Tally
from tests.buses import BusServer
from tests.client.client_site import Site, until, welcome

MACHINES: Final = 12
PASSWORD: Final = "let me in"


@pytest.fixture
async def site(bus: BusServer) -> AsyncIterator[Site]:
    async with Site(bus.url, "main").serving() as site:
        # Each of these machines is told the same computer, which a real site never does.
        yield site


def storm_at(site: Site, password: str = PASSWORD, item: str | None = None) -> Storm:
    errand = Errand(server=site.url, site=site.site, item=item, username=None, password=password)
    return Storm(errand, Fleet(3, "STORM"), RequestIds.new(), Ledger(MACHINES), Tally())


async def play(storm: Storm, *, at_once: int = 50, give_up: float = 30) -> str:
    times = repeat(0.0, MACHINES)
    return await storm.play(1, times, at_once=at_once, give_up=give_up, told=asyncio.Event())


async def test_every_machine_goes_all_the_way_and_each_step_is_timed(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    storm = storm_at(site)
    assert await play(storm) == "finished"
    tally = storm.tally
    assert (tally.arrived, tally.scheduled, tally.errors) == (MACHINES, MACHINES, {})
    assert {step: tally.steps[step].count for step in STEPS} == dict.fromkeys(STEPS, MACHINES)
    assert len({wish.request_id for wish in site.sent}) == MACHINES
    assert {wish.item_id for wish in site.sent} == {"job:1"}
    assert {login.username for login in site.logins} == {None}
    assert storm.in_flight == 0


async def test_an_item_is_taken_by_its_title(site: Site) -> None:
    assert await play(storm_at(site, item="ubuntu 24.04")) == "finished"
    assert {wish.item_id for wish in site.sent} == {"job:3"}


async def test_an_unknown_machine_asks_for_its_name_and_a_known_one_for_none(site: Site) -> None:
    assert await play(storm_at(site)) == "finished"
    assert {wish.computer_name for wish in site.sent} == {None}
    site.welcome = welcome(computer=None)
    assert await play(storm_at(site)) == "finished"
    names = {wish.computer_name for wish in site.sent[MACHINES:]}
    assert names == {f"STORM{number:05}" for number in range(1, MACHINES + 1)}


async def test_who_is_turned_away_asks_again_which_is_no_error(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    busy = Problem("overloaded", details=Details(retry_after=0.05))
    site.problems = {"show": [busy] * 3, "login": [busy], "schedule": [busy] * 2}
    storm = storm_at(site)
    assert await play(storm) == "finished"
    assert storm.tally.retries == {"overloaded": 6}
    assert (storm.tally.scheduled, storm.tally.errors) == (MACHINES, {})


async def test_a_session_that_ends_is_renewed(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    site.problems = {"schedule": [Problem("session_expired")]}
    storm = storm_at(site)
    assert await play(storm) == "finished"
    assert (storm.tally.scheduled, storm.tally.retries) == (MACHINES, {"session_expired": 1})


async def test_a_refusal_is_counted_by_its_code(site: Site) -> None:
    site.problems = {
        "welcome": [Problem("ambiguous_machine")] * 2,
        "schedule": [Problem("forbidden")],
    }
    storm = storm_at(site)
    assert await play(storm) == "finished"
    tally = storm.tally
    assert tally.errors == {"ambiguous_machine": 2, "forbidden": 1}
    assert (tally.scheduled, tally.failed, tally.rejected) == (MACHINES - 3, 2, 1)


async def test_a_wrong_password_is_tried_once_by_each_machine(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    site.tries = 1000
    storm = storm_at(site, password="nonsense")
    assert await play(storm) == "finished"
    assert storm.tally.errors == {"login_failed": MACHINES}
    assert len(site.logins) == MACHINES


async def test_a_request_that_waits_is_asked_for_until_it_has_ended(site: Site) -> None:
    site.polls = 4
    storm = storm_at(site)
    assert await play(storm) == "finished"
    schedule, outcome = storm.tally.steps["schedule"], storm.tally.steps["outcome"]
    assert storm.tally.scheduled == MACHINES
    assert schedule.max < outcome.max


async def test_only_so_many_travel_at_a_time_and_who_waits_is_counted(site: Site) -> None:
    storm = storm_at(site)
    assert await play(storm, at_once=2) == "finished"
    assert storm.tally.scheduled == MACHINES
    assert storm.tally.held_back == MACHINES - 2


async def test_the_time_is_bounded_and_who_is_cut_off_is_counted(site: Site) -> None:
    site.polls = 10**6
    storm = storm_at(site)
    assert await play(storm, give_up=1) == "gave_up"
    assert storm.tally.errors == {"gave_up": MACHINES}
    assert storm.in_flight == 0
    assert storm.tally.steps["schedule"].count == MACHINES
    assert "outcome" not in storm.tally.steps


async def test_who_ends_the_storm_keeps_what_has_come_and_lets_the_rest_end(site: Site) -> None:
    storm = storm_at(site)
    told = asyncio.Event()
    times = [*repeat(0.0, MACHINES - 2), 1000.0, 1001.0]
    playing = asyncio.create_task(storm.play(1, times, at_once=50, give_up=2000, told=told))
    await until(lambda: storm.tally.ended == MACHINES - 2, lambda: str(storm.tally.ended))
    told.set()
    assert await playing == "interrupted"
    assert (storm.tally.scheduled, storm.tally.errors) == (MACHINES - 2, {})
    assert storm.in_flight == 0


async def test_a_storm_that_is_cancelled_leaves_nobody_on_the_way(site: Site) -> None:
    site.silent = {"welcome"}
    storm = storm_at(site)
    playing = asyncio.create_task(play(storm))
    await until(lambda: len(site.hellos) == MACHINES, lambda: str(len(site.hellos)))
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert storm.in_flight == 0
    assert storm.tally.ended == MACHINES
