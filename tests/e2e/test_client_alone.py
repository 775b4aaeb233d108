"""The boot client as it stands in a boot image: its own distribution and packages, nothing else."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from bus.messages import Machine
from tests.e2e.e2e_site import Site
from tests.terminal import Terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the built distribution and what `imageinvoker[client]` asks for."""
    folder = tmp_path_factory.mktemp("bare")

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    run(sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", ".", "-w", str(folder))
    (wheel,) = folder.glob("imageinvoker-*.whl")
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    python = str(folder / "venv" / "bin" / "python")
    run(python, *pip, "install", "--require-hashes", "-r", "requirements/client.lock")
    run(python, *pip, "install", "--no-deps", "--no-index", str(wheel))
    return folder / "venv" / "bin"


def test_the_client_deploys_with_its_own_packages_alone(bare: Path, site: Site) -> None:
    machine = site.machine_file(Machine(uuid=str(uuid.uuid4()), serial="BARE-1"))
    done = subprocess.run(
        [bare / "imageinvoker", "client", "--machine", machine, "--item", "Exam Mode"],
        env=site.environment,
        cwd=site.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert site.pending("BARE-1") == ["1. Lay down exam image", "2. Close network"]


def test_the_portal_opens_with_the_clients_packages_alone(bare: Path, site: Site) -> None:
    machine = site.machine_file(Machine(uuid=str(uuid.uuid4()), serial="BARE-2"))
    command = [str(bare / "imageinvoker"), "client", "--machine", machine, "-t", "0"]
    with Terminal(command, site.environment) as pc:
        pc.wait_for("Press i")
        pc.type("i")
        pc.wait_for("What is to be deployed")


def test_a_command_whose_packages_are_missing_says_which_to_install(bare: Path) -> None:
    done = subprocess.run(
        [bare / "imageinvoker", "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_other_packages(bare: Path) -> None:
    done = subprocess.run(
        [bare / "imageinvoker", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "scheduler" in done.stdout
