"""The network cards of this PC, as the kernel shows them; links of them, and leases."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ETHERNET: Final = "1"
SYS: Final = Path("/sys/class/net")
RUN: Final = Path("/run/imageinvoker")
"""Where what runs inside of the image tells each other."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A card as the kernel shows it; the ``link`` of one that is down is not known."""

    name: str
    address: str
    driver: str
    link: bool | None


def seen(folder: Path = SYS) -> Iterator[Seen]:
    """The physical cards, by name."""
    try:
        cards = sorted(folder.iterdir())
    except OSError:
        return
    for card in cards:
        if _line(card / "type") != _ETHERNET or not (card / "device").exists():
            continue
        carrier = _line(card / "carrier")
        driver = card / "device" / "driver"
        yield Seen(
            card.name,
            _line(card / "address"),
            driver.resolve().name if driver.exists() else "",
            carrier == "1" if carrier else None,
        )


def lease(name: str, folder: Path = RUN) -> dict[str, str]:
    """What a DHCP server has told for this card, as the program `lease` keeps it; else nothing."""
    try:
        lines = (folder / f"lease.{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(line.partition("=")[::2] for line in lines.splitlines())


def _line(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""  # a card that is down tells nothing of its link
