"""Whether this machine is on a network at all: its cards, their links and their addresses."""

import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

NetworkTrouble = Literal["no_card", "no_link", "no_address"]
"""What keeps a machine from every server, from the plainest on.

``no_link`` is a cable that is not plugged in (or a card that is not switched on), ``no_address`` a
link over which nobody has given an address.
"""

_ETHERNET: Final = "1"
"""ARPHRD_ETHER in ``/sys/class/net/*/type``; it stands for wireless cards as well."""
_RANDOM: Final = "1"
"""NET_ADDR_RANDOM in ``/sys/class/net/*/addr_assign_type``: made up at this boot."""
_ASK_ADDRESS: Final = 0x8915
"""SIOCGIFADDR (netdevice(7))."""
_GLOBAL: Final = "00"
_TENTATIVE: Final = 0x40
"""Scope and flag in ``/proc/net/if_inet6``."""


@dataclass(frozen=True, slots=True)
class Card:
    """A network card: has it a link, and an address with which one gets anywhere?"""

    name: str
    has_link: bool
    has_address: bool = False


def network_trouble(cards: Sequence[Card]) -> NetworkTrouble | None:
    """What is wrong with the network, if it is the network; one card that works is enough."""
    if not cards:
        return "no_card"
    linked = [card for card in cards if card.has_link]
    if not linked:
        return "no_link"
    return None if any(card.has_address for card in linked) else "no_address"


def is_here(server: str) -> bool:
    """Whether all of a server's addresses are within this machine, where no card is needed."""
    hosts = [
        urlsplit(address if "//" in address else f"//{address}").hostname or ""
        for address in server.split(",")
    ]
    return all(host in {"localhost", "::1"} or host.startswith("127.") for host in hosts)


def names(cards: Sequence[Card], trouble: NetworkTrouble) -> str:
    """The cards that a technician has to look at."""
    return ", ".join(card.name for card in cards if trouble == "no_link" or card.has_link)


def these_cards() -> list[Card]:
    """The network cards of this machine, as they are now."""
    if sys.platform == "win32":
        from client.windows import this_windows  # noqa: PLC0415 (only on Windows)

        return this_windows().cards()
    else:  # noqa: RET505 (mypy knows platforms by branches)
        return linux_cards(Path("/sys"), Path("/proc"), _ipv4_address)


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


def leads_somewhere(address: str | None) -> bool:
    """Whether an address was given to a card; one that it gave itself leads nowhere (RFC 3927)."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return not (known.is_link_local or known.is_unspecified or known.is_loopback)


def _with_ipv6(table: str) -> set[str]:
    """The names of the cards with an address of the whole world, out of ``/proc/net/if_inet6``."""
    rows = [line.split() for line in table.splitlines()]
    return {
        row[5]
        for row in rows
        if len(row) == 6 and row[3] == _GLOBAL and not int(row[4], 16) & _TENTATIVE
    }


if sys.platform == "win32":

    def _ipv4_address(name: str) -> str | None:
        return None

else:
    import fcntl

    def _ipv4_address(name: str) -> str | None:
        request = struct.pack("256s", name.encode()[:15])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                answer = fcntl.ioctl(asking.fileno(), _ASK_ADDRESS, request)
            except OSError:
                return None
        return socket.inet_ntoa(answer[20:24])
