"""What a machine that runs Windows or Windows PE says of itself."""

import ctypes
import sys
from typing import Final

from bus.messages import Machine
from client import smbios

_PROVIDER: Final = int.from_bytes(b"RSMB", "big")

_ROW: Final = 1352
_FIRST_ROW: Final = 8
_ADDRESS_LENGTH: Final = 1056
_ADDRESS: Final = 1060
_PERMANENT: Final = 1092
_TYPE: Final = 1128
_FLAGS: Final = 1152
"""Size and offsets in bytes of MIB_IF_TABLE2 and MIB_IF_ROW2 (netioapi.h)."""
_HARDWARE: Final = 1
"""The first of InterfaceAndOperStatusFlags: a card, no tunnel and no filter."""
_CARDS: Final = frozenset({6, 71})
"""IF_TYPE_ETHERNET_CSMACD and IF_TYPE_IEEE80211."""


def windows_machine() -> Machine:
    """The machine, from its firmware's tables and its network cards."""
    version, table = smbios.windows_table(_firmware())
    return smbios.machine(version, table, hardware_addresses(_interfaces()))


def hardware_addresses(table: bytes) -> tuple[str, ...]:
    """The addresses of the physical cards in a MIB_IF_TABLE2, each once."""
    count = int.from_bytes(table[:4], "little")
    addresses: dict[str, None] = {}
    for number in range(count):
        row = table[_FIRST_ROW + number * _ROW :][:_ROW]
        if len(row) < _ROW:
            break
        length = int.from_bytes(row[_ADDRESS_LENGTH:_ADDRESS], "little")
        kind = int.from_bytes(row[_TYPE : _TYPE + 4], "little")
        if length != 6 or kind not in _CARDS or not row[_FLAGS] & _HARDWARE:
            continue
        permanent = row[_PERMANENT : _PERMANENT + 6]
        address = permanent if any(permanent) else row[_ADDRESS : _ADDRESS + 6]
        addresses[address.hex(":")] = None
    return tuple(addresses)[:64]


if sys.platform == "win32":

    def _firmware() -> bytes:
        ask = ctypes.windll.kernel32.GetSystemFirmwareTable
        ask.restype = ctypes.c_uint32
        size = ask(_PROVIDER, 0, None, 0)
        room = ctypes.create_string_buffer(size)
        return room.raw[: ask(_PROVIDER, 0, room, size)]

    def _interfaces() -> bytes:
        library = ctypes.windll.iphlpapi
        table = ctypes.c_void_p()
        if library.GetIfTable2(ctypes.byref(table)) != 0 or not table.value:
            return b""
        try:
            count = int.from_bytes(ctypes.string_at(table.value, 4), "little")
            return ctypes.string_at(table.value, _FIRST_ROW + count * _ROW)
        finally:
            library.FreeMibTable(table)

else:

    def _firmware() -> bytes:
        return b""

    def _interfaces() -> bytes:
        return b""
