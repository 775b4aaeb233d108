"""An operator at a desk."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.estate.desk import CAMPUS, Type

INIT = ("pki", "init", "acme", "--hub", "hub.example")
LAB = ("site", "add", "lab", "--address", "lab.example", "--subnet", "10.2.0.0/16")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the estate is, or will be."""
    return tmp_path / "estate"


@pytest.fixture
def type_(folder: Path) -> Type:
    """Types a command; it must end with this status and show no key."""
    return _desk_of(folder)


@pytest.fixture
def begun(type_: Type, folder: Path, estate_after: Callable[..., Path]) -> Type:
    """An estate has begun."""
    shutil.copytree(estate_after(INIT), folder)
    return type_


@pytest.fixture
def campus(type_: Type, folder: Path, estate_after: Callable[..., Path]) -> Type:
    """There is one site."""
    shutil.copytree(estate_after(INIT, CAMPUS), folder)
    return type_


@pytest.fixture
def known(type_: Type, folder: Path, estate_after: Callable[..., Path]) -> Type:
    """There are two sites."""
    shutil.copytree(estate_after(INIT, CAMPUS, LAB), folder)
    return type_


@pytest.fixture(scope="session")
def estate_after(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """What these commands make, typed once for all tests; each takes a copy."""

    @functools.cache
    def made(*commands: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp("made") / "estate"
        for command in commands:
            _desk_of(folder)(*command)
        return folder

    return made


def _desk_of(folder: Path) -> Type:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("IMAGEINVOKER")
    } | {"IMAGEINVOKER_ESTATE": str(folder), "XDG_DATA_HOME": str(folder.parent / "home")}

    def run(*arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert not re.search(r"\bS[OAU][A-Z2-7]{56}\b|PRIVATE KEY|\beyJ0eXAi", said)
        return done

    return run
