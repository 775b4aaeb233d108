"""What packages need, by their own words (Debian Policy, 7). Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True, slots=True)
class Stated:
    """What a package says: each of ``needs`` is a choice of names, ``provides`` are further names.

    Versions are left to whoever put the packages together.
    """

    needs: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()


def stated(fields: Mapping[str, str]) -> Stated:
    """What the fields of a package's control file say."""
    needs = ",".join(fields.get(name, "") for name in ("Pre-Depends", "Depends"))
    return Stated(
        needs=tuple(
            tuple(_names(choice.split("|"))) for choice in needs.split(",") if choice.strip()
        ),
        provides=tuple(_names(fields.get("Provides", "").split(","))),
    )


def closure(wanted: Iterable[str], there: Mapping[str, Stated]) -> tuple[set[str], set[str]]:
    """The wanted packages and all that they need, and what of that is not there.

    Of a choice the first one that is there is taken.
    """
    by_name: dict[str, str] = {
        provided: name for name in sorted(there) for provided in there[name].provides
    } | {name: name for name in there}
    taken: set[str] = set()
    missing: set[str] = set()
    waiting: list[tuple[str, ...]] = [(name,) for name in wanted]
    while waiting:
        choice = waiting.pop()
        found = next((by_name[name] for name in choice if name in by_name), None)
        if found is None:
            missing.add(choice[0])
        elif found not in taken:
            taken.add(found)
            waiting += there[found].needs
    return taken, missing


def _names(texts: Iterable[str]) -> list[str]:
    return [found[0] for text in texts if (found := _NAME.match(text.strip()))]
