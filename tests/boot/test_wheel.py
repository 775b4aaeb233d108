"""The distribution, as `pip install imageinvoker` brings it: boot images are made from it, too."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["packages"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder / "installed")
    return folder / "installed"


def test_every_file_of_every_room_is_in_the_wheel(installed: Path) -> None:
    assert "boot" in ROOMS
    for room in ROOMS:
        own, there = (
            {
                file.relative_to(root)
                for file in (root / room).rglob("*")
                if file.is_file() and "__pycache__" not in file.parts
            }
            for root in (ROOT, installed)
        )
        assert own == there
    for name in ("linux/init", "linux/lease", "scripts/menu.sh", "scripts/menu.bat"):
        assert (installed / "boot" / name).is_file()


def test_scripts_are_written_by_what_is_installed(installed: Path, tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); from cli.main import main; "
    words = ["boot", "scripts", "--server", "nats://deploy.example", "--out", "image"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{program}import cli; print(cli.__file__); main()", *words],
        cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[0].startswith(str(installed))
    written = (tmp_path / "image/startup/menu.sh").read_text()
    assert "nats://deploy.example" in written
