"""`imageinvoker boot`, as an operator calls it: help, and what cannot be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "cli", "boot")
SERVER = ("--server", "tls://deploy.example:4222")


def environment(**more: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if "IMAGEINVOKER" not in name}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "80", **more}


def called(folder: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file that is nothing, a folder with something in it, and an empty one."""
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/own.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_the_list_says_in_a_line_what_each_command_does(tmp_path: Path) -> None:
    shown = called(tmp_path, "--help")
    assert shown.returncode == 0
    for name, does in (("linux", "Make a Linux"), ("winpe", "Put the"), ("scripts", "Write")):
        assert any(name in line and does in line for line in shown.stdout.splitlines()), name


@pytest.mark.parametrize("command", ["linux", "winpe", "scripts"])
def test_help_has_examples_that_can_be_copied_and_says_how_it_ends(
    tmp_path: Path, command: str
) -> None:
    shown = called(tmp_path, command, "--help")
    assert shown.returncode == 0
    assert f"    imageinvoker boot {command}" in shown.stdout
    assert "Exit status: 0" in shown.stdout
    examples = shown.stdout.partition("    imageinvoker")[2].partition("\n\n")[0].splitlines()
    assert all(line.endswith("\\") for line in examples[:-1])
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "full"), "full is there already, and is no boot image. Name another folder"),
        (("--out", "junk"), "junk is there already, and is no boot image. Name another folder"),
        (("--ca", "absent.pem"), "absent.pem cannot be read. Name the estate's ca.pem"),
        (("--ca", "junk"), "junk holds no certificate. Name the estate's ca.pem"),
        (("--boot-credential", "junk"), "no boot credential in junk. imageinvoker pki boot issue"),
        (("--site", "Not A Site"), "--site: 'Not A Site' is no site; a site is"),
        (("--then", "agent:empty"), "no file empty/start. The agent's folder"),
        (("--password-file", "absent"), "no password in absent. It stands in the first line"),
        (("--append", "imageinvoker.timeout=soon"), "'soon' is no time-out; give seconds"),
    ],
)
def test_what_makes_no_sense_for_a_linux_image_is_wrong_use(
    folder: Path, words: tuple[str, ...], said: str
) -> None:
    before = sorted(folder.rglob("*"))
    done = called(folder, "linux", *SERVER, *words)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", [("linux",), ("winpe", "--python", "empty"), ("scripts",)])
def test_no_secret_goes_into_an_image_by_an_address(folder: Path, command: tuple[str, ...]) -> None:
    done = called(folder, *command, "--out", "made", "--server", "tls://ann:hush@deploy.example")
    assert done.returncode == 2
    assert "does not belong in an address" in done.stderr
    assert "hush" not in done.stderr
    assert not (folder / "made").exists()


def test_server_authority_and_credential_may_stand_in_the_environment(folder: Path) -> None:
    told = {"IMAGEINVOKER_SERVER": "tls://deploy.example:4222", "IMAGEINVOKER_CA": "junk"}
    for command in (("linux",), ("scripts", "--out", "made")):
        done = called(folder, *command, **told)
        assert done.returncode == 2
        assert "junk holds no certificate" in done.stderr


def test_what_cannot_be_done_is_said_in_a_sentence(folder: Path) -> None:
    done = called(folder, "linux", *SERVER, "--offline", "--packages", "empty", "--out", "made")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "There is no package linux-image-amd64 in empty. "
        "Make the image once without --offline, so that its packages are fetched."
    ]
    assert not (folder / "made").exists()


def test_scripts_that_cannot_be_written_are_told_with_their_cure(folder: Path) -> None:
    done = called(folder, "scripts", *SERVER, "--out", "junk")
    assert done.returncode == 1
    assert done.stderr == (
        "junk cannot be written: Not a directory. Give another folder: --out DIR.\n"
    )


def test_one_that_is_told_to_end_leaves_no_draft(folder: Path) -> None:
    """Told while it asks apt, which here never answers."""
    asked = folder / "empty/asked"
    (folder / "empty/apt-cache").write_text(f"#!/bin/sh\n: > {asked}\nexec sleep 60\n")
    (folder / "empty/apt-cache").chmod(0o755)
    making = subprocess.Popen(
        [*COMMAND, "linux", *SERVER, "--packages", "packages", "--out", "made"],
        cwd=folder,
        env=environment(PATH=f"{folder / 'empty'}:{os.environ['PATH']}"),
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + 60
        while not asked.exists():
            assert making.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        assert any(each.name.startswith(".made-") for each in folder.iterdir())
        making.send_signal(signal.SIGTERM)
        assert making.wait(30) == 128 + signal.SIGTERM
    finally:
        making.kill()
        making.wait()
    assert {each.name for each in folder.iterdir()} == {"junk", "full", "empty"}
