"""Everything that is special to Linux: identity, network, clock, terminal.

Offered by `client.system`, as `client.windows` is. What stands under ``/sys`` and ``/proc`` is
read by functions that can be shown other folders.
"""

import contextlib
import fcntl
import os
import re
import select
import socket
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from bus.machines import normal_mac, normal_text
from bus.messages import Machine
from client.network import Card, leads_somewhere
from client.portal.asking import QUESTION, Terminal, read_answers, typed

if TYPE_CHECKING:
    from textual.driver import Driver

assert sys.platform != "win32"  # noqa: S101 (mypy knows platforms by branches and by this)

ENVIRONMENT: Final = "linux"
"""What a machine tells its site that it runs."""

_ETHERNET: Final = "1"
"""ARPHRD_ETHER in ``/sys/class/net/*/type``; it stands for wireless cards as well."""
_RANDOM: Final = "1"
"""NET_ADDR_RANDOM in ``/sys/class/net/*/addr_assign_type``: made up at this boot."""
_ASK_ADDRESS: Final = 0x8915
"""SIOCGIFADDR (netdevice(7))."""
_GLOBAL: Final = "00"
_TENTATIVE: Final = 0x40
"""Scope and flag in ``/proc/net/if_inet6``."""

_SCREENS: Final = re.compile(r"/dev/(?:tty\d+|pts/\d+)\Z")
"""Terminals of which the kernel knows the size, and which take UTF-8 unless they are older ones."""
_OLD: Final = ("vt", "ansi", "dumb")
"""How the names of terminals begin that may not know Unicode."""
_PATIENCE: Final = 1.0
"""Seconds; at 9600 baud an answer is here in 50 ms, over a network of consoles in half a second."""
_USUAL_SCREEN: Final = b"\x1b[?1049l\x1b[?25h"
"""The screen that was there before, and its cursor."""

_State = list[int | list[bytes | int]]


def machine(boot_card: str | None = None) -> Machine:
    """This machine, as its firmware and its network cards tell."""
    return linux_machine(Path("/sys"), boot_card)


def cards() -> list[Card]:
    """The network cards of this machine, as they are now."""
    return linux_cards(Path("/sys"), Path("/proc"), _ipv4_address)


def set_clock(seconds: float) -> None:
    """Sets the clock to so many seconds since 1970; one that may not be set is left as it is."""
    with contextlib.suppress(OSError):
        time.clock_settime(time.CLOCK_REALTIME, seconds)


def ready_console() -> None:
    """Nothing: no console of Linux does harm."""


def driver(terminal: Terminal) -> "type[Driver] | None":
    """How Textual is to write to a terminal."""
    from client.portal.driver import AsciiDriver, LineDriver  # noqa: PLC0415 (with Textual alone)

    return LineDriver if terminal.knows_unicode else AsciiDriver


def terminal_state() -> _State | None:
    """How our terminal works now; None where there is none."""
    try:
        return termios.tcgetattr(0)
    except (termios.error, OSError):
        return None


def restore_terminal(before: _State | None) -> None:
    """Makes it work as before, at once: what was not taken is dropped, the kernel would wait."""
    with contextlib.suppress(termios.error, OSError):
        termios.tcflush(0, termios.TCOFLUSH)
        if select.select([], [2], [], 0)[1]:
            os.write(2, _USUAL_SCREEN)
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


