"""A whole site on a deployment server of which ImageInvoker itself knows nothing."""

import asyncio
from pathlib import Path

import pytest

from bus import subjects
from bus.events import Event, event_decoder
from bus.messages import ItemEntry
from express.connection import sqlite_dsn
from services.menu.program import program as menu
from services.monitor.program import program as monitor
from services.scheduler.program import program as scheduler
from tests.engine.grounds import TinyGround
from tests.site import (
    Asker,
    ServiceProcess,
    eventually,
    new_id,
    new_machine,
    processes,
    refused,
    running,
)

ITEM = "folder:10"
PC = new_machine(1)


@pytest.fixture
def ground(tiny: None, tmp_path: Path) -> TinyGround:
    """A deployment server with one item of two jobs, and one of one."""
    found = TinyGround(tmp_path)
    found.add_folder(10, None, "Office (MI)")
    found.add_job(101, 10, "1. Image")
    found.add_job(102, 10, "2. Programs")
    found.add_job(103, None, "Memory test (MI)")
    return found


async def events(client: Asker) -> list[Event]:
    found = await client.kept(subjects.EVENTS, subjects.event(client.site))
    return [event_decoder.decode(data) for data in found if data]


async def items(client: Asker) -> dict[str, str]:
    menu = await client.show(PC)
    assert not menu.stale
    return {each.id: each.title for each in menu.entries if isinstance(each, ItemEntry)}


async def test_a_machine_goes_from_the_portal_to_the_end_of_its_jobs(
    url: str, name: str, client: Asker, ground: TinyGround, tmp_path: Path
) -> None:
    history = sqlite_dsn(tmp_path / "history.db")
    programs = menu(ground.address), scheduler(ground.address), monitor(ground.address, history)
    async with running(url, name, *programs):
        welcome = await client.welcome(PC)
        assert (welcome.computer, welcome.suggested_name) == (None, "NEW0000001")
        assert await items(client) == {ITEM: "Office", "job:103": "Memory test"}

        outcome = await client.schedule(PC, ITEM, "FRONT-DESK")
        if outcome.state == "accepted":
            outcome = await client.settled(PC, outcome.request_id)
        assert outcome.state == "scheduled"
        assert outcome.computer is not None
        assert outcome.rows is not None
        assert ground.pending(outcome.computer.id) == [101, 102]
        assert await client.status(PC, outcome.request_id) == outcome
        again = await client.welcome(PC)
        assert again.computer is not None
        assert again.computer.name == "FRONT-DESK"
        with refused("name_taken"):
            await client.schedule(new_machine(2), ITEM, "front-desk")

        # A change shows in the menu, and what becomes of the jobs in the events.
        ground.rename_job(103, "RAM test (MI)")
        await eventually(lambda: items(client), lambda found: found["job:103"] == "RAM test")
        for row, status in zip(outcome.rows, (0, 0), strict=True):
            ground.set_status(row, status)
        told = await eventually(
            lambda: events(client),
            lambda found: any(each.kind == "deployment_finished" for each in found),
        )
    ends = [each for each in told if each.kind == "deployment_finished"]
    assert [each.details["outcome"] for each in ends] == ["succeeded"]
    assert [each.details["job"] for each in told if each.kind == "job_finished"] == [
        "1. Image",
        "2. Programs",
    ]


async def test_services_as_processes_find_the_engine_and_a_killed_scheduler_loses_nothing(
    url: str, name: str, client: Asker, ground: TinyGround, tmp_path: Path
) -> None:
    services = [
        ServiceProcess(each, url, name, ground.address, tmp_path) for each in ("menu", "scheduler")
    ]
    asked = {number: new_id() for number in range(2, 12)}
    with processes(*services):
        await asyncio.gather(*(each.serving() for each in services))
        assert (await client.welcome(PC)).computer is None
        deploying = [
            asyncio.create_task(client.insist(new_machine(number), ITEM, id_))
            for number, id_ in asked.items()
        ]
        _, scheduling = services
        await asyncio.wait(deploying, return_when=asyncio.FIRST_COMPLETED)
        scheduling.kill()
        scheduling.start()
        outcomes = await asyncio.gather(*deploying)
    computers = {each.computer.id for each in outcomes if each.computer}
    assert len(computers) == len(asked) == len(ground.names())
    assert all(ground.pending(computer) == [101, 102] for computer in computers)
