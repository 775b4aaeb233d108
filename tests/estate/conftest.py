"""An operator at a desk."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.estate.desk import Type


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the estate is, or will be."""
    return tmp_path / "estate"


@pytest.fixture
def type_(tmp_path: Path, folder: Path) -> Type:
    """Types a command; it must end with this status and show no key."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("IMAGEINVOKER")
    } | {"IMAGEINVOKER_ESTATE": str(folder), "XDG_DATA_HOME": str(tmp_path / "home")}

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


@pytest.fixture
def begun(type_: Type) -> Type:
    """An estate has begun."""
    type_("pki", "init", "acme", "--hub", "hub.example")
    return type_