class Asking:
    """Asks the terminal we run in, where the system does not know.

    The question goes out at once, so that the answer comes while something else is done.
    """

    def __init__(self) -> None:
        self._knows_unicode = "utf" in (sys.stderr.encoding or "").lower()
        self._taking, self._giving = sys.stdin.fileno(), sys.stderr.fileno()
        self._before: _State | None = None
        self._is_asked = False
        self._size_is_known = True
        self._until = 0.0

    def __enter__(self) -> Self:
        try:
            columns, rows = os.get_terminal_size(self._giving)
            name = os.ttyname(self._giving)
            before = termios.tcgetattr(self._taking)
        except (OSError, termios.error):
            return self
        self._size_is_known = bool(columns and rows)
        is_old = os.environ.get("TERM", "").startswith(_OLD)
        if self._size_is_known and _SCREENS.match(name) and not is_old:
            return self
        self._before = before
        tty.setraw(self._taking, termios.TCSANOW)
        # A line that takes nothing is not waited for.
        if select.select([], [self._giving], [], 0)[1]:
            os.write(self._giving, QUESTION)
            self._is_asked = True
            self._until = time.monotonic() + _PATIENCE
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._taking, termios.TCSANOW, self._before)

    def answer(self) -> Terminal:
        """What the terminal has answered; waits for it no longer than it may take."""
        if self._before is None:
            return Terminal(knows_unicode=self._knows_unicode)
        heard = b""
        answered = None
        while self._is_asked and answered is None:
            left = max(self._until - time.monotonic(), 0)
            if not select.select([self._taking], [], [], left)[0]:
                break
            part = os.read(self._taking, 256)
            heard += part
            answered = read_answers(heard, self._size_is_known)
            if not part:
                break
        if answered is None:
            # Who says nothing of itself is taken for what most are: 80 columns of ASCII.
            return Terminal(knows_unicode=False, typed=typed(heard))
        if answered.size:
            columns, rows = answered.size
            termios.tcsetwinsize(self._giving, (rows, columns))
        return answered


def linux_machine(sys_root: Path, boot_card: str | None = None) -> Machine:
    """The machine as the kernel shows it under ``sys_root`` (``/sys``)."""
    firmware = sys_root / "class/dmi/id"
    serial = line_of(firmware / "product_serial")
    return Machine(
        uuid=line_of(firmware / "product_uuid"),
        # Self-built machines often carry a serial number on the board alone.
        serial=serial if normal_text(serial) else line_of(firmware / "board_serial") or serial,
        asset_tag=line_of(firmware / "chassis_asset_tag"),
        macs=_addresses(sys_root, boot_card),
        manufacturer=line_of(firmware / "sys_vendor"),
        model=line_of(firmware / "product_name"),
    )


def linux_cards(
    sys_root: Path, proc_root: Path, ipv4_address: Callable[[str], str | None]
) -> list[Card]:
    """The cards as the kernel shows them under ``/sys`` and ``/proc``.

    ``ipv4_address`` gives the address of a card by its name.
    """
    with_ipv6 = _with_ipv6(line_of(proc_root / "net/if_inet6", 65_536) or "")
    return [
        Card(
            name=card.name,
            has_link=line_of(card / "carrier") == "1",
            has_address=card.name in with_ipv6 or leads_somewhere(ipv4_address(card.name)),
        )
        for card in card_folders(sys_root)
    ]


def card_folders(sys_root: Path) -> list[Path]:
    """The folders of the physical cards under ``/sys``.

    Without any (a container) those of the others, less loopback and bridges.
    """
    try:
        folders = sorted((sys_root / "class/net").iterdir())
    except OSError:
        return []
    cards = [card for card in folders if line_of(card / "type") == _ETHERNET]
    physical = [
        card
        for card in cards
        if (card / "device").exists() and line_of(card / "addr_assign_type") != _RANDOM
    ]
    return physical or [card for card in cards if not (card / "bridge").exists()]


def line_of(file: Path, longest: int = 1024) -> str | None:
    """What a small file of the kernel says; None where it says nothing."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return text[:longest] or None


def _addresses(sys_root: Path, boot_card: str | None) -> tuple[str, ...]:
    """The addresses of the cards: those built in first, and of these the one booted from.

    A USB adapter moves from machine to machine, so it may only ever identify the last resort.
    """
    booted = normal_mac(boot_card)

    def order(card: Path) -> tuple[bool, bool]:
        is_booted = booted is not None and normal_mac(line_of(card / "address")) == booted
        return (card / "device/subsystem").resolve().name == "usb", not is_booted

    cards = sorted(card_folders(sys_root), key=order)
    addresses = [address for card in cards if (address := line_of(card / "address"))]
    return tuple(dict.fromkeys(addresses))[:64]


def _with_ipv6(table: str) -> set[str]:
    """The names of the cards with an address of the whole world, out of ``/proc/net/if_inet6``."""
    rows = [line.split() for line in table.splitlines()]
    return {
        row[5]
        for row in rows
        if len(row) == 6 and row[3] == _GLOBAL and not int(row[4], 16) & _TENTATIVE
    }


def _ipv4_address(name: str) -> str | None:
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking.fileno(), _ASK_ADDRESS, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])
