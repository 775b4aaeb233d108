"""How a PC starts from its own disk next time: UEFI's `BootNext` (UEFI 2.10, 3.1.2 and 3.3)."""

import contextlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

VARIABLES: Final = Path("/sys/firmware/efi/efivars")
_GLOBAL: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_KEPT: Final = 7
"""Non-volatile, and to be read by firmware and system alike."""
_ACTIVE: Final = 1
_END: Final = 0x7F
_DISKS: Final = frozenset({(3, 1), (3, 2), (3, 10), (3, 18), (3, 23), (3, 26), (3, 29), (4, 1)})
"""Types and subtypes of device paths: ATA, SCSI, SAS, SATA, NVMe, SD, eMMC, a partition."""
_OTHERS: Final = frozenset({(3, 5), (3, 11), (3, 12), (3, 13), (3, 15), (3, 16), (3, 24), (4, 2)})
"""USB, network and discs."""


def of_disk(order: bytes, current: int | None, options: Mapping[int, bytes]) -> int | None:
    """The first entry of the firmware's boot order that is a disk; None where none is.

    ``order`` is the variable BootOrder, ``current`` the entry that was booted, ``options`` are the
    load options of the entries by their numbers.
    """
    usable = len(order) - len(order) % 2
    for (number,) in struct.iter_unpack("<H", order[:usable]):
        if number == current or number not in options:
            continue
        kinds = set(nodes(options[number]))
        if kinds & _DISKS and not kinds & _OTHERS:
            return int(number)
    return None


def nodes(option: bytes) -> Iterator[tuple[int, int]]:
    """Type and subtype of each node in the device path of an active load option."""
    if len(option) < 6 or not option[0] & _ACTIVE:
        return
    at = 6
    while option[at : at + 2] not in {b"\0\0", b""}:
        at += 2  # the description, in UTF-16
    at += 2
    while at + 4 <= len(option):
        kind, subtype, length = struct.unpack_from("<BBH", option, at)
        if kind == _END or length < 4:
            return
        yield kind, subtype
        at += length


def choose(folder: Path = VARIABLES) -> bool:
    """Has the firmware start from the disk next time; whether it could be told."""
    order = _read(folder, "BootOrder")
    current = _read(folder, "BootCurrent")
    options = {
        int(file.name[4:8], 16): content
        for file in folder.glob("Boot[0-9A-F][0-9A-F][0-9A-F][0-9A-F]-*")
        if (content := _read(folder, file.name[:8])) is not None
    }
    booted = struct.unpack("<H", current)[0] if current and len(current) == 2 else None
    number = of_disk(order or b"", booted, options)
    if number is None:
        return False
    with contextlib.suppress(OSError):
        content = struct.pack("<IH", _KEPT, number)
        (folder / f"BootNext-{_GLOBAL}").write_bytes(content)
        return True
    return False


def _read(folder: Path, name: str) -> bytes | None:
    """A variable without its attributes."""
    try:
        return (folder / f"{name}-{_GLOBAL}").read_bytes()[4:]
    except OSError:
        return None
