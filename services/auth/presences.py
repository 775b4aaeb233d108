"""Which boot clients are on the bus, as the server tells it: bounded for each machine and image."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

_RESERVED_FOR: Final = 10.0
"""Seconds after which one that was let in and has not come will not come any more."""
_REMEMBERED: Final = 20_000
"""Machines whose network address is remembered."""


class Line(Struct, frozen=True):
    """A connection: its server's id, and its number there."""

    server: str
    number: int


class Bounds(Struct, frozen=True):
    """How many connections there may be.

    A machine that has died leaves one behind until the server misses it, and may boot again at
    once: of a machine's connections the oldest is ended for a new one. Of an image no more are let
    in.
    """

    of_machine: int = 4
    of_image: int = 10_000


class Found(Struct, frozen=True):
    """A connection that was found in a count; ``since`` when it was made."""

    line: Line
    machine: str
    address: str
    since: float


class Presence(Struct):
    """One connection of a boot client; ``image`` is None while nobody has told of it.

    ``since`` is when it was let in or came, in seconds since 1970; ``here`` is whether the server
    has told of it.
    """

    machine: str
    address: str
    image: str | None
    since: float
    here: bool


class Presences:
    """The connections of boot clients, those that are let in and not yet there among them."""

    def __init__(self, bounds: Bounds = Bounds()) -> None:
        self._bounds = bounds
        self._lines: dict[Line, Presence] = {}
        self._machines: defaultdict[str, dict[Line, None]] = defaultdict(dict)
        self._images: defaultdict[str, int] = defaultdict(int)
        self._awaited: dict[Line, None] = {}
        self._gone: set[Line] | None = None
        self._addresses: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._lines) - len(self._awaited)

    def address_of(self, machine: str) -> str | None:
        """From which network address a machine came last, if that is still known."""
        return self._addresses.get(machine)

    def has_room(self, machine: str, image: str) -> bool:
        """Whether one more may be let in."""
        awaited = sum(line in self._awaited for line in self._machines.get(machine, ()))
        return (
            self._images.get(image, 0) < self._bounds.of_image and awaited < self._bounds.of_machine
        )

    def admitted(self, line: Line, machine: str, image: str, address: str, now: float) -> None:
        """One has been let in, here or by another copy; the server may have told of it already."""
        known = self._lines.get(line)
        if known is None:
            self._add(line, Presence(machine, address, image, now, here=False))
            self._awaited[line] = None
        elif known.image is None:
            known.image = image
            self._images[image] += 1

    def came(self, line: Line, machine: str, address: str, now: float) -> list[Line]:
        """The server tells that one is there; which of the machine's are too many, oldest first."""
        known = self._lines.get(line)
        if known is None:
            self._add(line, Presence(machine, address, None, now, here=True))
        else:
            known.here = True
            self._awaited.pop(line, None)
        here = [each for each in self._machines[machine] if each not in self._awaited]
        return here[: max(0, len(here) - self._bounds.of_machine)]

    def went(self, line: Line) -> None:
        """The server tells that one has gone."""
        if self._gone is not None:
            self._gone.add(line)
        self._remove(line)

    def forget_awaited(self, now: float) -> None:
        """Forgets those that were let in and have not come in time."""
        while self._awaited:
            line = next(iter(self._awaited))
            if now - self._lines[line].since < _RESERVED_FOR:
                return
            self._remove(line)

    def begin_count(self) -> None:
        """From now on it is counted who is there; whoever goes meanwhile is not there any more."""
        self._gone = set()

    def counted(self, found: Iterable[Found], began: float) -> list[Line]:
        """Takes what was found in a count that began then; which of them are too many."""
        gone, self._gone = self._gone or set(), None
        seen: set[Line] = set()
        surplus: dict[Line, None] = {}
        for each in found:
            if each.line not in gone:
                seen.add(each.line)
                more = self.came(each.line, each.machine, each.address, each.since)
                surplus |= dict.fromkeys(more)
        lost = [
            line
            for line, each in self._lines.items()
            if each.here and each.since < began and line not in seen
        ]
        for line in lost:
            self._remove(line)
        return [line for line in surplus if line in self._lines]

    def revoked(self, images: Mapping[str, float]) -> list[Line]:
        """The connections of revoked images, told with when each was, in seconds since 1970.

        Where nobody knows the image, since all copies that knew have ended, it may be any of those
        that were revoked after the connection was made.
        """
        latest = max(images.values(), default=0.0)
        return [
            line
            for line, each in self._lines.items()
            if (each.since < latest if each.image is None else each.image in images)
        ]

    def _add(self, line: Line, presence: Presence) -> None:
        self._lines[line] = presence
        self._machines[presence.machine][line] = None
        if presence.image is not None:
            self._images[presence.image] += 1
        self._remember(presence.machine, presence.address)

    def _remove(self, line: Line) -> None:
        presence = self._lines.pop(line, None)
        if presence is None:
            return
        self._awaited.pop(line, None)
        lines = self._machines[presence.machine]
        del lines[line]
        if not lines:
            del self._machines[presence.machine]
        if presence.image is not None:
            self._images[presence.image] -= 1
            if not self._images[presence.image]:
                del self._images[presence.image]

    def _remember(self, machine: str, address: str) -> None:
        self._addresses.pop(machine, None)
        if len(self._addresses) >= _REMEMBERED:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[machine] = address
