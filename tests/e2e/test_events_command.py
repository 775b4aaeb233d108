"""Following what happens at a site, as an operator or a program does."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import EventLog
from bus.messages import ComputerRef
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk, interrupt

ONE = "4c4c4544004235108052b4c04f4d3132"
TWO = "mac525400123456"


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path) -> Desk:
    await prepare(connection.jetstream())
    return Desk(bus.url, connection, tmp_path / "home")


@pytest.fixture
async def log(desk: Desk) -> EventLog:
    """The events of a site where something has happened."""
    log = EventLog(desk.connection, SITE)
    await log.record("portal_opened", machine=ONE)
    await log.record("login_failed", machine=ONE, technician="alice")
    await log.record("menu_shown", machine=TWO)
    lab_01 = ComputerRef(id=6, name="LAB-01")
    await log.record("jobs_scheduled", machine=ONE, computer=lab_01, details={"jobs": 3})
    return log


def kinds(following: "subprocess.Popen[str]", count: int) -> list[str]:
    """The kinds of the next events that a program is told."""
    assert following.stdout
    return [json.loads(following.stdout.readline())["kind"] for _ in range(count)]


async def test_the_last_events_come_first_and_then_each_as_it_happens(
    desk: Desk, log: EventLog
) -> None:
    with desk.started("events", "tail", "-n", "2", "--json") as following:
        assert kinds(following, 2) == ["menu_shown", "jobs_scheduled"]
        await log.record("job_started", machine=ONE)
        await log.record("option_changed", operator="root@desk")
        assert kinds(following, 2) == ["job_started", "option_changed"]
        assert interrupt(following) == (0, "", "")


async def test_people_read_a_table(desk: Desk, log: EventLog) -> None:
    with desk.started("events", "tail") as following:
        assert following.stdout
        lines = [following.stdout.readline() for _ in range(5)]
        assert re.split(" {2,}", lines[0].strip()) == ["TIME", "KIND", "WHO", "MACHINE", "DETAILS"]
        assert [line[21:].split()[0] for line in lines[1:]] == [
            "portal_opened", "login_failed", "menu_shown", "jobs_scheduled",
        ]  # fmt: skip
        assert lines[4].rstrip().endswith("LAB-01" + " " * 28 + "jobs=3")
        await log.record("job_failed", machine=TWO, technician="\x1b[2Jeve")
        assert re.fullmatch(rf".{{19}}  job_failed +.\[2Jeve +{TWO}\n", following.stdout.readline())
        assert interrupt(following) == (0, "", "")


async def test_only_what_is_asked_for_is_followed(desk: Desk, log: EventLog) -> None:
    asked = ("--kind", "jobs", "requests", "--machine", "lab-01", "--json")
    with desk.started("events", "tail", *asked) as following:
        assert kinds(following, 1) == ["jobs_scheduled"]
        await log.record("job_started", machine=TWO)
        await log.record("login_failed", machine=ONE)
        await log.record("job_finished", machine=ONE)
        assert kinds(following, 1) == ["job_finished"]
        assert interrupt(following) == (0, "", "")


async def test_it_goes_on_when_the_bus_is_back(desk: Desk, log: EventLog, bus: BusServer) -> None:
    with desk.started("events", "tail", "-n", "1", "--json") as following:
        assert kinds(following, 1) == ["jobs_scheduled"]
        bus.kill()
        bus.start()
        connection = await connect(bus.url, "later")
        await EventLog(connection, SITE).record("job_started", machine=ONE)
        await connection.close()
        assert kinds(following, 1) == ["job_started"]
        status, out, _ = interrupt(following)
        assert (status, out) == (0, "")


async def test_a_reader_that_goes_away_ends_it_in_silence(desk: Desk, log: EventLog) -> None:
    with desk.started("events", "tail") as following:
        assert following.stdout
        assert following.stdout.readline().startswith("TIME")
        following.stdout.close()
        while following.poll() is None:
            await log.record("job_started", machine=ONE)
        assert following.returncode == 0
        assert following.stderr
        assert following.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tail", "--since", "soon"), "--since: 'soon' is no moment"),
        (("tail", "-n", "0"), "-n"),
        (("tail", "--kind", "sabotage"), "sabotage"),
        (("tail", "--site", "No Site"), "no site"),
        (("tail", "alice"), "alice"),
        (("head",), "head"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_sentence(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    assert words in desk.refused("events", *arguments)


def test_a_machine_that_nothing_is_known_of_is_said_so(desk: Desk) -> None:
    done = desk.run("events", "tail", "--machine", "NOWHERE")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing is known of a machine 'NOWHERE'" in done.stderr


def test_a_bus_that_keeps_no_events_is_waited_for_until_ctrl_c(
    bus: BusServer, connection: Connection, tmp_path: Path
) -> None:
    with Desk(bus.url, connection, tmp_path).started("events", "tail") as following:
        assert following.stderr
        assert "events cannot be read" in following.stderr.readline()
        status, out, _ = interrupt(following)
        assert (status, out) == (0, "")
