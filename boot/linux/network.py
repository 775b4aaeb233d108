"""What the network is at: facts of each card, and what to say of them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

State = Literal["starting", "no_card", "no_link", "no_address", "up"]

SETTLING: Final = 6.0
"""Seconds after which a card that will be found has been, and one that has a link shows it."""
PREFERENCE: Final = 3.0
"""Seconds for which the card that the PC has booted from is waited for when another was quicker."""

FIRST_METRIC: Final = 100
OTHER_METRIC: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A network card: ``link`` is None while it is not known.

    ``asked`` is since when a DHCP server is looked for, in seconds of the clock of all times here.
    """

    name: str
    address: str
    driver: str = ""
    link: bool | None = None
    asked: float | None = None
    ip: str = ""
    ntp: tuple[str, ...] = ()
    booted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """All cards, at one time."""

    cards: tuple[Card, ...] = ()
    began: float = 0.0
    leased: float | None = None
    """When the first address came."""
    at: float = 0.0


def since(network: Network, began: float) -> Network:
    """The same as if it had begun at that time, unless it began later."""
    return replace(network, began=max(network.began, began))


def state(network: Network) -> State:
    """How far the network is."""
    cards = network.cards
    if _is_usable(network):
        return "up"
    early = network.at - network.began < SETTLING
    if not cards:
        return "starting" if early else "no_card"
    if not any(card.link for card in cards):
        return "starting" if early else "no_link"
    return "no_address"


def _is_usable(network: Network) -> bool:
    leased = [card for card in network.cards if card.ip]
    if not leased or network.leased is None:
        return False
    better = [card for card in network.cards if card.booted and card.link and not card.ip]
    return not better or network.at - network.leased >= PREFERENCE


def waits(network: Network, patience: float) -> float:
    """Seconds that the portal still waits for the network; none where waiting makes no sense."""
    gone = network.at - network.began
    match state(network):
        case "up" | "no_card" | "no_link":
            return 0.0
        case "starting":
            return max(min(SETTLING, patience) - gone, 0.0)
        case "no_address":
            return max(patience - gone, 0.0)


def metric(card: Card, number: int) -> int:
    """The preference of the routes over a card: the one booted from comes first."""
    return FIRST_METRIC if card.booted else OTHER_METRIC + number


def ordered(cards: Sequence[Card]) -> list[Card]:
    """The card booted from first, then by name."""
    return sorted(cards, key=lambda card: (not card.booted, card.name))


def of_card(card: Card, at: float) -> str:
    """What to say of one card."""
    if card.ip:
        return card.ip
    if card.link is False:
        return "no link"
    if card.asked is None:
        return "starting"
    return f"asks for an address, {max(at - card.asked, 0):.0f} s"


_ADVICE: Final[dict[State, tuple[str, ...]]] = {
    "starting": ("Bringing up the network ...",),
    "no_card": (
        "No network card was found.",
        "Plug one in (USB), or ask an operator for a boot image with its driver.",
    ),
    "no_link": (
        "No network card has a link.",
        "Is the cable plugged in, at both ends? Is the port of the switch on?",
    ),
    "no_address": (
        "No DHCP server has answered yet.",
        "If it stays so: is this the right network, and is its DHCP server up?",
    ),
    "up": ("The network is up.",),
}


def advice(network: Network) -> tuple[str, ...]:
    """What is wrong, and what to do about it; a sentence or two."""
    patient = state(network) == "no_address" and network.at - network.began < SETTLING
    return _ADVICE["starting" if patient else state(network)]
