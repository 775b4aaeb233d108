"""The files of an initramfs before they are written: a tree in memory, by their paths."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

FILE_MODE: Final = 0o644
PROGRAM_MODE: Final = 0o755
SECRET_MODE: Final = 0o600

_MERGED: Final = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})
"""Folders of the root that are links into ``usr`` on a merged system; packages name them still."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link: ``mode`` as `os.stat` tells it; a link's content is its target."""

    mode: int
    content: bytes | Path = b""

    @property
    def data(self) -> bytes:
        """What stands in it.

        Raises:
            OSError: it cannot be read.
        """
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


class Tree:
    """Files by their paths (``usr/bin/sh``); the folders above each come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __contains__(self, path: str) -> bool:
        return placed(path) in self._entries

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """All of it in the order of the names, so that each folder comes before what is in it."""
        return iter(sorted(self._entries.items(), key=lambda item: item[0].split("/")))

    def file(self, path: str, content: bytes | Path, mode: int = FILE_MODE) -> None:
        """Puts a file there; what was there under this path is gone."""
        self._put(path, Entry(stat.S_IFREG | mode, content))

    def link(self, path: str, target: str) -> None:
        """Puts a symbolic link there."""
        self._put(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def folder(self, path: str, mode: int = PROGRAM_MODE) -> None:
        """Puts a folder there."""
        self._put(path, Entry(stat.S_IFDIR | mode))

    def device(self, path: str) -> None:
        """Puts the console there, the one device that a kernel opens before anything is mounted."""
        self._put(path, Entry(stat.S_IFCHR | SECRET_MODE))

    def _put(self, path: str, entry: Entry) -> None:
        path = placed(path)
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) != ".":
                self._entries.setdefault(str(parent), Entry(stat.S_IFDIR | PROGRAM_MODE))
        self._entries[path] = entry


def placed(path: str) -> str:
    """The path within the image: below ``usr`` for what a merged system keeps there."""
    plain = path.strip("/")
    top, _, rest = plain.partition("/")
    return f"usr/{plain}" if rest and top in _MERGED else plain
