"""What this boot was told: by the image, and by the kernel command line, which outranks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from client.settings import boot_card, kernel_parameters

Then = Literal["agent", "script", "shell", "reboot", "poweroff", "local"]
"""What comes after the portal."""
THEN: Final[tuple[Then, ...]] = get_args(Then)

IMAGE: Final = "/etc/imageinvoker/command-line"
"""The file in which the image tells, in the language of the kernel's command line."""
PATIENCE: Final = 30
"""Seconds in which a network that has a link comes up, usually; some switches take that long."""
LONGEST: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What this boot goes by.

    ``then`` comes after the portal. ``patience`` in seconds is for the network, before the portal
    comes up without it. ``boot_card`` is the address of the card that the PC has booted from.
    ``floor`` in seconds since 1970 is a time that has passed for sure: the image was made then.
    ``ntp`` are servers to ask for the time. ``wrong`` says what made no sense.
    """

    then: Then = "local"
    patience: int = PATIENCE
    boot_card: str | None = None
    floor: int = 0
    ntp: tuple[str, ...] = ()
    server: str = ""
    site: str = ""
    ca: str | None = None
    wrong: tuple[str, ...] = ()


def told(text: str) -> Told:
    """What the parameters in ``text`` say; the last of each counts, and nothing stops a boot."""
    given = dict(kernel_parameters(text))
    wrong: list[str] = []
    then = _value(given, "then") or "local"
    if then not in THEN:
        wrong.append(f"imageinvoker.then: {then!r} is none of {', '.join(THEN)}.")
        then = "local"
    patience = _number(given, "network", wrong)
    return Told(
        then=cast("Then", then),
        patience=PATIENCE if patience is None else min(patience, LONGEST),
        boot_card=boot_card(given.get("BOOTIF", "")),
        floor=_number(given, "floor", wrong) or 0,
        ntp=tuple(filter(None, (each.strip() for each in _value(given, "ntp").split(",")))),
        server=_value(given, "server"),
        site=_value(given, "site"),
        ca=_value(given, "ca") or None,
        wrong=tuple(wrong),
    )


def _value(given: Mapping[str, str], name: str) -> str:
    return given.get(f"imageinvoker.{name}", "")


def _number(given: Mapping[str, str], name: str, wrong: list[str]) -> int | None:
    text = _value(given, name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        wrong.append(f"imageinvoker.{name}: {text!r} is no number of seconds.")
        return None
    return int(text)
