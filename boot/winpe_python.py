"""Python's embeddable package for Windows, as python.org hands it out, unpacked."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boot.errors import WrongInputError

AMD64: Final = 0x8664
"""IMAGE_FILE_MACHINE_AMD64 (Microsoft, "PE Format")."""
OLDEST: Final = (3, 11)
_CURE: Final = 'Unpack Python\'s "Windows embeddable package (64-bit)" there, from python.org.'
_PACKAGES: Final = r"Lib\site-packages"
_PATHS: Final = re.compile(r"python(3)(\d+)\._pth\Z", re.IGNORECASE)


class PythonError(WrongInputError):
    """The folder holds no Python that can go into a Windows PE."""


@dataclass(frozen=True, slots=True)
class EmbeddablePython:
    """An unpacked embeddable package: its folder, its version, and the file with its paths."""

    folder: Path
    version: tuple[int, int]
    paths: Path

    def paths_with_packages(self) -> str:
        """What that file must say, so that packages are found beside the standard library."""
        lines = self.paths.read_text("utf-8", "replace").splitlines()
        if not any(line.strip().lower() == _PACKAGES.lower() for line in lines):
            lines.append(_PACKAGES)
        return "".join(f"{line}\r\n" for line in lines)


def examine_python(folder: Path) -> EmbeddablePython:
    """The Python in a folder.

    Raises:
        PythonError: it is not there, not for 64-bit Windows, not embeddable, or too old.
    """
    program = folder / "python.exe"
    try:
        machine = pe_machine(program.read_bytes()[:4096])
    except OSError as error:
        raise PythonError(f"There is no python.exe in {folder}.", _CURE) from error
    if machine != AMD64:
        raise PythonError(f"{program} is not for 64-bit Windows (amd64).", _CURE)
    found = sorted(
        (match, file) for file in folder.iterdir() if (match := _paths_version(file.name))
    )
    if not found:
        raise PythonError(
            f"There is no python311._pth in {folder}, so it is not Python's embeddable package.",
            _CURE,
        )
    version, paths = found[-1]
    if version < OLDEST:
        raise PythonError(
            f"{folder} holds Python {version[0]}.{version[1]}; the client needs "
            f"{OLDEST[0]}.{OLDEST[1]} or newer.",
            _CURE,
        )
    return EmbeddablePython(folder, version, paths)


def pe_machine(head: bytes) -> int | None:
    """The kind of processor that a Windows program is for; None for what is no program."""
    at = int.from_bytes(head[60:64], "little")
    if not head.startswith(b"MZ") or head[at : at + 4] != b"PE\0\0":
        return None
    return int.from_bytes(head[at + 4 : at + 6], "little")


def _paths_version(name: str) -> tuple[int, int] | None:
    match = _PATHS.match(name)
    return (int(match[1]), int(match[2])) if match else None
