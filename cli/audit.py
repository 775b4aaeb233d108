"""`imageinvoker audit`: who did what, at which machine, and when."""

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from bus.connection import Connection
from bus.events import Detail, Event, Kind, one_line, read
from bus.machines import normal_uuid
from bus.messages import encode
from bus.technicians import folded
from cli.fail import DONE, WrongUseError
from cli.moments import moment
from cli.running import talk
from cli.target import Address, Target, find

Wanted = Literal[Kind, "visits", "logins", "requests", "jobs", "changes"]

GROUPS: Final[dict[str, tuple[Kind, ...]]] = {
    "visits": ("portal_opened", "menu_shown"),
    "logins": (
        "login_succeeded",
        "login_failed",
        "login_locked",
        "login_unlocked",
        "session_refused",
    ),
    "requests": (
        "request_accepted",
        "request_refused",
        "request_rejected",
        "computer_created",
        "computer_renamed",
        "jobs_replaced",
        "jobs_scheduled",
    ),
    "jobs": ("job_started", "job_finished", "job_failed", "deployment_finished"),
    "changes": ("option_changed", "access_changed", "account_changed"),
}
"""Kinds of events that are asked for together."""

_HEADER: Final = ("TIME", "KIND", "WHO", "MACHINE", "DETAILS")
_WIDTHS: Final = (19, 16, 12, 15, 0)
"""The least characters of each column; what comes later has no say in it."""
_RED: Final = frozenset(
    {"login_failed", "login_locked", "session_refused", "request_refused", "request_rejected"}
)
_MACHINE_KEY: Final = re.compile(r"[0-9a-f]{32}|sn[0-9a-f]{16}|mac[0-9a-f]{12}")
_YELLOW: Final = frozenset(GROUPS["changes"])


class Filter(Struct, frozen=True, kw_only=True):
    """Which events are asked for."""

    who: str | None
    kinds: tuple[Kind, ...]
    since: datetime
    until: datetime | None

    def lets_through(self, event: Event) -> bool:
        """Whether it is one of them; the kinds and the start are the bus's business."""
        if self.until is not None and event.at >= self.until:
            return False
        return self.who is None or any(
            _is_called(name, self.who) for name in (event.technician, event.operator) if name
        )


