"""What every figure is made with.

A figure is nearly always a ratio: what ImageInvoker takes, against a bare program that does the
same work on the same machine. Both sides are measured in one run, in turn (A B A B ...), and the
figure is the median of the ratios of the rounds. So a slow machine, or one that slows down half way
through, changes both sides alike; one round that something else disturbed does not count.

That bears a slow machine, not a busy one: where other programs want the cores, sides that take
unequal shares of them are slowed unequally, and the figure itself moves, in either direction. Look
at the load that is said first and at the range in brackets; where either is high, end what else
runs and measure again, and believe no figure that does not come twice. Seconds and rates are shown
to be understood, never to be compared between machines.
"""

import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

Say = Callable[[str], None]
"""Takes one line of what is being measured, as it is measured."""

_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
}


class MeasureError(Exception):
    """A figure cannot be made here; the text says what is missing or what went wrong."""


@dataclass(frozen=True)
class Reach:
    """How far a figure is to reach, such as ``<= 2``."""

    sign: Literal["<", "<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether a figure of this value reaches as far."""
        return _HOLDS[self.sign](value, self.limit)


@dataclass(frozen=True)
class Figure:
    """One figure: ``make`` measures it and returns its value, and says on the way what it sees."""

    name: str
    about: str
    reach: Reach
    make: Callable[[Say], float]


@dataclass(frozen=True)
class Made:
    """A figure that was made; without a value when it could not be."""

    figure: Figure
    value: float | None

    @property
    def ok(self) -> bool:
        """Whether it reaches as far as it is to; as it is printed, so that a reader can check."""
        return self.value is not None and self.figure.reach.holds(self.value)


@dataclass
class Rounds:
    """The rounds of one comparison, each said as it is made; ``unit`` shows one side's measure."""

    say: Say
    first: str
    second: str
    unit: Callable[[float], str]
    ratios: list[float] = field(default_factory=list)

    def add(self, first: float, second: float) -> None:
        """One round: what each side took."""
        self.ratios.append(first / second)
        self.say(
            f"round {len(self.ratios):2}   {self.first} {self.unit(first)}   "
            f"{self.second} {self.unit(second)}   ratio {self.ratios[-1]:.3f}"
        )

    def median(self) -> float:
        """The median of the ratios of the first side to the second.

        Raises:
            MeasureError: there was no round.
        """
        return middle(self.say, f"{self.first} / {self.second}", self.ratios)


def middle(say: Say, what: str, values: Iterable[float], digits: int = 3) -> float:
    """The median of some measures, said with the range they lie in.

    Raises:
        MeasureError: there are no measures.
    """
    found = sorted(values)
    if not found:
        raise MeasureError(f"{what} was not measured")
    median = statistics.median(found)
    say(
        f"{what}: median {median:.{digits}f} ({found[0]:.{digits}f} to {found[-1]:.{digits}f}, "
        f"{len(found)} rounds)"
    )
    return median


def share(values: list[float], part: float) -> float:
    """The least of the values that ``part`` of them (0 to 1) do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(part * len(ordered)) - 1))]


def milliseconds(seconds: float) -> str:
    """Seconds as a person reads short times."""
    return f"{seconds * 1000:.1f} ms"


def per_second(rate: float) -> str:
    """A rate as a person reads it."""
    return f"{rate:,.0f}/s"


def surroundings(load: float, cores: int) -> str:
    """What is to be known of the machine before anything is measured on it.

    ``load`` is the number of programs that have wanted a core on average, in the last minute.
    """
    text = f"{cores} cores, load {load:.1f}"
    if load > cores / 4:
        text += ": OTHER PROGRAMS ARE AT WORK, so the figures may be wrong in either direction"
    return text


def here() -> str:
    """The surroundings of this machine, now."""
    return surroundings(os.getloadavg()[0], len(os.sched_getaffinity(0)))


def make(figures: Iterable[Figure], say: Say) -> list[Made]:
    """Makes figures one after the other; one that cannot be made does not keep the others back."""
    made: list[Made] = []
    for figure in figures:
        say(f"{figure.name}: {figure.about}")
        value: float | None = None
        try:
            value = round(figure.make(lambda line: say(f"    {line}")), 3)
        except MeasureError as error:
            say(f"    cannot be made: {error}")
        except Exception:  # noqa: BLE001 (whatever it is, the other figures are still wanted)
            say("    cannot be made:")
            traceback.print_exc(file=sys.stdout)
        made.append(Made(figure, value))
        verdict = "ok" if made[-1].ok else "FALLS SHORT"
        say(f"    {figure.name} = {value}, to reach {figure.reach}: {verdict}")
    return made


def as_json(made: Iterable[Made]) -> str:
    """All figures on one line, for programs."""
    return json.dumps(
        {
            each.figure.name: {
                "value": each.value,
                "reach": str(each.figure.reach),
                "ok": each.ok,
            }
            for each in made
        }
    )


def choose(figures: Iterable[Figure], names: Iterable[str]) -> list[Figure]:
    """The figures of these names, in the order they are made; without names all of them.

    Raises:
        KeyError: there is no figure of a name.
    """
    known = {figure.name: figure for figure in figures}
    wanted = list(names) or list(known)
    for name in wanted:
        if name not in known:
            raise KeyError(name)
    return [figure for figure in known.values() if figure.name in wanted]
