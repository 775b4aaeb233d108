"""`imageinvoker live`: what each machine is doing now."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

from cyclopts import Parameter

from bus import subjects
from bus.buckets import Mirror, watch
from bus.connection import Connection
from bus.events import one_line
from bus.live import Live, Stage, live_decoder
from bus.messages import encode
from cli.fail import DONE
from cli.running import talk
from cli.target import Address, Target, find

_HEADER: Final = ("MACHINE", "STAGE", "SINCE", "ITEM", "TECHNICIAN")
_WIDTHS: Final = (15, 13, 7, 12, 0)
"""The least characters of each column."""
_COLOURS: Final[dict[Stage, str]] = {
    "rejected": "31",
    "failed": "31",
    "running": "33",
    "finished": "32",
}
_TICK: Final = 1.0
"""Seconds between two pictures of a screen on which nothing else changes than the time."""
_GATHERED: Final = 0.1
"""Seconds for which changes are gathered before they are shown."""
_CLEAR: Final = "\033[H\033[J"
_HIDE_CURSOR: Final = "\033[?25l"
_SHOW_CURSOR: Final = "\033[?25h"


def live(
    *,
    watch: Annotated[bool, Parameter(negative="")] = False,
    stage: Annotated[
        tuple[Stage, ...],
        Parameter(negative="", show_default=False, consume_multiple=True),
    ] = (),
    target: Target | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what each machine is doing now, the latest first; the last two days are kept.

    Examples:

        imageinvoker live

        imageinvoker live --watch

        imageinvoker live --stage running failed --json

    Parameters
    ----------
    watch
        Go on showing what changes, until Ctrl-C.
    stage
        Only machines in these stages.
    json
        For programs: a machine a line, as JSON; with --watch, a line for each change.
    """
    address = find(target)
    view = _View(stage, as_json=json)
    showing = _watch if watch else _once
    try:
        talk(address, lambda connection: showing(connection, address, view))
    except KeyboardInterrupt:
        if not watch:
            raise
    except BrokenPipeError:
        # Whoever read has seen enough; what is left must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


class _View:
    """How entries are shown: as lines of JSON, as lines of text, or as a screen."""

    def __init__(self, stages: Collection[Stage], *, as_json: bool) -> None:
        self._stages = stages
        self._as_json = as_json
        terminal = sys.stdout.isatty()
        self.drawn = terminal and not as_json
        self._coloured = self.drawn and not os.environ.get("NO_COLOR")
        self._shown: Mapping[str, Live] = {}

    def table(self, entries: Mapping[str, Live]) -> None:
        """Everything there is."""
        chosen = self._chosen(entries)
        if chosen and not self._as_json:
            sys.stdout.write("\n".join(self._lines(chosen)) + "\n")
        elif chosen:
            sys.stdout.write("".join(encode(each).decode() + "\n" for each in chosen))
        elif entries:
            stages = " or ".join(self._stages)
            sys.stderr.write(f"No machine is {stages}; without --stage all are shown.\n")
        else:
            sys.stderr.write("No machine has been seen in the last two days.\n")
        sys.stdout.flush()

    def news(self, entries: Mapping[str, Live]) -> None:
        """What is new since the last time, the oldest first."""
        first = not self._shown
        changed = {key: each for key, each in entries.items() if self._shown.get(key) != each}
        self._shown = entries
        chosen = list(reversed(self._chosen(changed)))
        if self._as_json:
            sys.stdout.write("".join(encode(each).decode() + "\n" for each in chosen))
        else:
            header, *lines = self._lines(chosen)
            sys.stdout.write("".join(f"{line}\n" for line in ([header] if first else []) + lines))
        sys.stdout.flush()

    def draw(self, entries: Mapping[str, Live], note: str) -> None:
        """The screen, filled with the latest."""
        size = shutil.get_terminal_size()
        lines = self._lines(self._chosen(entries)[: max(0, size.lines - 3)], size.columns - 1)
        sys.stdout.write(_CLEAR + "\n".join([note[: size.columns - 1], *lines]) + "\n")
        sys.stdout.flush()

    def _chosen(self, entries: Mapping[str, Live]) -> list[Live]:
        found = [
            each for each in entries.values() if not self._stages or each.stage in self._stages
        ]
        return sorted(found, key=lambda each: each.since, reverse=True)

    def _lines(self, entries: Collection[Live], columns: int = 0) -> list[str]:
        now = datetime.now(UTC)
        rows = [
            (_HEADER, ""),
            *((_cells(each, now), _COLOURS.get(each.stage, "")) for each in entries),
        ]
        widths = [
            max(width, *(len(cells[place]) for cells, _ in rows))
            for place, width in enumerate(_WIDTHS)
        ]
        lines = []
        for cells, colour in rows:
            padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
            line = "  ".join(padded).rstrip()
            line = line[:columns] if columns else line
            if self._coloured and colour:
                line = f"\033[{colour}m{line}\033[0m"
            lines.append(line)
        return lines


async def _once(connection: Connection, address: Address, view: _View) -> None:
    states = watch(connection.jetstream(), subjects.LIVE, address.site)
    async with contextlib.aclosing(states):
        async for values in states:
            view.table(_read(values))
            return


async def _watch(connection: Connection, address: Address, view: _View) -> None:
    changed = asyncio.Event()
    entries: dict[str, Live] = {}

    def take(values: Mapping[str, bytes]) -> None:
        nonlocal entries
        entries = _read(values)
        changed.set()

    mirror = Mirror(connection, subjects.LIVE, address.site, take)
    try:
        # Of a bus that keeps no such bucket, a mirror would only go on asking.
        await connection.jetstream().key_value(subjects.LIVE)
        await mirror.start()
        if view.drawn:
            sys.stdout.write(_HIDE_CURSOR)
        while True:
            if view.drawn:
                state = "" if connection.is_connected else "; the line to the bus is down"
                view.draw(entries, f"Site {address.site}: {len(entries)} machines{state}")
            else:
                view.news(entries)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK if view.drawn else None):
                    await changed.wait()
            await asyncio.sleep(_GATHERED)
            changed.clear()
    finally:
        if view.drawn:
            sys.stdout.write(_SHOW_CURSOR)
            sys.stdout.flush()
        await mirror.stop()


def _read(values: Mapping[str, bytes]) -> dict[str, Live]:
    """The entries; what is none, as of a later version, is left out."""
    entries: dict[str, Live] = {}
    for key, value in values.items():
        with contextlib.suppress(ValueError):
            entries[key] = live_decoder.decode(value)
    return entries


def _cells(entry: Live, now: datetime) -> tuple[str, ...]:
    stage: str = entry.stage
    if entry.stage == "running" and entry.jobs:
        stage = f"running {entry.jobs_done or 0}/{entry.jobs}"
    if entry.problem:
        stage = f"{stage} ({one_line(entry.problem)})"
    return (
        one_line(entry.computer.name if entry.computer else entry.machine),
        stage,
        how_long((now - entry.since).total_seconds()),
        one_line(entry.title or entry.item or "-"),
        one_line(entry.technician or "-"),
    )


def how_long(seconds: float) -> str:
    """A time in its two greatest units: `40 s`, `3 min`, `2 h 05`, `1 d 3 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02}" if hours < 24 else f"{hours // 24} d {hours % 24} h"
