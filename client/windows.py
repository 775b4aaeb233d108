"""Everything that is special to Windows and Windows PE: identity, network, console, exit.

Offered by `client.system`, as `client.linux` is. What Windows answers is read by pure functions
here; whom it is asked of stands in two protocols, so that recorded answers can stand in for them.
"""

import ctypes
import ipaddress
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol, Self

from bus.messages import Machine
from client import smbios
from client.network import Card, leads_somewhere
from client.portal.asking import Terminal

if TYPE_CHECKING:
    from textual.driver import Driver

ENVIRONMENT: Final = "winpe"
"""What a machine tells its site that it runs."""

_PROVIDER: Final = int.from_bytes(b"RSMB", "big")

_ROW: Final = 1352
_FIRST_ROW: Final = 8
_INDEX: Final = 8
_DESCRIPTION: Final = slice(542, 1056)
_ADDRESS_LENGTH: Final = 1056
_ADDRESS: Final = 1060
_PERMANENT: Final = 1092
_TYPE: Final = 1128
_FLAGS: Final = 1152
_CONNECTED: Final = 1164
"""Size and offsets in bytes of MIB_IF_TABLE2 and MIB_IF_ROW2 (netioapi.h)."""
_HARDWARE: Final = 1
"""The first of InterfaceAndOperStatusFlags: a card, no tunnel and no filter."""
_CARDS: Final = frozenset({6, 71})
"""IF_TYPE_ETHERNET_CSMACD and IF_TYPE_IEEE80211."""
_IS_CONNECTED: Final = 1
"""MediaConnectStateConnected."""

_UNICAST_ROW: Final = 80
_UNICAST_INDEX: Final = 40
"""Size and an offset in bytes of MIB_UNICASTIPADDRESS_ROW (netioapi.h)."""
_IPV4, _IPV6 = 2, 23
"""Address families of Windows."""

_STANDARD_INPUT: Final = -10
_QUICK_EDIT: Final = 0x0040
_EXTENDED: Final = 0x0080
"""ENABLE_QUICK_EDIT_MODE and ENABLE_EXTENDED_FLAGS (consoleapi.h)."""


class System(Protocol):
    """What is asked of Windows."""

    def firmware(self) -> bytes:
        """RawSMBIOSData (GetSystemFirmwareTable)."""

    def interfaces(self) -> bytes:
        """A MIB_IF_TABLE2 (GetIfTable2)."""

    def addresses(self) -> bytes:
        """A MIB_UNICASTIPADDRESS_TABLE (GetUnicastIpAddressTable)."""


class Console(Protocol):
    """The console window that the portal runs in."""

    def mode(self) -> int | None:
        """How it takes input (GetConsoleMode); None where input is no console."""

    def set_mode(self, mode: int) -> None:
        """SetConsoleMode."""

    def ignore_interrupts(self) -> None:
        """SetConsoleCtrlHandler(NULL, TRUE)."""


class Windows:
    """This machine, as Windows knows it."""

    def __init__(self, system: System) -> None:
        self._system = system

    def machine(self) -> Machine:
        """The machine, from its firmware's tables and its network cards."""
        version, table = smbios.windows_table(self._system.firmware())
        return smbios.machine(version, table, hardware_addresses(self._system.interfaces()))

    def cards(self) -> list[Card]:
        """The network cards, their links and whether they have addresses."""
        return network_cards(self._system.interfaces(), self._system.addresses())


def hardware_addresses(table: bytes) -> tuple[str, ...]:
    """The addresses of the physical cards in a MIB_IF_TABLE2, each once; USB adapters come last.

    Windows does not say here what a card is plugged into, but drivers say it in their names.
    """
    rows = sorted(_cards(table), key=lambda row: "usb" in _described(row).lower())
    addresses: dict[str, None] = {}
    for row in rows:
        permanent = row[_PERMANENT : _PERMANENT + 6]
        address = permanent if any(permanent) else row[_ADDRESS : _ADDRESS + 6]
        addresses[address.hex(":")] = None
    return tuple(addresses)[:64]


def network_cards(interfaces: bytes, addresses: bytes) -> list[Card]:
    """The physical cards in a MIB_IF_TABLE2 with what a MIB_UNICASTIPADDRESS_TABLE adds."""
    addressed = set(_addressed(addresses))
    return [
        Card(
            name=_described(row) or "?",
            has_link=_number(row, _CONNECTED) == _IS_CONNECTED,
            has_address=_number(row, _INDEX) in addressed,
        )
        for row in _cards(interfaces)
    ]


