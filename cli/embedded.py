"""Where the embedded site of this machine lives, and how other commands find it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

READY: Final = "ready.json"
_POINTER: Final = "running"


class Ready(Struct, frozen=True, kw_only=True):
    """What ``ready.json`` says of a site that runs: where each part of it answers."""

    nats_url: str
    site: str
    database: str
    history: str
    console_url: str | None
    metrics: dict[str, str]
    pid: int


def default_folder() -> Path:
    """The folder of the embedded site when none is named."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData/Local")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(base) / "imageinvoker"


def running_site() -> Ready | None:
    """The embedded site that runs on this machine, if there is one."""
    try:
        folder = Path((default_folder() / _POINTER).read_text(encoding="utf-8"))
        ready = msgspec.json.decode((folder / READY).read_bytes(), type=Ready)
        os.kill(ready.pid, 0)
    except (OSError, ValueError):
        return None
    return ready


@contextlib.contextmanager
def announced(folder: Path, ready: Ready) -> Iterator[None]:
    """Lets ``ready.json`` and the pointer to it stand for as long as the site answers."""
    _write(folder / READY, msgspec.json.format(msgspec.json.encode(ready), indent=2))
    pointer = default_folder() / _POINTER
    pointer.parent.mkdir(parents=True, exist_ok=True)
    _write(pointer, str(folder.absolute()).encode())
    try:
        yield
    finally:
        (folder / READY).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if pointer.read_text(encoding="utf-8") == str(folder.absolute()):
                pointer.unlink()


def _write(path: Path, content: bytes) -> None:
    """Writes a file so that who reads it sees all of it or none."""
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)
