"""Machines whose firmware says nothing of them, and adapters that say too much."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from client_portal import at_portal
from client_site import Site, items, menu, welcome
from offline import DEAD, alone, client

from bus.messages import Welcome
from bus.problems import Problem
from client.main import run
from client.portal import way
from client.settings import Settings
from tests.terminal import Terminal

JUNK = {
    "nothing": {},
    "placeholders": {
        "uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "serial": "To be filled by O.E.M.",
        "asset_tag": "Default string",
        "macs": ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"],
    },
    "noise": {"uuid": "\u0007\u001b[2J", "serial": "\u0000\u0001 \u200b", "macs": ["?", "no"]},
}


def junk(folder: Path, kind: str) -> Path:
    file = folder / "junk.json"
    file.write_text(json.dumps(JUNK[kind]))
    return file


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("with_credential", [False, True])
def test_a_machine_that_nothing_tells_from_others_is_told_what_to_do(
    site: Site, tmp_path: Path, kind: str, with_credential: bool
) -> None:
    (tmp_path / "credential").write_text("iib1.half.half")
    words = ["--boot-credential", str(tmp_path / "credential")] if with_credential else []
    machine = junk(tmp_path, kind)
    command = client("--server", site.url, f"--site={site.site}", "--machine", str(machine), *words)
    with Terminal([*command, "-t", "0"], os.environ) as pc:
        pc.wait_for("! Nothing tells this computer from others")
        pc.type("i")
        screen = pc.wait_for("ENTER tries again")
        assert "set its serial number" in " ".join(screen.split())
        pc.type("\r")
        pc.wait_for("ENTER tries again")
        pc.type("\x1b")
        assert pc.status() == 3
        assert "Traceback" not in pc.text
    with Terminal([*command, "-t", "1"], os.environ) as pc:
        assert pc.status() == 0


def test_without_a_screen_it_is_refused_with_the_same_words(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        server=site.url,
        site=site.site,
        item="job:1",
        machine=junk(tmp_path, "placeholders"),
        boot_credential=tmp_path / "credential",
    )
    assert run(settings) == 3
    assert "Nothing tells this computer from others" in capsys.readouterr().err


async def test_a_console_without_unicode_ends_no_deployment(site: Site, machine_file: Path) -> None:
    site.menu = menu(*items("Büro 5 €"))

    def deploys() -> None:
        done = subprocess.run(
            client(
                *("--server", site.url, f"--site={site.site}", "--machine", str(machine_file)),
                *("--item", "Büro 5 €"),
            ),
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Scheduling B?ro 5 ? ..." in done.stdout

    await asyncio.to_thread(deploys)


async def test_a_machine_that_is_not_served_asks_again_by_itself(site: Site) -> None:
    site.problems["welcome"] = [Problem("bad_machine"), Problem("ambiguous_machine")]
    async with at_portal(site.url, site.site, seconds=0) as technician:
        await technician.sees("Nothing tells this computer from others")
        await technician.sees("Several computers match", seconds=20)
        await technician.sees("This computer is known as PC-0815", seconds=20)
        await technician.sees_no("Several computers match")


async def test_so_it_does_where_somebody_has_asked_for_the_menu(site: Site) -> None:
    site.problems["welcome"] = [Problem("bad_machine")]
    async with at_portal(site.url, site.site, seconds=0) as technician:
        await technician.sees("Nothing tells this computer from others")
        await technician.enters()
        await technician.sees("This computer cannot be served here", "ENTER tries again")
        await technician.sees("Windows 11 Staff", seconds=20)


NO_FIRMWARE = "if [ -d /sys/class/dmi/id ]; then mount -t tmpfs none /sys/class/dmi/id; fi"


def test_a_card_that_is_plugged_in_meanwhile_tells_a_machine_from_others(tmp_path: Path) -> None:
    plugged = tmp_path / "plugged"
    waits = f"(until [ -e {plugged} ]; do sleep 0.2; done; {DEAD[0].format(card='eth0')}) &"
    command = client("--server", "nats://127.0.0.1:1", "-t", "0")
    with Terminal(alone(command, NO_FIRMWARE, waits), os.environ) as pc:
        pc.wait_for("! Nothing tells this computer from others")
        plugged.touch()
        pc.wait_for("! Nobody answers at this address.", 30)


def test_a_machine_that_nothing_tells_from_others_goes_on_starting_in_time() -> None:
    command = client("--server", "nats://127.0.0.1:1", "-t", "7")
    with Terminal(alone(command, NO_FIRMWARE), os.environ) as pc:
        pc.wait_for("! Nothing tells this computer from others")
        assert pc.status(30) == 0


async def test_a_machine_that_is_not_served_is_passed_by_in_time_while_it_asks_again(
    site: Site,
) -> None:
    site.problems["welcome"] = [Problem("bad_machine")]
    async with at_portal(site.url, site.site, seconds=8) as technician:
        await technician.sees("Nothing tells this computer from others")
        site.silent.add("welcome")
        await technician.leaves_with(0, seconds=20)


@pytest.mark.parametrize(("is_there", "status"), [(True, 3), (False, 4)])
async def test_a_portal_that_was_opened_and_left_before_the_site_answered_holds_nothing_up(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_there: bool, status: int
) -> None:
    monkeypatch.setattr(way, "_ALONE", 2)
    if is_there:
        site.problems["welcome"] = [Problem("bad_machine")] * 9
    else:
        site.silent.add("welcome")
    async with at_portal(site.url, site.site, seconds=60) as technician:
        if is_there:
            await technician.sees("Nothing tells this computer from others")
        await technician.enters()
        await technician.leaves_with(status)


@pytest.mark.parametrize(
    ("told", "timeout", "limit"),
    [
        (None, None, 300),
        (None, 5, 300),
        (None, 0, 0),
        (welcome(idle_timeout=7), 5, 7),
        (welcome(idle_timeout=7), 0, 7),
        (welcome(idle_timeout=0), 5, 0),
    ],
)
def test_how_long_a_portal_may_be_left_alone(
    told: Welcome | None, timeout: int | None, limit: int
) -> None:
    assert way.idle_limit(told, timeout) == limit


async def test_a_machine_of_which_only_a_shared_adapter_is_known_is_told_so(site: Site) -> None:
    """As services answer when all that is left of an identity is listed in `shared_macs`."""
    site.problems["welcome"] = [Problem("bad_machine")]
    async with at_portal(site.url, site.site, seconds=0) as technician:
        await technician.sees("Nothing tells this computer from others")
        await technician.enters()
        await technician.sees("ENTER tries again")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")
