"""Events as an operator reads them: which ones are asked for, and the page they are shown on."""

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from bus.connection import Connection
from bus.event_stream import read
from bus.events import Detail, Event, Kind, one_line
from bus.machines import normal_uuid
from bus.messages import encode
from bus.technicians import folded
from cli.fail import WrongUseError
from cli.moments import moment
from cli.running import talk
from cli.target import Address

Wanted = Literal[Kind, "visits", "logins", "requests", "jobs", "changes"]

GROUPS: Final[dict[str, tuple[Kind, ...]]] = {
    "visits": ("portal_opened", "menu_shown"),
    "logins": (
        "login_succeeded",
        "login_failed",
        "login_locked",
        "login_unlocked",
        "session_refused",
        "connection_refused",
    ),
    "requests": (
        "request_accepted",
        "request_refused",
        "request_rejected",
        "request_replayed",
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
    {
        "login_failed",
        "login_locked",
        "session_refused",
        "connection_refused",
        "request_refused",
        "request_rejected",
        "job_failed",
    }
)
_MACHINE_KEY: Final = re.compile(r"[0-9a-f]{32}|sn[0-9a-f]{16}|mac[0-9a-f]{12}")
_YELLOW: Final = frozenset(GROUPS["changes"])


class Asked(Struct, frozen=True, kw_only=True):
    """Which events are asked for, from when on, and whether to go on with what comes."""

    since: datetime
    kinds: tuple[Kind, ...] = ()
    machine: str | None = None
    follow: bool = False


class Page:
    """What is shown: first the newest of what was kept, then each event as it comes."""

    def __init__(self, limit: int, *, as_json: bool, counts_earlier: bool = True) -> None:
        self.empty = False
        """Whether nothing was there when all of it had been read."""
        self._as_json = as_json
        self._counts_earlier = counts_earlier
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
        rows = [event_cells(event) for event in self._newest]
        columns = zip(_WIDTHS, _HEADER, *rows, strict=True)
        self._widths = [max(width, *map(len, cells)) for width, *cells in columns]
        if not self._as_json and (rows or sys.stdout.isatty()):
            self._line(_HEADER, "")
        self._write(self._newest)
        earlier = self._seen - len(self._newest)
        if earlier and self._counts_earlier:
            sys.stderr.write(f"{earlier} earlier ones are not shown; --limit shows more.\n")
        self._newest.clear()

    def _write(self, events: Collection[Event]) -> None:
        for event in events:
            if self._as_json:
                sys.stdout.write(encode(event).decode() + "\n")
            else:
                self._line(event_cells(event), event.kind)
        sys.stdout.flush()

    def _line(self, cells: Sequence[str], kind: str) -> None:
        padded = [f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=True)]
        colour = "31" if kind in _RED else "33" if kind in _YELLOW else ""
        if self._coloured and colour:
            padded[1] = f"\033[{colour}m{padded[1]}\033[0m"
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


@contextlib.contextmanager
def written_for_readers() -> Iterator[None]:
    """Lets whoever reads our standard output go away before its end, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(
    address: Address,
    asked: Asked,
    page: Page,
    lets_through: Callable[[Event], bool] = lambda _event: True,
) -> None:
    """Fills a page with events; who follows ends it with Ctrl-C, whoever reads by going away.

    Raises:
        NoServerError: there is no bus, or it keeps no events.
    """
    try:
        with written_for_readers():
            talk(address, lambda connection: _fill(connection, address, asked, page, lets_through))
    except KeyboardInterrupt:
        if not asked.follow:
            raise
    if page.empty and not asked.follow:
        start = asked.since.astimezone().strftime("%Y-%m-%d %H:%M")
        sys.stderr.write(f"Nothing of that kind has been kept since {start}.\n")


async def _fill(
    connection: Connection,
    address: Address,
    asked: Asked,
    page: Page,
    lets_through: Callable[[Event], bool],
) -> None:
    machines: Collection[str] = ()
    if asked.machine is not None:
        machines = await machines_of(connection, address.site, asked.machine)
        if not machines:
            sys.stderr.write(unknown_machine(asked.machine))
            return
    events = read(
        connection,
        address.site,
        since=asked.since,
        machines=machines,
        kinds=asked.kinds,
        follow=asked.follow,
        caught_up=page.caught_up,
    )
    async with contextlib.aclosing(events):
        async for event in events:
            if lets_through(event):
                page.add(event)


def unknown_machine(told: str) -> str:
    """What is said of a machine that nothing is known of."""
    return (
        f"Nothing is known of a machine {told!r}: give its key, its UUID or the name of "
        "a computer that was asked for.\n"
    )


async def machines_of(connection: Connection, site: str, told: str) -> set[str]:
    """The keys of the machines that are meant: one that is told, or those of a computer."""
    key = normal_uuid(told) or told.strip().lower()
    if _MACHINE_KEY.fullmatch(key):
        return {key}
    found: set[str] = set()
    # At a sign-in nobody knows the computer yet, so its events are found by the machine.
    events = read(connection, site, kinds=GROUPS["requests"])
    async with contextlib.aclosing(events):
        async for event in events:
            if event.computer and folded(event.computer.name) == folded(told):
                found.add(event.machine)
    return found


def kinds_of(wanted: Sequence[Wanted]) -> tuple[Kind, ...]:
    """The kinds that are meant by names of kinds and of groups."""
    kinds: dict[Kind, None] = {}
    for each in wanted:
        match each:
            case "visits" | "logins" | "requests" | "jobs" | "changes":
                kinds |= dict.fromkeys(GROUPS[each])
            case _:
                kinds[each] = None
    return tuple(kinds)


def told_moment(option: str, text: str, now: datetime) -> datetime:
    """The moment that an option names.

    Raises:
        WrongUseError: it is none.
    """
    try:
        return moment(text, now)
    except ValueError as error:
        raise WrongUseError(f"{option}: {error}.") from error


def is_called(name: str, wanted: str) -> bool:
    """Whether a name is the one asked for, which may leave out the domain, realm or host."""
    name, wanted = folded(name), folded(wanted)
    bare = name.rpartition("\\")[2].partition("@")[0]
    return wanted in {name, bare}


def event_line(event: Event) -> str:
    """An event as a line of its own."""
    cells = zip(event_cells(event), _WIDTHS, strict=True)
    return "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()


def event_cells(event: Event) -> tuple[str, ...]:
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
