"""Whether this machine is on a network at all: its cards, their links and their addresses."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

NetworkTrouble = Literal["no_card", "no_link", "no_address"]
"""What keeps a machine from every server, from the plainest on.

``no_link`` is a cable that is not plugged in (or a card that is not switched on), ``no_address`` a
link over which nobody has given an address.
"""


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


def leads_somewhere(address: str | None) -> bool:
    """Whether an address was given to a card; one that it gave itself leads nowhere (RFC 3927)."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return not (known.is_link_local or known.is_unspecified or known.is_loopback)
