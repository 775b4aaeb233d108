"""Machines whose firmware says nothing of them, and adapters that say too much."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from client_portal import at_portal
from client_site import Site, items, menu
from offline import client

from bus.problems import Problem
from client.main import run
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


async def test_a_machine_of_which_only_a_shared_adapter_is_known_is_told_so(site: Site) -> None:
    """As services answer when all that is left of an identity is listed in `shared_macs`."""
    site.problems["welcome"] = [Problem("bad_machine")]
    async with at_portal(site.url, site.site, seconds=0) as technician:
        await technician.sees("Nothing tells this computer from others")
        await technician.enters()
        await technician.sees("ENTER tries again")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")