def make_harmless(console: Console) -> None:
    """Readies a console window: a click would stop the portal, Ctrl+C the whole batch."""
    console.ignore_interrupts()
    mode = console.mode()
    if mode is not None:
        console.set_mode((mode | _EXTENDED) & ~_QUICK_EDIT)


def _cards(table: bytes) -> Iterator[bytes]:
    for number in range(_number(table, 0)):
        row = table[_FIRST_ROW + number * _ROW :][:_ROW]
        if len(row) < _ROW:
            return
        of_six = _number(row, _ADDRESS_LENGTH) == 6
        if of_six and _number(row, _TYPE) in _CARDS and row[_FLAGS] & _HARDWARE:
            yield row


def _addressed(table: bytes) -> Iterator[int]:
    """The indices of the interfaces that were given an address."""
    for number in range(_number(table, 0)):
        row = table[_FIRST_ROW + number * _UNICAST_ROW :][:_UNICAST_ROW]
        if len(row) < _UNICAST_ROW:
            return
        family = int.from_bytes(row[:2], "little")
        raw = {_IPV4: row[4:8], _IPV6: row[8:24]}.get(family)
        if raw is not None and leads_somewhere(str(ipaddress.ip_address(raw))):
            yield _number(row, _UNICAST_INDEX)


def _described(row: bytes) -> str:
    return row[_DESCRIPTION].decode("utf-16-le", "replace").partition("\0")[0].strip()


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


class Asking:
    """A console of Windows, of which all is known."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def answer(self) -> Terminal:
        """What there is to know."""
        return Terminal()


def driver(_terminal: Terminal) -> "type[Driver] | None":
    """How Textual is to write to the console: in its own way."""
    return None


def terminal_state() -> object:
    """Nothing: the command interpreter that called us puts the mode of its console right."""
    return None


def restore_terminal(_before: object) -> None:
    """Nothing either."""


def set_clock(_seconds: float) -> None:
    """Nothing: no image of ours with Windows PE says that its clock is to be set."""


if sys.platform == "win32":

    class _System:
        def firmware(self) -> bytes:
            ask = ctypes.windll.kernel32.GetSystemFirmwareTable
            ask.restype = ctypes.c_uint32
            size = ask(_PROVIDER, 0, None, 0)
            room = ctypes.create_string_buffer(size)
            return room.raw[: ask(_PROVIDER, 0, room, size)]

        def interfaces(self) -> bytes:
            table = ctypes.c_void_p()
            failed = ctypes.windll.iphlpapi.GetIfTable2(ctypes.byref(table))
            return b"" if failed else _copied(table, _ROW)

        def addresses(self) -> bytes:
            table = ctypes.c_void_p()
            failed = ctypes.windll.iphlpapi.GetUnicastIpAddressTable(0, ctypes.byref(table))
            return b"" if failed else _copied(table, _UNICAST_ROW)

    class _Console:
        def __init__(self) -> None:
            handle = ctypes.windll.kernel32.GetStdHandle
            handle.restype = ctypes.c_void_p
            self._input = ctypes.c_void_p(handle(_STANDARD_INPUT))

        def mode(self) -> int | None:
            mode = ctypes.c_uint32()
            known = ctypes.windll.kernel32.GetConsoleMode(self._input, ctypes.byref(mode))
            return mode.value if known else None

        def set_mode(self, mode: int) -> None:
            ctypes.windll.kernel32.SetConsoleMode(self._input, mode)

        def ignore_interrupts(self) -> None:
            ctypes.windll.kernel32.SetConsoleCtrlHandler(None, True)

    def _copied(table: ctypes.c_void_p, row: int) -> bytes:
        if not table.value:
            return b""
        try:
            count = int.from_bytes(ctypes.string_at(table.value, 4), "little")
            return ctypes.string_at(table.value, _FIRST_ROW + count * row)
        finally:
            ctypes.windll.iphlpapi.FreeMibTable(table)

    def machine(boot_card: str | None = None) -> Machine:
        """This machine; no start of Windows tells of a ``boot_card``."""
        return Windows(_System()).machine()

    def cards() -> list[Card]:
        """The network cards of this machine, as they are now."""
        return Windows(_System()).cards()

    def ready_console() -> None:
        """Makes the console that we run in harmless."""
        make_harmless(_Console())
