"""`python -m bench [FIGURE ...]`: makes all figures, or those named."""

import argparse
import sys
from pathlib import Path
from typing import Final

from bench.harness import as_json, choose, here, make
from bench.runs import runs
from bench.storm import MACHINES

_UNKNOWN: Final = 2


def main(arguments: list[str]) -> int:
    """The exit status: 0 whatever the figures are, 2 for a name that no figure has."""
    asked = _parser().parse_args(arguments)
    known = runs(asked.machines, asked.report)
    try:
        chosen = choose(known, asked.figures)
    except KeyError as error:
        figures = [figure for run in known for figure in run.figures]
        told = "".join(f"\n  {figure.name:26}{figure.about}" for figure in figures)
        sys.stderr.write(f"There is no figure {error}. These there are:{told}\n")
        return _UNKNOWN
    print(here(), flush=True)
    made = make(chosen, lambda line: print(line, flush=True))
    print(as_json(made), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description="Makes figures.")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="all, where none is named")
    parser.add_argument(
        "--machines",
        type=_count,
        default=MACHINES,
        help="machines of the storm; another number than %(default)s is a trial, and says so",
    )
    parser.add_argument(
        "--report",
        type=Path,
        help="where the storm's report goes (HTML); else to a new scratch folder",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("say a number from 1 on")
    return int(text)


sys.exit(main(sys.argv[1:]))