def audit(
    *,
    who: str | None = None,
    machine: str | None = None,
    kind: Annotated[
        tuple[Wanted, ...],
        Parameter(negative="", show_default=False, consume_multiple=True),
    ] = (),
    since: str = "24h",
    until: str | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    follow: Annotated[bool, Parameter(negative="")] = False,
    target: Target | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show who did what, at which machine, and when; the newest last.

    Examples:

        imageinvoker audit

        imageinvoker audit --who alice --since 3d

        imageinvoker audit --kind logins changes --since 2026-11-01 --until 2026-11-08

        imageinvoker audit --machine LAB-01 --follow

    Parameters
    ----------
    who
        Only what this technician or operator did: a name, DOMAIN\\name, user@host.
    machine
        Only what happened at this machine: its key or UUID, or its computer's name.
    kind
        Only these kinds of events: names of kinds, or visits, logins, requests, jobs
        or changes; else logins, requests and changes.
    since
        From when on: 2h, 3d, 2026-11-01 or 2026-11-01T08:00 (local time).
    until
        Up to when, likewise.
    limit
        At most so many, the newest.
    follow
        Go on with what happens from now on, until Ctrl-C.
    json
        For programs: an event a line, as JSON.
    """
    now = datetime.now(UTC)
    asked = Filter(
        who=who,
        kinds=_kinds(kind),
        since=_moment("--since", since, now),
        until=None if until is None else _moment("--until", until, now),
    )
    if asked.until is not None and follow:
        raise WrongUseError("--follow goes on for ever; it has no --until.")
    if asked.until is not None and asked.until <= asked.since:
        raise WrongUseError("--until must be later than --since.")
    address = find(target)
    page = Page(limit, as_json=json)
    try:
        talk(address, lambda connection: _show(connection, address, asked, machine, page, follow))
    except KeyboardInterrupt:
        if not follow:
            raise
    except BrokenPipeError:
        # Whoever read has seen enough; what is left must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if page.empty and not follow:
        start = asked.since.astimezone().strftime("%Y-%m-%d %H:%M")
        sys.stderr.write(f"Nothing of that kind has been kept since {start}.\n")
    return DONE


class Page:
    """What is shown: first the newest of what was kept, then each event as it comes."""

    def __init__(self, limit: int, *, as_json: bool) -> None:
        self.empty = False
        """Whether nothing was there when all of it had been read."""
        self._as_json = as_json
        self._newest: deque[Event] = deque(maxlen=limit)
        self._seen = 0
        self._live = False
        self._widths: Sequence[int] = ()
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def add(self, event: Event) -> None:
        """Takes the next event."""
        if self._live:
            self._write([event])
        else:
            self._newest.append(event)
            self._seen += 1

    def caught_up(self) -> None:
        """Shows the newest; whatever is added from now on is shown at once."""
        self._live = True
        self.empty = not self._newest
        rows = [_cells(event) for event in self._newest]
        columns = zip(_WIDTHS, _HEADER, *rows, strict=True)
        self._widths = [max(width, *map(len, cells)) for width, *cells in columns]
        if not self._as_json and (rows or sys.stdout.isatty()):
            self._line(_HEADER, "")
        self._write(self._newest)
        if earlier := self._seen - len(self._newest):
            sys.stderr.write(f"{earlier} earlier ones are not shown; --limit shows more.\n")
        self._newest.clear()

    def _write(self, events: Collection[Event]) -> None:
        for event in events:
            if self._as_json:
                sys.stdout.write(encode(event).decode() + "\n")
            else:
                self._line(_cells(event), event.kind)
        sys.stdout.flush()

    def _line(self, cells: Sequence[str], kind: str) -> None:
        padded = [f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=True)]
        colour = "31" if kind in _RED else "33" if kind in _YELLOW else ""
        if self._coloured and colour:
            padded[1] = f"\033[{colour}m{padded[1]}\033[0m"
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


async def _show(
    connection: Connection,
    address: Address,
    asked: Filter,
    machine: str | None,
    page: Page,
    follow: bool,
) -> None:
    machines: Collection[str] = ()
    if machine is not None:
        machines = await _machines(connection, address, machine)
        if not machines:
            sys.stderr.write(
                f"Nothing is known of a machine {machine!r}: give its key, its UUID or the name of "
                "a computer that was asked for.\n"
            )
            return
    events = read(
        connection,
        address.site,
        since=asked.since,
        machines=machines,
        kinds=asked.kinds,
        follow=follow,
        caught_up=page.caught_up,
    )
    async with contextlib.aclosing(events):
        async for event in events:
            if asked.lets_through(event):
                page.add(event)


async def _machines(connection: Connection, address: Address, told: str) -> set[str]:
    """The keys of the machines that are meant: one that is told, or those of a computer."""
    key = normal_uuid(told) or told.strip().lower()
    if _MACHINE_KEY.fullmatch(key):
        return {key}
    found: set[str] = set()
    # At a sign-in nobody knows the computer yet, so its events are found by the machine.
    events = read(connection, address.site, kinds=GROUPS["requests"])
    async with contextlib.aclosing(events):
        async for event in events:
            if event.computer and folded(event.computer.name) == folded(told):
                found.add(event.machine)
    return found


def _kinds(wanted: Sequence[Wanted]) -> tuple[Kind, ...]:
    wanted = wanted or ("logins", "requests", "changes")
    kinds: dict[Kind, None] = {}
    for each in wanted:
        match each:
            case "visits" | "logins" | "requests" | "jobs" | "changes":
                kinds |= dict.fromkeys(GROUPS[each])
            case _:
                kinds[each] = None
    return tuple(kinds)


def _moment(option: str, text: str, now: datetime) -> datetime:
    try:
        return moment(text, now)
    except ValueError as error:
        raise WrongUseError(f"{option}: {error}.") from error


def _is_called(name: str, wanted: str) -> bool:
    """Whether a name is the one asked for, which may leave out the domain, realm or host."""
    name, wanted = folded(name), folded(wanted)
    bare = name.rpartition("\\")[2].partition("@")[0]
    return wanted in {name, bare}


def _cells(event: Event) -> tuple[str, ...]:
    """An event as a row; made printable once more, for anybody may have written it."""
    details = " ".join(
        f"{name}={_shown(value)}" for name, value in event.details.items() if value is not None
    )
    return (
        event.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        event.kind,
        one_line(event.technician or event.operator or "-"),
        one_line(event.computer.name if event.computer else event.machine),
        details,
    )


def _shown(value: Detail) -> str:
    match value:
        case str():
            line = one_line(value)
            return line if line and " " not in line else f'"{line}"'
        case list():
            return ",".join(_shown(each) for each in value) or "none"
    return encode(value).decode()
