"""The report of a storm: one HTML file with plots that needs no network."""

import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cli.storm.results import Result, made, megabytes, milliseconds, ratio
from cli.storm.tally import MEANING, STEPS

_INK: Final = "#010203"
"""Stands in the plots for the colour of text, which differs between light and dark."""
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
"""Told apart by the colour-blind too, on white and on black (Okabe and Ito)."""
_LEAST_SPAN: Final = 0.5
"""Seconds of which a share of a processor can be told: its time is counted in hundredths."""
_ID: Final = re.compile(r'(id="|url\(#|href="#)')

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8885; --good: #00803e; --bad: #c2301a; }
@media (prefers-color-scheme: dark) { :root { --good: #4ad295; --bad: #ff8068; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.text td { text-align: left; } .text td:first-child { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .good, .bad { font-weight: 600; }
.scroll { overflow-x: auto; } svg { width: 100%; height: auto; } code { word-break: break-word; }
"""


def write(result: Result, file: Path) -> None:
    """Writes the report, all of it or nothing.

    Raises:
        OSError: it cannot be written there.
    """
    draft = file.with_name(file.name + ".new")
    draft.write_text(page(result), encoding="utf-8")
    draft.replace(file)


def page(result: Result) -> str:
    """The whole report."""
    place = result.place
    title = f"A storm of {result.asked.machines:,} machines at site {place.site}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{place.started_at:%Y-%m-%d %H:%M:%S} UTC, <code>{_text(place.command)}</code></p>",
        _verdict(result),
        "<h2>Figures</h2>",
        _rows(_figures(result)),
        "<h2>Times of each step</h2>",
        _times(result),
        "<h2>Course</h2>",
        _svg("course", _course(result)),
        _svg("steps", _steps(result)),
        "<h2>Services</h2>" if result.services else "",
        _services(result),
        _svg("services", _usage(result)) if result.services else "",
        "<h2>Where and with what</h2>",
        _rows(_where(result)),
        f"<p>{_text(made(result.asked, place.site))}</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n"
    )


def _text(text: object) -> str:
    return html.escape(str(text))


def _verdict(result: Result) -> str:
    if result.well:
        return '<p class="good">Every machine got its jobs exactly once.</p>'
    wrong = [f"{result.errors} errors", f"{result.lost} lost", f"{result.doubled} doubled"]
    if result.ended != "finished":
        wrong.append("cut short")
    lines = [
        *(f"{count} machines: {code}" for code, count in result.errors_by_code.items()),
        *result.reckoning.findings,
    ]
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<p class="bad">Not all is well: {_text(", ".join(wrong))}.</p><ul>{items}</ul>'


def _figures(result: Result) -> Iterable[tuple[str, str]]:
    asked = result.asked
    yield "arrived", f"{result.arrived:,} of {asked.machines:,} within {asked.within:g} s"
    yield "scheduled", f"{result.scheduled:,} in {result.seconds:.1f} s"
    yield "throughput", f"{result.throughput:.1f} journeys a second"
    yield "errors, lost, doubled", f"{result.errors}, {result.lost}, {result.doubled}"
    how = "by the deployment server's database" if result.reckoning.with_database else "as told"
    yield "reckoned", how
    retries = ", ".join(f"{code} {count}" for code, count in result.retries_by_code.items())
    yield "asked again", f"{result.retries} times" + (f" ({retries})" if retries else "")
    yield "held back", f"{result.held_back}, for up to {milliseconds(result.longest_hold)}"
    if result.probe:
        probe = result.probe
        yield (
            "change in the database to change in the next menu",
            f"{milliseconds(probe.p50)} (median of {probe.count}), {milliseconds(probe.max)} at "
            f"most, {probe.unseen} not seen",
        )
    generator = result.generator
    yield (
        "the storm itself",
        f"{milliseconds(generator.processor_per_journey)} of processor time a journey, "
        f"{megabytes(generator.resident)}, lagged by up to {milliseconds(generator.latest)}",
    )


def _where(result: Result) -> Iterable[tuple[str, str]]:
    place, asked = result.place, result.asked
    yield "site", f"{place.site}, {place.server}, protection {place.protection}"
    yield "item", f"{asked.item_title} ({asked.item_id})"
    known = ", known from an earlier storm" if asked.known else ""
    yield "machines", f"seed {asked.seed}, prefix {asked.prefix}{known}"
    yield "bounds", f"{asked.at_once:,} at a time, {asked.give_up:g} s"
    yield "ImageInvoker", place.version
    yield "measured on", f"{place.cores} cores, Python {place.python}, {place.system}"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{_text(name)}</td><td>{_text(is_)}</td></tr>" for name, is_ in rows)
    return f'<table class="text">{cells}</table>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _times(result: Result) -> str:
    header = ("step", "at rest", "p50", "p95", "p99", "max", "p99 / at rest", "count")
    rows = (
        (
            f"{step}: {MEANING[step]}",
            *map(milliseconds, (each.at_rest, each.p50, each.p95, each.p99, each.max)),
            ratio(each.p99_to_rest),
            f"{each.count:,}",
        )
        for step, each in result.steps.items()
    )
    note = (
        f"<p>At rest is the median of {result.asked.at_rest} lone journeys before the storm. "
        "Percentiles are within 1 % of the true ones; the maximum is exact.</p>"
    )
    return _table(header, rows) + note


def _services(result: Result) -> str:
    if not result.services:
        return ""
    header = ("copy", "memory before", "at most", "after", "processor seconds", "a journey")
    ended = max(1, result.scheduled + result.rejected + result.failed)
    return _table(
        header,
        (
            (
                each.name,
                *map(megabytes, (each.resident_before, each.resident_max, each.resident_after)),
                f"{each.processor_seconds:.2f}",
                milliseconds(each.processor_seconds / ended),
            )
            for each in result.services
        ),
    )


def _course(result: Result) -> Callable[[], Figure]:
    def draw() -> Figure:
        figure, (axes,) = _figure(1, 1, 2.8)
        at = [moment.at + result.window / 2 for moment in result.moments]
        for label, values, colour in (
            ("arrived", [moment.arrived for moment in result.moments], _COLOURS[0]),
            ("scheduled", [moment.finished for moment in result.moments], _COLOURS[2]),
            ("failed", [moment.failed for moment in result.moments], _COLOURS[1]),
        ):
            axes.plot(at, [value / result.window for value in values], color=colour, label=label)
        _dress(axes, "Machines a second")
        axes.set_ylim(bottom=0)
        _legend(axes)
        return figure

    return draw


def _steps(result: Result) -> Callable[[], Figure]:
    def draw() -> Figure:
        steps = [step for step in STEPS if step in result.steps]
        figure, all_axes = _figure(len(steps), 2, 2.1)
        for step, axes in zip(steps, all_axes, strict=True):
            seen = [moment for moment in result.moments if step in moment.p50]
            at = [moment.at + result.window / 2 for moment in seen]
            p50 = [moment.p50[step] * 1000 for moment in seen]
            p99 = [moment.p99[step] * 1000 for moment in seen]
            axes.plot(at, p99, color=_COLOURS[1], label="p99")
            axes.plot(at, p50, color=_COLOURS[0], label="p50")
            rest = result.steps[step].at_rest
            if rest:
                axes.axhline(rest * 1000, color=_COLOURS[6], linestyle=":", label="at rest")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            _dress(axes, f"{step}, ms")
        _legend(all_axes[0])
        return figure

    return draw


def _usage(result: Result) -> Callable[[], Figure]:
    def draw() -> Figure:
        figure, (memory, processor) = _figure(2, 2, 3.0)
        for place, copy in enumerate(result.services):
            colour = _COLOURS[place % len(_COLOURS)]
            at = [each.at for each in copy.usage]
            memory.plot(
                at, [each.resident / 1e6 for each in copy.usage], color=colour, label=copy.name
            )
            shares = [
                (later.at, (later.processor - former.processor) / (later.at - former.at) * 100)
                for former, later in zip(copy.usage, copy.usage[1:], strict=False)
                if later.at - former.at >= _LEAST_SPAN
            ]
            ends = [at for at, _ in shares]
            processor.plot(ends, [each for _, each in shares], color=colour, label=copy.name)
        _dress(memory, "Resident memory, MB")
        _dress(processor, "Processor, % of a core")
        for axes in (memory, processor):
            axes.set_ylim(bottom=0)
        _legend(memory)
        return figure

    return draw


def _figure(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(9.6, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("seconds of the storm", fontsize=8)
    axes.grid(visible=True, color=_COLOURS[6], alpha=0.25)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
    )


def _svg(name: str, draw: Callable[[], Figure]) -> str:
    """The plot as it stands in the page; its ids begin with ``name``, since those must differ."""
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    ):
        drawn = io.StringIO()
        draw().savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return _ID.sub(rf"\g<1>{name}-", svg)
