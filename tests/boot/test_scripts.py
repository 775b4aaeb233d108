"""menu.sh in real shells and a real terminal, and menu.bat by what a command interpreter reads."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boot.errors import WrongInputError
from boot.winpe import write_scripts
from boot.winpe_scripts import Told, added, menu_bat, menu_sh, server_in
from tests.secured import Authority
from tests.terminal import Terminal

NOBODY = "nats://127.0.0.1:1"
PROGRAMS = Path(sys.executable).parent


def environment() -> dict[str, str]:
    told = {name: value for name, value in os.environ.items() if "IMAGEINVOKER" not in name}
    return told | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def menu(tmp_path: Path) -> Path:
    write_scripts(tmp_path, NOBODY, "lab", None, None)
    return tmp_path / "startup" / "menu.sh"


SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_menu_sh_opens_the_portal_as_it_was_told(menu: Path, shell: str) -> None:
    with Terminal([shell, str(menu), "-t", "0"], environment()) as pc:
        screen = pc.wait_for("The computer waits for your choice")
        assert "127.0.0.1:1" in screen
        assert "lab" in screen


def test_what_an_operator_adds_to_the_last_line_counts(menu: Path) -> None:
    menu.write_text(menu.read_text().rstrip("\n") + " -t 1\n")
    with Terminal(["sh", str(menu)], environment()) as pc:
        pc.wait_for("The computer goes on starting in 1 s")
        assert pc.status() == 4


def test_menu_sh_without_any_terminal_says_so_and_lets_the_boot_go_on(menu: Path) -> None:
    done = subprocess.run(
        ["sh", str(menu), "-t", "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        env=environment(),
        timeout=30,
        check=False,
    )
    assert done.returncode in {2, 4}  # 4 where the machine has a console


def test_a_second_run_keeps_what_was_added_and_replaces_what_was_told(tmp_path: Path) -> None:
    write_scripts(tmp_path, NOBODY, None, None, None)
    shell, batch = tmp_path / "startup/menu.sh", tmp_path / "startup/menu.bat"
    shell.write_text(shell.read_text().rstrip("\n") + " -t 0\n")
    batch.write_text(batch.read_text().rstrip("\n") + " /t 0\n")
    write_scripts(tmp_path, "tls://deploy.example", "oslo", None, None)
    assert shell.read_text().endswith('imageinvoker client "$@" -t 0\n')
    assert batch.read_bytes().endswith(b"-m cli client %* /t 0\r\n")
    for text in (shell.read_text(), batch.read_text()):
        assert NOBODY not in text
        assert "tls://deploy.example" in text


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp850"])
def test_what_was_added_stays_byte_by_byte_in_whatever_encoding(
    tmp_path: Path, encoding: str
) -> None:
    write_scripts(tmp_path, NOBODY, None, None, None)
    added_bytes = ' --item "Prüfung à la carte, erste"'.encode(encoding)
    for name in ("menu.sh", "menu.bat"):
        file = tmp_path / "startup" / name
        file.write_bytes(file.read_bytes().rstrip() + added_bytes + b"\r\n")
    for _ in range(2):
        write_scripts(tmp_path, "tls://deploy.example", None, None, None)
        for name, end in (("menu.sh", b"\n"), ("menu.bat", b"\r\n")):
            assert (tmp_path / "startup" / name).read_bytes().endswith(added_bytes + end)


def test_of_two_time_outs_the_one_that_stands_in_the_menu_counts(menu: Path) -> None:
    menu.write_text(menu.read_text().rstrip("\n") + " -t 1\n")
    with Terminal(["sh", str(menu), "/t", "0", "--timeout", "30"], environment()) as pc:
        assert pc.status() == 4


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_menu_sh(menu: Path, shell: str) -> None:
    subprocess.run([shell, "-n", str(menu)], check=True, timeout=10)


def test_the_files_that_are_named_are_put_beside(tmp_path: Path) -> None:
    ca = tmp_path / "estate.pem"
    ca.write_bytes(Authority().pem)
    out = tmp_path / "image"
    written = write_scripts(out, "tls://deploy.example", None, ca, None)
    assert out / "ImageInvoker" / "ca.pem" in written
    assert "IMAGEINVOKER_CA=/ImageInvoker/ca.pem" in (out / "startup/menu.sh").read_text()
    assert (out / "ImageInvoker" / "ca.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(WrongInputError, match="is not there"):
        write_scripts(out, "tls://deploy.example", None, tmp_path / "absent", None)


def test_values_with_signs_of_a_shell_reach_the_client_as_they_are(tmp_path: Path) -> None:
    odd = "nats://h:1,nats://$(id);'\"`"
    file = tmp_path / "menu.sh"
    file.write_bytes(menu_sh(Told(server=odd)))
    stub = tmp_path / "bin" / "imageinvoker"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nprintf "%s|" "$IMAGEINVOKER_SERVER" "$@"\n')
    stub.chmod(0o755)
    with Terminal(["sh", str(file), "-t", "7 s"], {"PATH": f"{stub.parent}:/usr/bin:/bin"}) as pc:
        pc.wait_for(f"{odd}|client|-t|7 s|")


def batch(told: Told, before: str = "") -> list[str]:
    content = menu_bat(told, before)
    assert content.count(b"\n") == content.count(b"\r\n")
    assert content.isascii()
    return content.decode().split("\r\n")[:-1]


def test_menu_bat_says_nothing_sets_what_it_was_told_and_calls_the_client_last() -> None:
    told = Told(server="tls://a:1,tls://b:2", site="london", ca=True, credential=True)
    lines = batch(told, "")
    assert lines[0] == "@echo off"
    commands = [line for line in lines[1:] if not line.startswith("rem ")]
    assert commands == [
        "setlocal",
        'set "IMAGEINVOKER_SERVER=tls://a:1,tls://b:2"',
        'set "IMAGEINVOKER_SITE=london"',
        r'set "IMAGEINVOKER_CA=%SystemDrive%\ImageInvoker\ca.pem"',
        r'set "IMAGEINVOKER_BOOT_CREDENTIAL=%SystemDrive%\ImageInvoker\boot.credential"',
        r'"%SystemDrive%\ImageInvoker\python.exe" -m cli client %*',
    ]
    # Every quote is closed, and no variable but these is expanded.
    assert all(line.count('"') % 2 == 0 for line in commands)
    assert set(re.findall(r"%([^%\s]*)%", "\n".join(commands))) == {"SystemDrive"}


def test_signs_of_a_command_interpreter_are_quoted_or_refused() -> None:
    told = Told(server="tls://a%20b&c|d^e:1")
    assert 'set "IMAGEINVOKER_SERVER=tls://a%%20b&c|d^e:1"' in batch(told)
    assert server_in("\r\n".join(batch(told))) == told.server
    for bad in ('tls://a"b', "tls://a\nb", "tls://ä"):
        with pytest.raises(WrongInputError, match="cannot stand in a batch file"):
            menu_bat(Told(server=bad))


def test_what_was_added_is_found_in_the_last_call_only() -> None:
    assert added("rem -m cli client %* /t 5\r\nx -m cli client %* /t 0  \r\n") == " /t 0"
    assert added("@echo off\r\n") == ""
