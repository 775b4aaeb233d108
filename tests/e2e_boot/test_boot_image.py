"""Making the image itself: in a clean folder, twice, and with what cannot be."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.e2e_site import COMMAND
from tests.e2e_boot.images import Image, make

SERVER = ("--server", "nats://10.0.0.1:4222")


def bytes_of(folder: Path) -> dict[str, str]:
    """The files of a folder, each by its hash."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }


def test_the_same_packages_and_wishes_make_the_same_bytes(image: Image, tmp_path: Path) -> None:
    again = make(*image.wishes, "--offline", "--out", str(tmp_path / "again"), "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["server"].endswith(f":{image.port}")
    assert {"python3.11-minimal", "busybox-static"} <= {each["name"] for each in told["debian"]}
    assert {"textual", "msgspec", "nats-py"} <= {each["name"] for each in told["python"]}
    found = bytes_of(tmp_path / "again")
    assert found == bytes_of(image.folder)
    assert set(found) == {
        "vmlinuz", "initramfs.img", "manifest.json", "imageinvoker.iso", "boot.ipxe", "menu.ipxe",
        "undionly.kpxe", "ipxe.efi",
    }  # fmt: skip
    assert image.initramfs.stat().st_size < 60_000_000
    assert {each.name for each in tmp_path.iterdir()} == {"again"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", "gopher://x"), "gopher"),
        ((*SERVER, "--then", "dance"), "'dance'"),
        ((*SERVER, "--then", "script:/no/such/file"), "/no/such/file"),
        ((*SERVER, "--ca", "/no/such/file"), "/no/such/file"),
        (("--server", "tls://x:4222", "--boot-credential", "/no/such/file"), "/no/such/file"),
        (("--server", "tls://x:4222", "--boot-credential", "/etc/hostname"), "/etc/hostname"),
        ((*SERVER, "--out", "/etc"), "/etc is there already"),
        ((*SERVER, "--boot-credential", "/etc/hostname"), "in the clear"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = (
        make("--out", str(tmp_path / "out"), *arguments)
        if "--out" not in arguments
        else make(*arguments)
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_packages_an_image_cannot_be_made_offline(tmp_path: Path) -> None:
    empty = tmp_path / "packages"
    empty.mkdir()
    done = make(*SERVER, "--packages", str(empty), "--offline", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert f"There is no package linux-image-amd64 in {empty}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_computer_without_apt_is_told_so(tmp_path: Path) -> None:
    python = COMMAND[0]
    program = (
        "import shutil, sys; shutil.which = lambda *_, **__: None;"
        "from cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [python, "-c", program, "boot", "linux", *SERVER, "--packages", str(tmp_path / "p"),
         "--out", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "There is no apt-cache on this computer." in done.stderr
