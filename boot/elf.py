"""What an ELF file says of itself (System V ABI): its sections, and the libraries it needs.

Only what Debian builds for PCs: 64 bits, little-endian.
"""

import struct
from collections.abc import Iterator
from typing import Final

_MAGIC: Final = b"\x7fELF\x02\x01"
_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_NEEDED: Final = 1
_NOTHING_IN_FILE: Final = 8
"""SHT_NOBITS."""


class NotElfError(ValueError):
    """It is no ELF file of a PC, or a broken one."""


def is_elf(data: bytes) -> bool:
    """Whether it begins as such a file does."""
    return data.startswith(_MAGIC)


def section(data: bytes, name: str) -> bytes:
    """The section of this name, empty where there is none.

    Raises:
        NotElfError: it is no such file.
    """
    return next((content for each, content in _sections(data) if each == name), b"")


def needed(data: bytes) -> list[str]:
    """The shared libraries that the file needs, by their names, in its order.

    Raises:
        NotElfError: it is no such file.
    """
    sections = dict(_sections(data))
    names = sections.get(".dynstr", b"")
    dynamic = sections.get(".dynamic", b"")
    usable = len(dynamic) - len(dynamic) % _DYNAMIC.size
    return [
        _text(names, value)
        for tag, value in _DYNAMIC.iter_unpack(dynamic[:usable])
        if tag == _NEEDED
    ]


def _sections(data: bytes) -> Iterator[tuple[str, bytes]]:
    if not is_elf(data):
        raise NotElfError("no ELF file of a PC")
    try:
        header = _HEADER.unpack_from(data)
        table, size, count, names_at = header[5], header[10], header[11], header[12]
        rows = [_SECTION.unpack_from(data, table + number * size) for number in range(count)]
        names = _content(data, rows[names_at]) if rows else b""
    except (struct.error, IndexError) as error:
        raise NotElfError("a broken ELF file") from error
    for row in rows:
        yield _text(names, row[0]), _content(data, row)


def _content(data: bytes, row: tuple[int, ...]) -> bytes:
    kind, offset, size = row[1], row[4], row[5]
    return b"" if kind == _NOTHING_IN_FILE else data[offset : offset + size]


def _text(names: bytes, at: int) -> str:
    return names[at : names.find(b"\0", at)].decode("latin-1")
