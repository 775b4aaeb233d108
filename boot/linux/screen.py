"""The screen before the portal: plain lines, in the portal's own style. Pure."""

from dataclasses import dataclass
from typing import Final

from boot.linux import network
from boot.linux.network import Network
from bus.texts import TEXTS

TITLE: Final = TEXTS["title"]
SMALLEST: Final = (20, 6)

_CLEAR: Final = "\x1b[0m\x1b[2J\x1b[H\x1b[?25l"
_BAR: Final = "\x1b[34;47;7m"
_KEYS: Final = "\x1b[7m"
_STRONG: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_NARROW: Final = 60
"""Fewer columns than this leave no room for a margin."""


@dataclass(frozen=True, slots=True)
class First:
    """What the first screen tells from the start.

    ``asks`` is False where nothing is asked, ``waits`` is True where the portal waits for ever.
    """

    server: str
    site: str = ""
    asks: bool = True
    waits: bool = False


def first_screen(first: First, seen: Network | None, columns: int, rows: int) -> list[str]:
    """The portal's own first screen, as lines of a screen of that size, before the portal is there.

    As long as the network is not up it says what the network is at; ``seen`` is None before
    anything is known of it.
    """
    body = [TEXTS["connecting"].replace("{server}", first.server)]
    if seen is not None and network.state(seen) != "up":
        body = [*network.advice(seen)]
    if first.asks:
        body += ["", TEXTS["countdown"]]
        body += ["", TEXTS["countdown_waits"]] if first.waits else []
    if seen is not None and network.state(seen) != "up":
        body += ["", *(_row(card, seen.at) for card in network.ordered(seen.cards))]
    return framed(body, first.site, TEXTS["countdown_help"] if first.asks else "", columns, rows)


def message_screen(texts: list[str], site: str, columns: int, rows: int) -> list[str]:
    """Some sentences and nothing to do about them."""
    return framed(texts, site, "", columns, rows)


def framed(body: list[str], right: str, help_text: str, columns: int, rows: int) -> list[str]:
    """Title, body and help: exactly ``rows`` lines of at most ``columns``."""
    columns, rows = max(columns, SMALLEST[0]), max(rows, SMALLEST[1])
    margin = 1 if columns < _NARROW else 3
    wrapped = [line for text in body for line in _wrapped(text, columns - 2 * margin)]
    inner = rows - 4
    lines = [f"{' ' * margin}{line}".rstrip() for line in (wrapped + [""] * inner)[:inner]]
    room = columns - 2
    beside = _plain(right)[: max(room - len(TITLE) - 2, 0)]
    title = f" {TITLE}{beside:>{room - len(TITLE)}} "
    return [title, "", *lines, "", f" {help_text[:room]:<{room}} "]


def drawn(lines: list[str]) -> bytes:
    """What puts the lines on a terminal, whatever stood there."""
    title, *body, keys = lines
    name, rest = title[: len(TITLE) + 1], title[len(TITLE) + 1 :]
    shown = [f"{_BAR}{_STRONG}{name}{_PLAIN}{_BAR}{rest}{_PLAIN}", *body]
    text = _CLEAR + "\r\n".join([*shown, f"{_KEYS}{keys}{_PLAIN}"])
    return text.encode("ascii", "replace")


def _row(card: network.Card, at: float) -> str:
    booted = "   (booted from)" if card.booted else ""
    what = f"{card.name:<8}{card.address}  {card.driver:<11} {network.of_card(card, at)}"
    return what + booted


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of that width, broken between words where it can be."""
    text = _plain(text).rstrip()
    if len(text) <= width:
        return [text]
    at = text.rfind(" ", 1, width + 1)
    at = at if at > 0 else width
    return [text[:at].rstrip(), *_wrapped(text[at:].lstrip(), width)]


def _plain(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)
