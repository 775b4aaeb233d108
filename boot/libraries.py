"""Shared libraries: which of them the programs in an image need, found where packages put them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from boot import elf
from boot.errors import PackageError

FOLDERS: Final = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64")
LOADER: Final = "ld-linux-x86-64.so.2"
_LATE: Final = ("libgcc_s.so.1",)
"""What glibc opens by name when a thread is cancelled, so that no file says that it needs it."""


def needed(programs: Iterable[Path], root: Path) -> dict[str, Path]:
    """The libraries that the programs need, by their names; ``root`` holds unpacked packages.

    Raises:
        PackageError: one is in none of the packages.
        OSError: a file cannot be read.
    """
    there = {
        path.name: path
        for folder in FOLDERS
        for path in sorted((root / folder).glob("*.so*"))
        if path.is_file()
    }
    found: dict[str, Path] = {}
    waiting = [name for program in programs for name in _needs(program)] + [LOADER, *_LATE]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in there:
            raise PackageError(
                f"The library {name} is in none of the packages.",
                "Are all packages of one release of Debian, that of this computer's Python?",
            )
        found[name] = there[name]
        waiting += _needs(there[name])
    return dict(sorted(found.items()))


def _needs(file: Path) -> list[str]:
    data = file.read_bytes()
    return elf.needed(data) if elf.is_elf(data) else []
