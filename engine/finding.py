"""Which engine reaches a deployment server: one that is installed, found by its entry point.

The name of an engine may stand before the address: ``express:Driver=...``. Else it is told beside
it, and else it is `DEFAULT`.
"""

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from msgspec import Struct

from engine.protocol import Engine, Make, Observer

GROUP: Final = "imageinvoker.engines"
"""The group of entry points under which packages offer engines."""
DEFAULT: Final = "express"

_NAMED: Final = re.compile(r"([a-z][a-z0-9_-]{0,31}):(.*)", re.DOTALL)


class EngineError(ValueError):
    """There is no such engine, or it cannot be used; the text names the cause and the cure."""


class Found(Struct, frozen=True):
    """An engine that is installed, and the address of a deployment server, which is never shown."""

    name: str
    address: str
    make: Make

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def open(self, site: str, observe: Observer = lambda _step, _seconds, _well: None) -> Engine:
        """The engine of this deployment server, for a site; to be called in an event loop.

        Raises:
            EngineError: it cannot be made of this address, or what is made is no engine.
        """
        try:
            made = self.make(self.address, site, observe)
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is; what it says may hold the address)
            raise EngineError(
                f"The engine {self.name!r} cannot be made of the address that is told "
                f"({type(error).__name__}): look at what it says of addresses"
            ) from None
        if not isinstance(made, Engine):
            raise EngineError(
                f"The engine {self.name!r} is none as this version wants it: install another "
                "edition of the package that it is from"
            )
        return made


def find(text: str) -> Found:
    """The engine that an address is for, which may stand before it.

    Raises:
        EngineError: it is not installed, or cannot be loaded, whatever goes wrong in its package.
    """
    name, address = named(text)
    return Found(name, address, _loaded(name))


def named(text: str, told: str | None = None) -> tuple[str, str]:
    """The name of the engine and the address, of a text that may hold both.

    Raises:
        EngineError: the text says another engine than was ``told``.
    """
    match = _NAMED.fullmatch(text.strip())
    if match is None:
        return told or DEFAULT, text.strip()
    if told and told != match[1]:
        raise EngineError(
            f"The deployment server's address is for the engine {match[1]!r}, and {told!r} was "
            "asked for: say one of them"
        )
    return match[1], match[2].strip()


def installed() -> dict[str, list[EntryPoint]]:
    """The engines that are installed, by name; where several packages offer one, all of them."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for each in entry_points(group=GROUP):
        found.setdefault(each.name, {})[each.value] = each
    return {name: list(found[name].values()) for name in sorted(found)}


def _loaded(name: str) -> Make:
    known = installed()
    offered = known.get(name, [])
    if not offered:
        names = ", ".join(known) or "none: ImageInvoker itself must be installed anew"
        raise EngineError(f"There is no engine {name!r}; installed are: {names}")
    if len(offered) > 1:
        places = ", ".join(sorted(each.value for each in offered))
        raise EngineError(f"Several packages offer the engine {name!r} ({places}): keep one")
    try:
        make: Make = offered[0].load()
    except Exception as error:
        why = str(error) or type(error).__name__
        raise EngineError(
            f"The engine {name!r} cannot be loaded ({why}): install what it needs"
        ) from error
    if not callable(make):
        raise EngineError(
            f"The engine {name!r} cannot be used: {offered[0].value} is no function that makes one"
        )
    return make
