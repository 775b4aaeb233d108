"""`python -m bench.scale_out [PART ...]`: what `docs/scaling.md` reckons with, measured here.

The parts are `journey`, `copies` and `sites`; without one, all. Tables go into that document, plots
to `docs/pictures`, and what is reckoned with them is reckoned anew, as it is by `reckoning` alone.
`--sites 5,10` tries the part `sites` out, for a third of its time, and writes nothing. The exit
status is 1 if cost per site is not constant, 2 for wrong arguments, 3 if something could not be
measured.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import scale_copies, scale_disk, scale_journey, scale_memory, scale_sites
from bench.harness import MeasureError, Reach, here
from bench.performance import this_machine
from bench.scale_reckoning import reckoned
from bench.scale_report import (
    copies_picture,
    copies_tables,
    journey_table,
    placed,
    sites_picture,
    sites_table,
)

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "scaling.md"
PICTURES: Final = DOCUMENT.parent / "pictures"
CONSTANT: Final = Reach("<=", 1.2)
"""What a site costs among most against what it costs among fewest, whichever cost grew most."""
_TRIAL: Final = scale_sites.WINDOW / 3


def _say(line: str) -> None:
    print(line, flush=True)


def _copies() -> bool:
    began = time.monotonic()
    storms = [scale_copies.measured(copies, _say) for copies in scale_copies.COPIES]
    gentle, at_once = [each[0] for each in storms], [each[1] for each in storms]
    _write("copies", began, copies_tables(gentle, at_once), copies_picture(gentle, at_once))
    return True


def _sites() -> bool:
    began = time.monotonic()
    estates = [scale_sites.measured(sites, _say) for sites in scale_sites.SITES]
    _write("sites", began, sites_table(estates, CONSTANT), sites_picture(estates))
    return _constant(estates)


def _constant(estates: list[scale_sites.Estate]) -> bool:
    ratio = round(max(scale_sites.growth(estates[-1], estates[0]).values()), 3)
    _say(f"sites_cost = {ratio}, to reach {CONSTANT}")
    return CONSTANT.holds(ratio)


def _journey() -> bool:
    began = time.monotonic()
    carried, remembered = scale_journey.measured(_say), scale_memory.measured(_say)
    _write("journey", began, journey_table(carried, remembered, scale_disk.measured(_say)))
    return True


def _write(part: str, began: float, tables: str, picture: str = "") -> None:
    """Puts what was measured into the document, and reckons anew."""
    minutes = max(1, round((time.monotonic() - began) / 60))
    today = datetime.now(UTC).date()
    tables += f"\n\n{this_machine()} Made within {minutes} min, {today}."
    if picture:
        name = f"scale-{part}.svg"
        (PICTURES / name).write_text(picture, encoding="utf-8")
        tables += f"\n\n![{part.capitalize()}](pictures/{name})"
    text = placed(DOCUMENT.read_text(encoding="utf-8"), part, tables)
    DOCUMENT.write_text(text, encoding="utf-8")
    _reckoning()


def _reckoning() -> bool:
    text = DOCUMENT.read_text(encoding="utf-8")
    try:
        DOCUMENT.write_text(placed(text, "reckoning", reckoned(text)), encoding="utf-8")
    except ValueError as error:
        raise MeasureError(f"{DOCUMENT} cannot be reckoned with: {error}") from error
    return True


PARTS: Final[Mapping[str, Callable[[], bool]]] = {
    "journey": _journey,
    "copies": _copies,
    "sites": _sites,
    "reckoning": _reckoning,
}


def main(arguments: list[str]) -> int:
    """The exit status."""
    asked = _parser().parse_args(arguments)
    _say(here())
    try:
        if asked.sites:
            estates = [scale_sites.measured(each, _say, _TRIAL) for each in asked.sites]
            _say(sites_table(estates, CONSTANT))
            constant = [_constant(estates)]
        else:
            constant = [PARTS[name]() for name in asked.parts or PARTS]
    except MeasureError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0 if all(constant) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.scale_out")
    parser.add_argument("parts", nargs="*", metavar="PART", type=_part, help=", ".join(PARTS))
    parser.add_argument("--sites", type=_numbers, help="a trial with so many sites: 5,10")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"there is no part {text}; there are {', '.join(PARTS)}")
    return text


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",") if each.isdecimal() and int(each)]
    if len(numbers) != len(text.split(",")):
        raise argparse.ArgumentTypeError("say numbers from 1 on, such as 5,10")
    return numbers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
