"""Archives as the kernel unpacks them: cpio, "newc" (Linux, driver-api/early-userspace).

The same entries make the same bytes: owners are root, times are one time, numbers count up.
"""

import stat
from collections.abc import Iterable, Iterator
from typing import Final

from boot.tree import Entry

_MAGIC: Final = b"070701"
_END: Final = "TRAILER!!!"
_BLOCK: Final = 512
_CONSOLE: Final = (5, 1)
"""Major and minor number of /dev/console."""


def archive(entries: Iterable[tuple[str, Entry]], mtime: int) -> Iterator[bytes]:
    """The archive in parts; ``mtime`` in seconds since 1970 is the time of all that is in it.

    Raises:
        OSError: a file cannot be read.
    """
    written = 0
    number = 0
    for number, (path, entry) in enumerate(entries, 1):
        data = entry.data
        part = _header(path, entry.mode, data, number, mtime) + data + _padding(len(data))
        written += len(part)
        yield part
    end = _header(_END, 0, b"", number + 1, 0)
    yield end + bytes(-(written + len(end)) % _BLOCK)


def _header(path: str, mode: int, data: bytes, number: int, mtime: int) -> bytes:
    name = path.encode() + b"\0"
    device = _CONSOLE if stat.S_ISCHR(mode) else (0, 0)
    fields = (
        number, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, mtime, len(data),
        0, 0, *device, len(name), 0,
    )  # fmt: skip
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return head + _padding(len(head))


def _padding(length: int) -> bytes:
    return bytes(-length % 4)
