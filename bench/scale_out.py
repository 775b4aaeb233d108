"""`python -m bench.scale_out [PART ...]`: what `docs/scaling.md` reckons with, measured here.

The parts are `copies`, `sites` and `journey`; without one, all. Tables go into that document and
plots to `docs/pictures`. The exit status is 1 if cost per site is not constant, 2 for a part that
there is not, 3 if something could not be measured.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench import scale_copies, scale_journey, scale_sites
from bench.harness import MeasureError, Reach, here
from bench.scale_report import (
    copies_picture,
    copies_tables,
    journey_table,
    put,
    sites_picture,
    sites_table,
)

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "scaling.md"
PICTURES: Final = DOCUMENT.parent / "pictures"
CONSTANT: Final = Reach("<=", 1.2)
"""The cost of a site among 200 against that among 25, whichever of its costs grew most."""
_FEW: Final = 25


def _say(line: str) -> None:
    print(line, flush=True)


def _copies() -> bool:
    storms = [scale_copies.measured(copies, _say) for copies in scale_copies.COPIES]
    gentle, at_once = [each[0] for each in storms], [each[1] for each in storms]
    put(DOCUMENT, "copies", copies_tables(gentle, at_once))
    (PICTURES / "scale-copies.svg").write_text(copies_picture(gentle, at_once), encoding="utf-8")
    return True


def _sites() -> bool:
    estates = [scale_sites.measured(sites, _say) for sites in scale_sites.SITES]
    put(DOCUMENT, "sites", sites_table(estates))
    (PICTURES / "scale-sites.svg").write_text(sites_picture(estates), encoding="utf-8")
    few = next(each for each in estates if each.sites == _FEW)
    ratio = round(scale_sites.constancy(estates[-1], few), 3)
    _say(f"sites_cost = {ratio}, to reach {CONSTANT}")
    return CONSTANT.holds(ratio)


def _journey() -> bool:
    put(DOCUMENT, "journey", journey_table(scale_journey.measured(_say)))
    return True


PARTS: Final[Mapping[str, Callable[[], bool]]] = {
    "journey": _journey,
    "copies": _copies,
    "sites": _sites,
}


def main(names: list[str]) -> int:
    """The exit status."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.stderr.write(f"There is no part {unknown[0]}; there are: {', '.join(PARTS)}\n")
        return 2
    _say(here())
    try:
        constant = [PARTS[name]() for name in names or PARTS]
    except MeasureError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0 if all(constant) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
