"""`imageinvoker boot winpe`, `boot scripts` and `doctor --image`, as an operator calls them."""

import json
from pathlib import Path

import pytest
from cyclopts import App
from winpe_parts import capture, embeddable, extracted, listing, stub_wheel, windows_pe

from bus.__about__ import __version__
from cli.boot_winpe import scripts, winpe
from cli.doctor import doctor
from cli.fail import CommandError, WrongUseError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an image, a Python and wheels in it."""
    capture(windows_pe(tmp_path / "pe"), tmp_path / "boot.wim")
    embeddable(tmp_path / "python")
    (tmp_path / "wheels").mkdir()
    for name in ("textual", "msgspec", "cyclopts", "nats-py"):
        stub_wheel(tmp_path / "wheels", name, "99.0" if name == "msgspec" else "8.2.0")
    stub_wheel(tmp_path / "wheels", "cyclopts", "5.4.0")
    stub_wheel(tmp_path / "wheels", "nats-py", "2.16.0")
    return tmp_path


def call(*words: str | Path) -> int:
    app = App(name="boot", result_action="return_value")
    app.command(winpe)
    app.command(scripts)
    status = app([str(word) for word in words], exit_on_error=False, print_error=False)
    assert isinstance(status, int)
    return status


def usual(folder: Path) -> tuple[str | Path, ...]:
    return (
        *("winpe", "--python", folder / "python", "--wheels", folder / "wheels"),
        *("--server", "tls://deploy.example:4222"),
    )


def test_the_image_is_made_beside_the_one_given_and_the_doctor_finds_it_well(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*usual(folder), "--wim", folder / "boot.wim", "--site", "london") == 0
    out = folder / "boot-imageinvoker.wim"
    said = capsys.readouterr().out
    assert f"{out}, image 1: the client, Python 3.11 and 4 packages" in said
    assert r"started by Windows\System32\startnet.cmd" in said
    assert "/ImageInvoker" not in listing(folder / "boot.wim")
    assert doctor(image=out) == 0
    said = capsys.readouterr().out
    assert f"version {__version__}, with Python 3.11" in said
    assert "tls://deploy.example:4222" in said
    assert doctor(image=folder / "boot.wim", json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["area"], found["finding"]["check"]) == ("image", "client")
    assert doctor(image=folder / "python" / "python.exe") == 1
    assert "is no Windows image" in capsys.readouterr().out


def test_in_place_and_without_a_call(folder: Path) -> None:
    assert call(*usual(folder), "--wim", folder / "boot.wim", "--in-place", "--no-start") == 0
    assert extracted(folder / "boot.wim", "/Windows/System32/startnet.cmd") == "wpeinit\r\n"
    assert "/ImageInvoker" in listing(folder / "boot.wim")


def test_without_an_image_the_files_are_laid_out(folder: Path) -> None:
    assert call(*usual(folder), "--out", folder / "shared") == 0
    assert (folder / "shared/startup/menu.bat").is_file()
    assert (folder / "shared/ImageInvoker/python.exe").is_file()


def test_scripts_are_written_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("scripts", "--out", folder / "root", "--server", "nats://deploy:4222") == 0
    names = capsys.readouterr().out.split()
    assert names == [str(folder / f"root/startup/menu.{kind}") for kind in ("sh", "bat")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--wim", "boot.wim", "--out", "x", "--in-place"), "give one of them"),
        ((), "Which image"),
        (("--wim", "absent.wim"), "cannot be read"),
        (("--wim", "boot.wim", "--index", "7"), "no image 7"),
        (("--wim", "boot.wim", "--site", "Not A Site"), "is no site"),
        (("--wim", "boot.wim", "--ca", "absent.pem"), "absent.pem is not there"),
        (("--wim", "boot.wim", "--boot-credential", "absent"), "no boot credential in absent"),
    ],
)
def test_what_makes_no_sense_is_wrong_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(WrongUseError, match=said):
        call(*usual(folder), *words)
    assert not list(folder.glob("*imageinvoker.wim"))


def test_no_secret_goes_in_by_an_address(folder: Path) -> None:
    server = "tls://ann:hush@deploy.example"
    with pytest.raises(WrongUseError, match="does not belong in an address") as caught:
        call("scripts", "--out", folder / "root", "--server", server)
    assert "hush" not in str(caught.value)


def test_what_cannot_be_done_is_said_with_its_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(CommandError, match="apt install wimtools"):
        call(*usual(folder), "--wim", folder / "boot.wim")
