"""The live view as an operator reads it: what each machine is doing now."""

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.live import Live, live_decoder
from bus.messages import ComputerRef, encode
from cli.live import how_long
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk, interrupt
from tests.e2e.e2e_site import COMMAND
from tests.terminal import Terminal

ONE = "4c4c4544004235108052b4c04f4d3132"
TWO = "mac525400123456"
THREE = "mac525400123457"


def entry(machine: str, **told: object) -> Live:
    """An entry of a minute ago, or as told."""
    known = {"machine": machine, "stage": "menu_shown", "since": datetime.now(UTC)} | told
    return live_decoder.decode(encode(known))


async def put(desk: Desk, live: Live) -> None:
    bucket = await desk.connection.jetstream().key_value(subjects.LIVE)
    await bucket.put(subjects.site_key(SITE, live.machine), encode(live))


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path) -> Desk:
    await prepare(connection.jetstream())
    return Desk(bus.url, connection, tmp_path / "home")


@pytest.fixture
async def busy(desk: Desk) -> Desk:
    """A desk at a site where machines are on their way."""
    now = datetime.now(UTC)
    await put(desk, entry(
        ONE, stage="running", since=now - timedelta(minutes=3, seconds=5), item="folder:10",
        title="Staff Desktop", technician="alice",
        computer=ComputerRef(id=6, name="LAB-01"), request="r", jobs=10,
        jobs_done=4,
    ))  # fmt: skip
    await put(desk, entry(
        TWO, stage="rejected", since=now - timedelta(hours=2, seconds=5), item="job:1",
        technician="eve\x1b[2J\nroot", problem="name_taken",
    ))  # fmt: skip
    await put(desk, entry(THREE, since=now + timedelta(seconds=30)))
    return desk


def test_machines_are_a_table_with_the_latest_first(busy: Desk) -> None:
    lines = [re.split(" {2,}", line) for line in busy.done("live").splitlines()]
    assert lines == [
        ["MACHINE", "STAGE", "SINCE", "ITEM", "TECHNICIAN"],
        [THREE, "menu_shown", "0 s", "-", "-"],
        ["LAB-01", "running 4/10", "3 min", "Staff Desktop", "alice"],
        [TWO, "rejected (name_taken)", "2 h 00", "job:1", "eve�[2J root"],
    ]


def test_programs_get_a_machine_a_line(busy: Desk) -> None:
    found = [json.loads(line) for line in busy.done("live", "--json").splitlines()]
    assert [each["machine"] for each in found] == [THREE, ONE, TWO]
    assert found[1]["computer"] == {"id": 6, "name": "LAB-01"}
    assert (found[1]["jobs_done"], found[1]["jobs"]) == (4, 10)
    assert (found[1]["item"], found[1]["title"]) == ("folder:10", "Staff Desktop")


def test_machines_are_asked_for_by_stage(busy: Desk) -> None:
    def found(*stages: str) -> list[str]:
        lines = busy.done("live", "--json", "--stage", *stages).splitlines()
        return [live_decoder.decode(line).machine for line in lines]

    assert found("running") == [ONE]
    assert found("running", "rejected") == [ONE, TWO]
    assert found("finished") == []
    nobody = busy.run("live", "--stage", "finished", "failed")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert nobody.stderr == "No machine is finished or failed; without --stage all are shown.\n"
    assert "asleep" in busy.refused("live", "--stage", "asleep")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_where_nothing_happens_a_sentence_says_so(desk: Desk, form: tuple[str, ...]) -> None:
    done = desk.run("live", *form)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No machine" in done.stderr


async def test_another_sites_machines_and_junk_are_not_shown(busy: Desk) -> None:
    bucket = await busy.connection.jetstream().key_value(subjects.LIVE)
    await bucket.put(subjects.site_key("other", ONE), encode(entry(ONE)))
    await bucket.put(subjects.site_key(SITE, "junk"), b"{")
    assert len(busy.done("live", "--json").splitlines()) == 3


