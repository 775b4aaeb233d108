"""Windows images (``.wim``) by way of wimlib: without root, and without mounting any."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boot.errors import ImageError, MissingToolError, OutputError, WrongInputError

_TOOL: Final = "wimlib-imagex"
_MAGIC: Final = b"MSWIM\0\0\0"
_HEADER: Final = 208
"""Bytes of a header; the offsets within it are from wimlib's ``header.h``."""
_COUNT: Final = slice(44, 48)
_BOOT: Final = slice(120, 124)
_OUT: Final = "Give another file, on a disk with room: --out FILE."
_CURE: Final = "Give the boot.wim of a Windows PE."
_LIMIT: Final = 1800
"""Seconds for the largest image on the slowest disk."""


class NotAnImageError(WrongInputError):
    """The file holds no Windows image."""


class NoSuchIndexError(WrongInputError):
    """The file does not hold that image, or holds several and none is the one that boots."""


@dataclass(frozen=True, slots=True)
class Wim:
    """A file with Windows images. Names in it are found in upper and lower case, as on Windows."""

    file: Path
    count: int
    boots: int
    """The index of the image that a PC boots, or 0."""

    def index(self, wanted: int | None) -> int:
        """The image that is meant: the wanted one, else the one that boots, else the only one.

        Raises:
            NoSuchIndexError: there is none.
        """
        index = wanted or self.boots or (1 if self.count == 1 else 0)
        if 1 <= index <= self.count:
            return index
        held = "one image" if self.count == 1 else f"{self.count} images"
        if wanted is None:
            raise NoSuchIndexError(
                f"{self.file} holds {held}, and none is said to boot.", "Give --index N."
            )
        raise NoSuchIndexError(
            f"{self.file} holds {held}, so there is no image {wanted}.",
            f"See them all: {_TOOL} info {self.file}",
        )

    def files(self, index: int) -> frozenset[str]:
        """Every path in an image, in lower case, with slashes.

        Raises:
            ImageError: it cannot be read.
        """
        listed = _run(["dir", str(self.file), str(index)])
        return frozenset(listed.decode("utf-8", "replace").lower().splitlines())

    def read(self, index: int, path: str) -> bytes | None:
        """The file at ``path`` (with slashes) in an image, or None where there is none.

        Raises:
            ImageError: it cannot be read.
        """
        if path.lower() not in self.files(index):
            return None
        return _run(["extract", str(self.file), str(index), path, "--to-stdout"])

    def update(self, index: int, commands: Sequence[str]) -> None:
        """Changes an image in its file; ``commands`` are wimlib's own (``wimupdate(1)``).

        Raises:
            ImageError: it could not be changed.
        """
        text = "".join(f"{command}\n" for command in commands)
        _run(["update", str(self.file), str(index)], text.encode())


def read_wim(file: Path) -> Wim:
    """What the header of a file says.

    Raises:
        NotAnImageError: it holds no Windows image.
    """
    try:
        with file.open("rb") as opened:
            header = opened.read(_HEADER)
    except OSError as error:
        raise NotAnImageError(f"{file} cannot be read: {error.strerror}.", _CURE) from error
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise NotAnImageError(f"{file} is no Windows image.", _CURE)
    return Wim(
        file=file,
        count=int.from_bytes(header[_COUNT], "little"),
        boots=int.from_bytes(header[_BOOT], "little"),
    )


def quoted(path: str) -> str:
    """A path as a word of a command of wimlib.

    Raises:
        ImageError: it cannot be one.
    """
    for mark in ("'", '"'):
        if mark not in path and "\n" not in path:
            return f"{mark}{path}{mark}"
    raise WrongInputError(
        f"The path {path!r} holds quotes of both kinds.", "Choose another folder."
    )


@contextmanager
def copy_for(wim: Wim, out: Path) -> Iterator[Wim]:
    """A copy to be changed, which becomes ``out`` when all went well; else ``out`` stays as it is.

    Raises:
        ImageError: it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".new")
    except OSError as error:
        raise OutputError(f"{out.parent} cannot be written to: {error.strerror}.", _OUT) from error
    os.close(descriptor)
    copy = Path(name)
    try:
        try:
            shutil.copyfile(wim.file, copy)
            copy.chmod(wim.file.stat().st_mode & 0o777)
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error.strerror}.", _OUT) from error
        yield Wim(copy, wim.count, wim.boots)
        with copy.open("rb") as written:
            os.fsync(written.fileno())
        copy.replace(out)
    finally:
        copy.unlink(missing_ok=True)


def _run(arguments: Sequence[str], commands: bytes = b"") -> bytes:
    environment = os.environ | {"WIMLIB_IMAGEX_IGNORE_CASE": "1", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [_TOOL, *arguments],
            input=commands,
            capture_output=True,
            check=True,
            timeout=_LIMIT,
            env=environment,
        )
    except FileNotFoundError as error:
        raise MissingToolError(
            f"There is no {_TOOL} here.",
            "On Debian it is in the package wimtools: apt install wimtools",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"{_TOOL} {arguments[0]} did not end within {_LIMIT} s.", "Is the disk well?"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ImageError(
            f"{_TOOL} {arguments[0]} failed on {arguments[1]}: {_said(error.stderr)}",
            "Is the image whole, and is there room on the disk?",
        ) from error
    return done.stdout


def _said(complaint: bytes) -> str:
    """The tool's own words, on one line."""
    return " ".join(complaint.decode("utf-8", "replace").split()) or "it did not say why."
