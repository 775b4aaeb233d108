"""The tables and plots of `docs/scaling.md`. Pure."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.harness import Reach
from bench.scale_copies import AT_ONCE, GENTLE, Stormed, p99
from bench.scale_journey import Carried
from bench.scale_memory import Remembered
from bench.scale_sites import IN_ONE, RATE, Estate, growth
from cli.storm.tally import Step

_STEPS: Final[tuple[Step, ...]] = ("welcome", "login", "menu", "outcome", "journey")
_PARTS: Final = ("menu", "auth", "scheduler", "monitor", "bus", "database", "storm")
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
"""Told apart by the colour-blind too (Okabe and Ito)."""


def copies_tables(gentle: Sequence[Stormed], at_once: Sequence[Stormed]) -> str:
    """What copies bring."""
    return "\n\n".join(
        (
            f"{AT_ONCE[0]:,} machines within {AT_ONCE[1]:g} s, more than this machine can serve:",
            _copies_table(at_once),
            _gain(at_once),
            f"{GENTLE[0]:,} machines within {GENTLE[1]:g} s, which one copy bears:",
            _copies_table(gentle),
        )
    )


def _gain(storms: Sequence[Stormed]) -> str:
    fastest = max(storms, key=lambda each: each.result.throughput)
    gain = fastest.result.throughput / storms[0].result.throughput
    copied = sum(fastest.processor.get(part, 0) for part in ("menu", "auth", "scheduler"))
    return (
        f"Fastest with {fastest.copies} of each, {gain:.2f} times as fast as with "
        f"{storms[0].copies}. Menu, auth and scheduler together then take {1000 * copied:.1f} ms "
        f"of processor a journey: a core's worth of their copies serves {1 / copied:.0f} journeys "
        "a second."
    )


def _copies_table(storms: Sequence[Stormed]) -> str:
    rows: list[list[str]] = [
        ["copies of each", *(str(each.copies) for each in storms)],
        ["journeys a second", *(f"{each.result.throughput:.0f}" for each in storms)],
    ]
    rows += [
        [f"p99 of {step}, ms", *(_milliseconds(p99(each, step)) for each in storms)]
        for step in _STEPS
    ]
    rows += [
        [f"{part}, ms of processor a journey", *(_part(each, part) for each in storms)]
        for part in _PARTS
    ]
    rows += [
        ["all, ms of processor a journey", *(_milliseconds(sum(each.processor.values()))
                                             for each in storms)],
        ["processor idle", *(f"{100 * each.idle:.0f} %" for each in storms)],
        ["flushes of the disk a journey", *(f"{each.flushes:.1f}" for each in storms)],
        ["connections to the database", *(str(each.connections) for each in storms)],
        ["asked again", *(str(each.result.retries) for each in storms)],
        ["errors, lost, doubled", *(_wrong(each) for each in storms)],
    ]  # fmt: skip
    return table(rows)


def _part(stormed: Stormed, part: str) -> str:
    return _milliseconds(stormed.processor.get(part))


def _wrong(stormed: Stormed) -> str:
    result = stormed.result
    return f"{result.errors}, {result.lost}, {result.doubled}"


def sites_table(estates: Sequence[Estate], reach: Reach) -> str:
    """What a site costs among many, and whether that is constant."""
    few, most = estates[0], estates[-1]
    grown = growth(most, few)
    worst = max(grown, key=lambda name: grown[name])
    reached = "reached" if reach.holds(round(grown[worst], 3)) else "**not reached**"
    return "\n\n".join(
        (
            f"The services of {IN_ONE} sites share a process; one journey in {1 / RATE:g} s "
            "through each site.",
            table(_sites_rows(estates)),
            f"`sites_cost` = {grown[worst]:.3f}, to reach {reach}: {reached}. It is the cost that "
            f"grew most from {few.sites} sites to {most.sites}, here the {worst}. The others: "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in grown.items() if name != worst)
            + ".",
        )
    )


def _sites_rows(estates: Sequence[Estate]) -> list[list[str]]:
    rows: list[list[str]] = [["sites", *(str(each.sites) for each in estates)]]

    def row(name: str, values: Iterable[float], digits: int) -> None:
        rows.append([name, *(f"{value:.{digits}f}" for value in values)])

    row("started within, s", (each.started for each in estates), 1)
    row(
        "at rest: services, ms of processor a second and site",
        (1000 * each.at_rest.services / each.sites for each in estates), 2,
    )  # fmt: skip
    row(
        "at rest: bus, ms of processor a second and site",
        (1000 * each.at_rest.bus / each.sites for each in estates), 2,
    )  # fmt: skip
    row(
        "at rest: messages a second and site, in and out",
        (each.at_rest.messages / each.sites for each in estates), 1,
    )  # fmt: skip
    row("services, MB a site", (each.resident / each.sites / 1e6 for each in estates), 1)
    row("bus, MB a site", (each.resident_bus / each.sites / 1e6 for each in estates), 2)
    for name in ("connections", "subscriptions"):
        row(f"{name} a site", (getattr(each.counts, name) / each.sites for each in estates), 1)
    for stream in sorted({name for each in estates for name in each.counts.consumers}):
        found = [each.counts.consumers.get(stream, 0) / each.sites for each in estates]
        if any(found):
            row(f"consumers a site of `{stream}`", found, 1)
    row(
        "a journey: services and bus, ms of processor",
        (1000 * each.processor_of_journey for each in estates), 1,
    )  # fmt: skip
    row(
        "a journey: messages, in and out", (each.messages_of_journey for each in estates), 0,
    )  # fmt: skip
    row("median of a journey, ms", (1000 * each.travelled.p50 for each in estates), 0)
    row("p99 of a journey, ms", (1000 * each.travelled.p99 for each in estates), 0)
    return rows


def journey_table(carried: Carried, remembered: Remembered, fsync: float) -> str:
    """What a journey costs the bus, what that keeps in memory of it, and what the disk takes."""
    kinds = [["messages of a journey", "count", "bytes"]]
    kinds += [
        [kind, f"{count:.1f}", f"{carried.bytes.get(kind, 0):.0f}"]
        for kind, count in carried.messages.items()
        if count >= 0.05
    ]
    counts, sizes = carried.messages.values(), carried.bytes.values()
    kinds.append(["all", f"{sum(counts):.1f}", f"{sum(sizes):.0f}"])
    kept = [["kept of a journey by", "bytes"]]
    kept += [[name, f"{size:.0f}"] for name, size in carried.kept.items()]
    memory = [
        ["the bus keeps in memory of", "bytes"],
        ["an event, for an hour", f"{remembered.event:.0f}"],
        ["a subject more of `IMAGING_EVENTS`", f"{remembered.subject:.0f}"],
    ]
    disk = [["of the disk", "ms"], ["an fsync", f"{1000 * fsync:.2f}"]]
    return "\n\n".join(map(table, (kinds, kept, memory, disk)))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown; the first is its head."""
    head, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join((head, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *others))


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def copies_picture(gentle: Sequence[Stormed], at_once: Sequence[Stormed]) -> str:
    """The same as a plot (SVG)."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rate, wait, cost = figure.subplots(1, 3)
    names = [str(each.copies) for each in at_once]
    rate.bar(names, [each.result.throughput for each in at_once], color=_COLOURS[0])
    rate.set(title="Journeys a second, all at once", xlabel="copies of each service")
    for colour, step in zip(_COLOURS, _STEPS, strict=False):
        times = [1000 * (p99(each, step) or 0) for each in gentle]
        wait.plot(names, times, marker="o", color=colour, label=step)
    wait.set(title="p99 in ms, bearable storm", xlabel="copies of each service", yscale="log")
    wait.legend(fontsize=7)
    below = [0.0] * len(at_once)
    for colour, part in zip(_COLOURS, _PARTS, strict=True):
        heights = [1000 * each.processor.get(part, 0) for each in at_once]
        cost.bar(names, heights, bottom=below, color=colour, label=part)
        below = [low + high for low, high in zip(below, heights, strict=True)]
    cost.set(title="ms of processor a journey", xlabel="copies of each service")
    cost.legend(fontsize=7)
    return _svg(figure)


def sites_picture(estates: Sequence[Estate]) -> str:
    """The same as a plot (SVG)."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    processor, messages, memory = figure.subplots(1, 3)
    sites = [each.sites for each in estates]
    at_rest = [1000 * (each.at_rest.services + each.at_rest.bus) / each.sites for each in estates]
    processor.plot(
        sites, at_rest, marker="o", color=_COLOURS[0], label="a second and site, at rest"
    )
    journey = [1000 * each.processor_of_journey for each in estates]
    processor.plot(sites, journey, marker="o", color=_COLOURS[1], label="a journey")
    sent = [each.at_rest.messages / each.sites for each in estates]
    messages.plot(sites, sent, marker="o", color=_COLOURS[0], label="a second and site, at rest")
    sent = [each.messages_of_journey for each in estates]
    messages.plot(sites, sent, marker="o", color=_COLOURS[1], label="a journey")
    taken = [(each.resident + each.resident_bus) / each.sites / 1e6 for each in estates]
    memory.plot(sites, taken, marker="o", color=_COLOURS[0])
    processor.set(title="ms of processor")
    messages.set(title="messages")
    memory.set(title="MB a site")
    for axes in (processor, messages, memory):
        axes.set(xlabel="sites", ylim=(0, None))
    for axes in (processor, messages):
        axes.legend(fontsize=7)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    picture = io.StringIO()
    # The same measures give the same file.
    with mpl.rc_context({"svg.hashsalt": "imageinvoker"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def placed(text: str, name: str, content: str) -> str:
    """A text with other content between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: there are no such marks.
    """
    place = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    if not place.search(text):
        raise ValueError(f"there is no place for {name}")
    return place.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)
