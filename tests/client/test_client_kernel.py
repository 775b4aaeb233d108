"""What stands on a real kernel command line, and what the real client makes of it."""

import os
import subprocess
from pathlib import Path

import pytest
from offline import WORKING, alone, client, with_card

from tests.terminal import Terminal

HERE = "imageinvoker.server=nats://127.0.0.1:1"


def booted_with(folder: Path, line: str, *preparations: str) -> list[str]:
    """The client on a machine whose kernel was started with this line."""
    file = folder / "cmdline"
    file.write_text(f"BOOT_IMAGE=vmlinuz quiet {line}\n")
    return alone(client(), f"mount --bind {file} /proc/cmdline", *preparations)


def runs(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=60, check=False
    )


def test_a_menu_entry_may_wait_for_ever_or_not(tmp_path: Path, machine_file: Path) -> None:
    usual = f"{HERE} imageinvoker.site=lab imageinvoker.machine={machine_file}"
    with Terminal(booted_with(tmp_path, f"{usual} imageinvoker.timeout=0"), os.environ) as pc:
        pc.wait_for("The computer waits for your choice")
    with Terminal(booted_with(tmp_path, f"{usual} imageinvoker.timeout=2"), os.environ) as pc:
        pc.wait_for("goes on starting in 2 s")
        assert pc.status() == 4


@pytest.mark.parametrize(("columns", "rows"), [(80, 25), (40, 12)])
def test_a_name_that_means_nothing_is_shown_and_stops_nothing(
    tmp_path: Path, machine_file: Path, columns: int, rows: int
) -> None:
    line = f"{HERE} imageinvoker.machine={machine_file} imageinvoker.tiemout=0"
    command = booted_with(tmp_path, line)
    with Terminal(command, os.environ, columns=columns, rows=rows) as pc:
        screen = " ".join(pc.wait_for("imageinvoker.tiemout").split())
        assert "line imageinvoker.tiemout means nothing" in screen
        assert "Press i for the deployment menu" in screen
        assert pc.status() == 4


def test_without_a_screen_it_is_told_as_well(tmp_path: Path, machine_file: Path) -> None:
    line = f'{HERE} imageinvoker.machine={machine_file} imageinvoker.item="Exam Mode" '
    done = runs(booted_with(tmp_path, f"{line} imageinvoker.timeout=1 imageinvoker.pasword=hush"))
    assert done.returncode == 4
    assert "imageinvoker.pasword means nothing" in done.stderr
    assert "hush" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{HERE} imageinvoker.timeout=soon", "'soon' is no time-out"),
        ("imageinvoker.server=http://deploy", "is no address of a server"),
        (f"{HERE} imageinvoker.site=Main_Site", "'Main_Site' is no site"),
        (f"{HERE} imageinvoker.password=hush", "everybody can read it there"),
        ("imageinvoker.server=tls://ann:hush@deploy", "everybody can read there"),
        (f"{HERE} imageinvoker.machine=/absent.json", "/absent.json"),
        ("imageinvoker.site=lab", "Which server?"),
    ],
)
@pytest.mark.parametrize("item", ["", " imageinvoker.item=job:1"])
def test_what_makes_no_sense_is_said_and_the_boot_goes_on_at_once(
    tmp_path: Path, line: str, said: str, item: str
) -> None:
    command = booted_with(tmp_path, line + item, *with_card(WORKING, "eth0"))
    with Terminal(command, os.environ | {"LANG": "C"}) as pc:
        assert pc.status() == 2
        while pc.read():
            pass
        assert said in " ".join(pc.text.split())
        assert "hush" not in pc.text
        assert "Traceback" not in pc.text