async def test_who_watches_off_a_terminal_gets_a_line_for_each_change_until_ctrl_c(
    busy: Desk,
) -> None:
    with busy.started("live", "--watch", "--json") as watching:
        assert watching.stdout
        first = [live_decoder.decode(watching.stdout.readline()).machine for _ in range(3)]
        assert first == [TWO, ONE, THREE]
        await put(busy, entry(TWO, stage="accepted"))
        changed = live_decoder.decode(watching.stdout.readline())
        assert (changed.machine, changed.stage) == (TWO, "accepted")
        assert interrupt(watching) == (0, "", "")


async def test_who_watches_in_words_gets_the_header_once(busy: Desk) -> None:
    with busy.started("live", "--watch", "--stage", "running") as watching:
        assert watching.stdout
        assert watching.stdout.readline().startswith("MACHINE")
        assert watching.stdout.readline().startswith("LAB-01")
        await put(busy, entry(TWO, stage="running", jobs=2))
        assert watching.stdout.readline().split()[1:3] == ["running", "0/2"]
        assert interrupt(watching) == (0, "", "")


async def test_a_screen_is_drawn_anew_as_machines_go_on_and_ends_with_ctrl_c(busy: Desk) -> None:
    command = [*COMMAND, "live", "--watch"]
    with Terminal(command, busy.environment, columns=80, rows=8) as screen:
        screen.wait_for("running 4/10")
        assert screen.text.splitlines()[0] == f"Site {SITE}: 3 machines"
        await put(busy, entry(ONE, stage="finished", computer=ComputerRef(id=6, name="LAB-01")))
        screen.wait_for("finished")
        assert "running" not in screen.text
        for number in range(20):
            await put(busy, entry(f"mac5254009999{number:02}", stage="accepted"))
        screen.wait_for("23 machines")
        # The latest stay in sight, and nothing scrolls.
        assert screen.text.splitlines()[0].startswith("Site")
        assert "mac525400999919" in screen.text
        screen.process.send_signal(signal.SIGINT)
        assert screen.status() == 0
        assert not screen.screen.cursor.hidden


def test_stages_have_colours_on_a_terminal_alone(busy: Desk) -> None:
    with Terminal([*COMMAND, "live"], busy.environment, columns=120, rows=8) as screen:
        screen.wait_for(TWO)
        colours = {
            line.split()[0]: screen.screen.buffer[row][0].fg
            for row, line in enumerate(screen.screen.display)
            if line.strip()
        }
    assert (colours["LAB-01"], colours[TWO], colours[THREE]) == ("brown", "red", "default")
    assert "\x1b" not in busy.done("live")


async def test_a_reader_that_goes_away_ends_the_watching_in_silence(busy: Desk) -> None:
    with busy.started("live", "--watch") as watching:
        assert watching.stdout
        assert watching.stdout.readline().startswith("MACHINE")
        watching.stdout.close()
        number = 0
        while watching.poll() is None:
            number += 1
            await put(busy, entry(TWO, stage="running", jobs=number))
        assert watching.returncode == 0
        assert watching.stderr
        assert watching.stderr.read() == ""


@pytest.mark.parametrize("form", [(), ("--watch",)])
def test_a_bus_that_keeps_no_live_view_ends_with_status_4(
    bus: BusServer, connection: Connection, tmp_path: Path, form: tuple[str, ...]
) -> None:
    done = Desk(bus.url, connection, tmp_path).run("live", *form)
    assert done.returncode == 4
    assert "does not keep" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 00"),
     (7500, "2 h 05"), (86_400, "1 d 0 h"), (180_000, "2 d 2 h")],
)  # fmt: skip
def test_how_long_something_lasts_is_told_in_its_greatest_units(seconds: float, words: str) -> None:
    assert how_long(seconds) == words
