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
from collections.abc import Callable, Iterable, Mapping
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
    """One figure, and how far it is to reach.

    ``trial`` says of what size it is made where that is not the size that the reach is for.
    """

    name: str
    about: str
    reach: Reach
    trial: str = ""


@dataclass(frozen=True)
class Run:
    """One measuring: what it returns are the values of its figures by name.

    It says on the way what it sees. A figure whose value it leaves out could not be made.
    """

    figures: tuple[Figure, ...]
    measure: Callable[[Say], Mapping[str, float]]


def one_figure(name: str, about: str, reach: Reach, make: Callable[[Say], float]) -> Run:
    """A measuring that makes one figure."""
    return Run((Figure(name, about, reach),), lambda say: {name: make(say)})


@dataclass(frozen=True)
class Made:
    """A figure that was made; without a value when it could not be."""

    figure: Figure
    value: float | None

    @property
    def ok(self) -> bool:
        """Whether it reaches as far as it is to; as it is printed, so that a reader can check.

        A trial of another size reaches nothing.
        """
        if self.value is None or self.figure.trial:
            return False
        return self.figure.reach.holds(self.value)

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.figure.trial:
            return f"A TRIAL ({self.figure.trial}), which shows nothing"
        return "ok" if self.ok else "FALLS SHORT"


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


def microseconds(seconds: float) -> str:
    """Seconds as a person reads very short times."""
    return f"{seconds * 1_000_000:.1f} µs"


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


def make(runs: Iterable[Run], say: Say) -> list[Made]:
    """Makes figures, run after run; one that cannot be made does not keep the others back."""
    made: list[Made] = []
    for run in runs:
        for figure in run.figures:
            say(f"{figure.name}: {figure.about}")
        values: Mapping[str, float] = {}
        try:
            values = run.measure(lambda line: say(f"    {line}"))
        except MeasureError as error:
            say(f"    cannot be made: {error}")
        except Exception:  # noqa: BLE001 (whatever it is, the other figures are still wanted)
            say("    cannot be made:")
            traceback.print_exc(file=sys.stdout)
        for figure in run.figures:
            value = values.get(figure.name)
            one = Made(figure, None if value is None else round(value, 3))
            say(f"    {figure.name} = {one.value}, to reach {figure.reach}: {one.verdict}")
            made.append(one)
    return made


def as_json(made: Iterable[Made]) -> str:
    """All figures on one line, for programs; ``trial`` stands only where it is one."""
    return json.dumps({each.figure.name: _told(each) for each in made})


def _told(made: Made) -> dict[str, object]:
    told: dict[str, object] = {
        "value": made.value,
        "reach": str(made.figure.reach),
        "ok": made.ok,
    }
    return told | {"trial": made.figure.trial} if made.figure.trial else told


def choose(runs: Iterable[Run], names: Iterable[str]) -> list[Run]:
    """The runs that make the figures of these names, in their own order; without names all.

    What else such a run makes comes with it.

    Raises:
        KeyError: there is no figure of a name.
    """
    known = list(runs)
    of_name = {figure.name: run for run in known for figure in run.figures}
    wanted = [of_name[name] for name in names] or known
    return [run for run in known if run in wanted]
