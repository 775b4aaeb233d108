"""What an operator types, and what it leaves in the estate's folder."""

import subprocess
from collections.abc import Callable
from pathlib import Path

Type = Callable[..., "subprocess.CompletedProcess[str]"]
CAMPUS = ("site", "add", "campus", "--address", "bus.campus.example,192.0.2.10", "--subnet",
    "10.1.0.0/16")  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, by its name, and every folder."""
    return {
        str(each.relative_to(folder)): each.read_bytes() if each.is_file() else b"a folder"
        for each in folder.rglob("*")
    }
