"""The folder that an image is delivered in: whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from boot.errors import OutputError, WrongInputError

MANIFEST: Final = "manifest.json"
"""Says what an image is made of; a folder with it is one of ours."""


def check(folder: Path) -> None:
    """Whether an image may be put there.

    Raises:
        WrongInputError: something else stands there.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise WrongInputError(
            f"{folder} is there already, and is no boot image.", "Name another folder: --out DIR."
        )


def check_room(folder: Path, needed: int) -> None:
    """Whether there is room for ``needed`` bytes where this folder is or will be.

    Raises:
        OutputError: there is not.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OutputError(
            f"There are {free / 1e9:.1f} GB free at {there}, and {needed / 1e9:.1f} GB are needed.",
            "Make room, or name another folder.",
        )


@contextlib.contextmanager
def begun(folder: Path) -> Iterator[Path]:
    """A draft, which stands in the folder's place in the end if all went well.

    Raises:
        OutputError: it cannot be written.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield draft
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o777 & ~mask)
        _put(draft, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> OutputError:
    """The same error in words."""
    return OutputError(
        f"{error.filename or folder}: {error.strerror or error}.",
        "Is the disk full, or is the folder another user's?",
    )


def _put(draft: Path, folder: Path) -> None:
    old = draft.with_name(f"{draft.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
