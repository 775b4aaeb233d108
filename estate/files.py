"""Files of an estate: private, and written whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bus import credentials
from bus.credentials import Credentials
from estate.errors import BrokenError

PRIVATE_FOLDER: Final = 0o700


def write(file: Path, content: bytes | Credentials) -> None:
    """Writes a file for nobody else to read, at once and whole; its folder is made if need be.

    Raises:
        BrokenError: it cannot be written.
    """
    try:
        _make(file.parent)
        if isinstance(content, Credentials):
            credentials.write(file, content)
            return
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _settle(file.parent)
    except OSError as error:
        raise _broken(file, "written", error) from None


def read(file: Path) -> bytes:
    """The content of a file.

    Raises:
        BrokenError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise _broken(file, "read", error) from None


def put_folder(folder: Path, files: Mapping[str, bytes | Credentials]) -> None:
    """Puts a folder of files there, whole or not at all; what was left half made goes before.

    Raises:
        BrokenError: it cannot be written.
    """
    try:
        with begun(folder) as draft:
            for name, content in files.items():
                write(draft / name, content)
            if folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        raise _broken(folder, "written", error) from None


def remove_folder(folder: Path) -> bool:
    """Removes a folder with all that is in it; whether it was there.

    Raises:
        BrokenError: it cannot be removed.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _broken(folder, "removed", error) from None
    return True


@contextlib.contextmanager
def begun(folder: Path) -> Iterator[Path]:
    """A draft of a folder, in whose place it stands in the end, whole or not at all.

    Raises:
        BrokenError: it cannot be written, or something has come to stand there.
    """
    try:
        _make(folder.parent)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            yield draft
            draft.rename(folder)
            _settle(folder.parent)
        finally:
            if draft.exists():
                shutil.rmtree(draft)
    except OSError as error:
        raise _broken(folder, "written", error) from None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other commands out of a folder meanwhile.

    Raises:
        BrokenError: it cannot be locked.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _broken(folder, "opened", error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _settle(folder: Path) -> None:
    """Returns when the names in a folder are on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make(folder: Path) -> None:
    """Makes a folder, and those around it, for nobody else."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def _broken(file: Path, done: str, error: OSError) -> BrokenError:
    return BrokenError(
        f"{file} cannot be {done}: {error.strerror}. Is the disk full, or is this another user's?"
    )
