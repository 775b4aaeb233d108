"""Reads the raw firmware tables of a machine (SMBIOS, DMTF DSP0134). Pure functions."""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from bus.messages import Machine

_SYSTEM: Final = 1
_CHASSIS: Final = 3
_END: Final = 127
_WINDOWS_HEADER: Final = 8


def windows_table(raw: bytes) -> tuple[tuple[int, int], bytes]:
    """Version and table out of what Windows gives for ``RSMB`` (RawSMBIOSData)."""
    length = int.from_bytes(raw[4:_WINDOWS_HEADER], "little")
    version = (raw[1], raw[2]) if len(raw) >= _WINDOWS_HEADER else (0, 0)
    return version, raw[_WINDOWS_HEADER : _WINDOWS_HEADER + length]


def machine(version: tuple[int, int], table: bytes, macs: tuple[str, ...] = ()) -> Machine:
    """The machine that a firmware table describes; what the table lacks stays absent."""
    system: dict[str, str | None] = {}
    asset_tag: str | None = None
    for kind, body, texts in structures(table):
        if kind == _SYSTEM and not system:
            system = {
                "manufacturer": _text(body, 4, texts),
                "model": _text(body, 5, texts),
                "serial": _text(body, 7, texts),
                "uuid": _uuid(version, body[8:24]),
            }
        elif kind == _CHASSIS and asset_tag is None:
            asset_tag = _text(body, 8, texts)
    return Machine(
        uuid=system.get("uuid"),
        serial=system.get("serial"),
        asset_tag=asset_tag,
        macs=macs,
        manufacturer=system.get("manufacturer"),
        model=system.get("model"),
    )


def structures(table: bytes) -> Iterator[tuple[int, bytes, list[str]]]:
    """Each structure's type, formatted part and texts; stops where the table breaks off."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            return
        texts = table[at + length : end].decode("latin-1").split("\0")
        yield kind, table[at : at + length], texts
        if kind == _END:
            return
        at = end + 2


def _text(body: bytes, offset: int, texts: list[str]) -> str | None:
    number = body[offset] if offset < len(body) else 0
    text = texts[number - 1].strip() if 0 < number <= len(texts) else ""
    return text[:1024] or None


def _uuid(version: tuple[int, int], raw: bytes) -> str | None:
    if len(raw) < 16:
        return None
    # From 2.6 on the first three fields are little-endian (7.2.1); Linux reads it likewise.
    return str(UUID(bytes_le=raw) if version >= (2, 6) else UUID(bytes=raw))
