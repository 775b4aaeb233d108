"""What a storm comes to: for programs as JSON, for people as text, and as the report shows it."""

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from bus.messages import Protection
from cli.storm.journeys import Passage
from cli.storm.playing import Ended
from cli.storm.reckoning import Verdict
from cli.storm.tally import STEPS, Histogram, Step, Tally


class Times(Struct, frozen=True, kw_only=True):
    """The times of one step, in seconds; ``at_rest`` is the median of lone journeys."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float
    at_rest: float | None
    p99_to_rest: float | None


class Moment(Struct, frozen=True, kw_only=True):
    """A part of the storm: ``at`` seconds after it began, for as long as a window is wide.

    ``p50`` and ``p99`` are those of each step that ended in it.
    """

    at: float
    arrived: int
    finished: int
    failed: int
    p50: dict[Step, float]
    p99: dict[Step, float]


class Usage(Struct, frozen=True):
    """What a process took: resident bytes and processor seconds so far, ``at`` some second."""

    at: float
    resident: float
    processor: float


class Served(Struct, frozen=True, kw_only=True):
    """What one copy of a service took; bytes and seconds."""

    name: str
    url: str
    resident_before: float
    resident_after: float
    resident_max: float
    processor_seconds: float
    usage: tuple[Usage, ...]


class Probed(Struct, frozen=True, kw_only=True):
    """Seconds from a change in the database to its first sight in a menu; ``unseen`` never came.

    ``left`` is the probe's job where it could not be removed.
    """

    count: int
    unseen: int
    p50: float
    max: float
    left: int | None = None


class Generator(Struct, frozen=True, kw_only=True):
    """What the storm itself took: processor seconds, those of a journey, and resident bytes.

    ``latest`` is the most seconds that a machine set out late since the storm itself lagged: times
    may have been measured as much too long.
    """

    processor_seconds: float
    processor_per_journey: float
    latest: float
    resident: float


class Place(Struct, frozen=True, kw_only=True):
    """Where and with what a storm was made."""

    command: str
    server: str
    site: str
    protection: Protection
    started_at: datetime
    version: str
    python: str
    system: str
    cores: int


class Asked(Struct, frozen=True, kw_only=True):
    """What was asked of the storm."""

    machines: int
    within: float
    at_once: int
    give_up: float
    seed: int
    prefix: str
    known: bool
    item_id: str
    item_title: str
    at_rest: int
    requests_like: str


class Result(Struct, frozen=True, kw_only=True):
    """All of it; times are seconds."""

    place: Place
    asked: Asked
    ended: Ended
    seconds: float
    arrived: int
    scheduled: int
    rejected: int
    failed: int
    not_arrived: int
    throughput: float
    errors: int
    errors_by_code: dict[str, int]
    retries: int
    retries_by_code: dict[str, int]
    held_back: int
    longest_hold: float
    lost: int
    doubled: int
    reckoning: Verdict
    steps: dict[Step, Times]
    generator: Generator
    probe: Probed | None
    services: tuple[Served, ...]
    window: float
    moments: tuple[Moment, ...]

    @property
    def well(self) -> bool:
        """Whether every machine got its jobs exactly once."""
        left = self.probe is not None and self.probe.left is not None
        return self.ended == "finished" and not self.errors and self.reckoning.well and not left


def median_times(passages: Iterable[Passage]) -> dict[Step, float]:
    """The median of each step of these journeys."""
    found: dict[Step, list[float]] = {}
    for passage in passages:
        for step, seconds in passage.times.items():
            found.setdefault(step, []).append(seconds)
    return {step: statistics.median(each) for step, each in found.items()}


def times_of(tally: Tally, at_rest: Mapping[Step, float]) -> dict[Step, Times]:
    """The figures of each step that was made."""
    return {
        step: _times(tally.steps[step], at_rest.get(step)) for step in STEPS if step in tally.steps
    }


def _times(histogram: Histogram, at_rest: float | None) -> Times:
    p99 = histogram.percentile(0.99)
    return Times(
        count=histogram.count,
        p50=histogram.percentile(0.5),
        p95=histogram.percentile(0.95),
        p99=p99,
        max=histogram.max,
        at_rest=at_rest,
        p99_to_rest=p99 / at_rest if at_rest else None,
    )


def moments_of(tally: Tally) -> tuple[Moment, ...]:
    """The course of the storm."""
    return tuple(
        Moment(
            at=float(place * tally.width),
            arrived=window.arrived,
            finished=window.finished,
            failed=window.failed,
            p50={step: each.percentile(0.5) for step, each in window.steps.items()},
            p99={step: each.percentile(0.99) for step, each in window.steps.items()},
        )
        for place, window in enumerate(tally.windows)
    )


def told(result: Result) -> str:
    """What came of it, for people."""
    return "\n".join([*_counts(result), "", *_table(result.steps), "", *_others(result)]) + "\n"


def _counts(result: Result) -> list[str]:
    asked = result.asked
    lines = [
        f"{result.arrived} of {asked.machines} machines arrived within {asked.within:g} s at site "
        f"{result.place.site}; {result.scheduled} were scheduled in {result.seconds:.1f} s, "
        f"{result.throughput:.1f} a second.",
        f"errors {result.errors}, lost {result.lost}, doubled {result.doubled}"
        + ("" if result.reckoning.with_database else " (as the machines were told)")
        + f"; asked again {result.retries} times.",
    ]
    lines += [f"  error    {code}: {count}" for code, count in result.errors_by_code.items()]
    lines += [f"  retry    {code}: {count}" for code, count in result.retries_by_code.items()]
    lines += [f"  wrong    {finding}" for finding in result.reckoning.findings]
    if result.reckoning.unread:
        lines.append(f"The database could not be read in the end: {result.reckoning.unread}")
    if result.ended != "finished":
        why = "the time was up" if result.ended == "gave_up" else "an operator ended it"
        lines.append(f"The storm was cut short: {why}; {result.not_arrived} never arrived.")
    if result.held_back:
        lines.append(
            f"{result.held_back} machines were held back by --at-once {asked.at_once}, for up to "
            f"{result.longest_hold:.1f} s: the storm was slower than asked for."
        )
    return lines


def _table(steps: Mapping[Step, Times]) -> list[str]:
    lines = [f"{'STEP':<9}{'AT REST':>10}{'P50':>10}{'P95':>10}{'P99':>10}{'MAX':>10}  P99/REST"]
    for step, times in steps.items():
        cells = (times.at_rest, times.p50, times.p95, times.p99, times.max)
        lines.append(
            f"{step:<9}"
            + "".join(f"{milliseconds(each):>10}" for each in cells)
            + f"  {ratio(times.p99_to_rest):>8}"
        )
    return lines


def _others(result: Result) -> list[str]:
    generator = result.generator
    lines = [
        f"The storm itself took {milliseconds(generator.processor_per_journey)} of processor time "
        f"a journey and {megabytes(generator.resident)}, and lagged by up to "
        f"{milliseconds(generator.latest)}."
    ]
    lines += [
        f"{each.name}: {megabytes(each.resident_before)} before, "
        f"{megabytes(each.resident_max)} at most, {megabytes(each.resident_after)} after; "
        f"{each.processor_seconds:.1f} s of processor time"
        for each in result.services
    ]
    if result.probe:
        probe = result.probe
        lines.append(
            f"A change in the database was in the menu after {milliseconds(probe.p50)} (median of "
            f"{probe.count}), {milliseconds(probe.max)} at most; {probe.unseen} were not seen."
        )
        if probe.left is not None:
            lines.append(f"The job {probe.left} of the probe could not be removed: do it by hand.")
    lines.append(made(result.asked, result.place.site))
    return lines


def made(asked: Asked, site: str) -> str:
    """How to find, and to use again, what a storm has made."""
    where = (
        f"It made jobs for the computers {asked.prefix}00001 and on"
        if not asked.known
        else "It made jobs for computers of an earlier storm"
    )
    return (
        f"{where} at site {site}: `imageinvoker requests list` shows its requests; in the database "
        f"they are those of ii_request whose request_id is LIKE '{asked.requests_like}'. "
        f"`--known --seed {asked.seed}` sends the same machines again."
    )


def milliseconds(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def ratio(value: float | None) -> str:
    """A ratio as people read it."""
    return "-" if value is None else f"{value:.1f}"


def megabytes(value: float) -> str:
    """Bytes as people read them."""
    return f"{value / 1e6:.0f} MB"
