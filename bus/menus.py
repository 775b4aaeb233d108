"""How a menu travels that is too large for one message: packed, in parts.

A client that knows of parts asks for part 1. A menu of moderate size comes whole all the same, any
other in parts that are told by headers: ``Imaging-Part: 1/3`` and ``Imaging-Version``, which stands
for the very bytes that are divided. The other parts are asked for by number and version. Whoever
has that version no more answers with part 1 of what there is instead, or with a whole menu.
"""

import re
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from bus.connection import BusUnavailableError, Connection, ask_reading
from bus.contract import SHOW
from bus.messages import Menu, ShowMenu

PART: Final = 512 * 1024
"""Most bytes of a part, and of a menu that comes whole to a client that knows of parts."""
PART_HEADER: Final = "Imaging-Part"
"""Which part it is, and of how many: ``2/3``."""
VERSION_HEADER: Final = "Imaging-Version"
"""What the parts are parts of."""
STALE_HEADER: Final = "Imaging-Stale"
"""``true`` where the menu may be out of date, whatever its own ``stale`` says."""

_LARGEST: Final = 256 * 1024 * 1024
"""Bytes that a menu may have when it is unpacked."""
_RESTARTS: Final = 20
_DIVISION: Final = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})\Z")


class Division(Struct, frozen=True):
    """Which part of what an answer is."""

    number: int
    count: int
    version: str
    stale: bool = False

    def headers(self) -> dict[str, str]:
        """The headers of this part."""
        told = {PART_HEADER: f"{self.number}/{self.count}", VERSION_HEADER: self.version}
        return told | {STALE_HEADER: "true"} if self.stale else told


def division(headers: Mapping[str, str] | None) -> Division | None:
    """What the headers of an answer say; None for a menu that is whole.

    Raises:
        ValueError: they contradict themselves.
    """
    if not headers or PART_HEADER not in headers:
        return None
    found = _DIVISION.match(headers[PART_HEADER])
    number, count = (int(found[1]), int(found[2])) if found else (1, 0)
    version = headers.get(VERSION_HEADER, "")
    if number > count or not version:
        raise ValueError("these are no headers of a part")
    return Division(number, count, version, headers.get(STALE_HEADER) == "true")


def packed(menu: bytes) -> bytes:
    """A menu's JSON as it is divided into parts."""
    return zlib.compress(menu)


def unpacked(parts: list[bytes]) -> bytes:
    """A menu's JSON from all its parts.

    Raises:
        ValueError: they do not make one.
    """
    unpacking = zlib.decompressobj()
    try:
        menu = unpacking.decompress(b"".join(parts), _LARGEST)
    except zlib.error as error:
        raise ValueError("the parts do not belong together") from error
    if not unpacking.eof:
        raise ValueError("the menu is too large, or not whole")
    return menu


async def ask_menu(
    connection: Connection,
    site: str,
    machine: str,
    question: ShowMenu,
    *,
    timeout: float = 5,  # noqa: ASYNC109 (the bus's own time-out)
) -> Menu:
    """Asks for a menu for a machine, however large it is; each part is waited for ``timeout``.

    Raises:
        Problem: the service's answer was a problem.
        BusUnavailableError: no answer within ``timeout`` seconds, or nobody to ask.
    """
    gathered = _Gathered()
    while gathered.restarts <= _RESTARTS:
        part, of = len(gathered.parts) + 1, gathered.version
        wanted = msgspec.structs.replace(question, part=part, of=of)
        menu = await ask_reading(
            connection, site, SHOW, machine, wanted, gathered.read, timeout=timeout
        )
        if menu:
            return menu
    raise BusUnavailableError("the menu changes faster than it can be fetched")


class _Gathered:
    """The parts of one version that have come so far."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.version: str | None = None
        self.restarts = -1

    def read(self, reply: Msg) -> Menu | None:
        """The menu, if this answer is one or makes one with the parts before.

        Raises:
            ValueError: it is neither a menu nor the next part of one.
        """
        told = division(reply.headers)
        if told is None:
            return SHOW.answered_decoder.decode(reply.data)
        if told.version != self.version:
            self.parts, self.version = [], told.version
            self.restarts += 1
        if told.number != len(self.parts) + 1:
            raise ValueError("this part was not asked for")
        self.parts.append(reply.data)
        if told.number < told.count:
            return None
        menu = SHOW.answered_decoder.decode(unpacked(self.parts))
        return msgspec.structs.replace(menu, stale=told.stale)
