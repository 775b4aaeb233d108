"""The consoles of this PC as one: what is shown is shown on each, and each may be typed on."""

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from client.portal.asking import QUESTION, read_answers

ACTIVE: Final = Path("/sys/class/tty/console/active")
_SCREEN: Final = "tty0"
_FIRST_SCREEN: Final = "tty1"
_USUAL: Final = (80, 25)
_SERIAL: Final = (80, 24)
"""Columns and lines of a line that does not tell; terminals have that many."""
_PATIENCE: Final = 2.0
"""Seconds in which it answers, if it does."""
_MOST: Final = 1 << 18
"""Bytes that may wait for a slow line; one that is further behind misses what is shown."""
_HELD_UP: Final = 1.0
"""Seconds in which one console at least has taken something, or nobody is waited for."""
_OPENING: Final = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK


def names(active: str) -> list[str]:
    """The consoles of the kernel's list, the screen as the one that is seen first; the last first.

    The last of them is the kernel's own console, as `console=` has it.
    """
    there = [_FIRST_SCREEN if name == _SCREEN else name for name in active.split()]
    return list(dict.fromkeys(reversed(there))) or ["console"]


class Console:
    """One of them; of a serial line the terminal at its other end is asked what it is like."""

    def __init__(self, device: Path, *, is_serial: bool) -> None:
        self._handle = os.open(device, _OPENING)
        self._told = _SERIAL if is_serial else _USUAL
        self.knows_unicode = not is_serial
        self._waiting = bytearray()
        self._heard = b""
        self._asks_until = 0.0
        with contextlib.suppress(termios.error):
            tty.setraw(self._handle, termios.TCSANOW)
        if is_serial:
            self._asks_until = time.monotonic() + _PATIENCE
            self.show(QUESTION)

    def fileno(self) -> int:
        """To wait for it."""
        return self._handle

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        with contextlib.suppress(OSError):
            rows, columns, _, _ = struct.unpack(
                "HHHH", fcntl.ioctl(self._handle, termios.TIOCGWINSZ, bytes(8))
            )
            if rows and columns:
                return columns, rows
        return self._told

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be shown."""
        return bool(self._waiting)

    def show(self, data: bytes) -> None:
        """Shows it as soon as the line takes it."""
        if len(self._waiting) < _MOST:
            self._waiting += data
        self.go_on()

    def go_on(self) -> None:
        """Hands over what the line takes."""
        with contextlib.suppress(OSError):
            while self._waiting:
                del self._waiting[: os.write(self._handle, self._waiting[:4096])]

    def typed(self) -> bytes:
        """What was typed."""
        try:
            keys = os.read(self._handle, 4096)
        except OSError:
            return b""
        if time.monotonic() >= self._asks_until or not (self._heard or b"\x1b" in keys):
            keys, self._heard = self._heard + keys, b""
            return keys
        self._heard += keys
        answer = read_answers(self._heard, size_is_known=False)
        if answer is None:
            return b""
        self._asks_until, self._heard = 0.0, b""
        self._told = answer.size or self._told
        self.knows_unicode = answer.knows_unicode
        return answer.typed.encode()


class Consoles:
    """All of them, as big as the smallest."""

    def __init__(self, all_: Sequence[Console]) -> None:
        self._all = list(all_)

    @property
    def knows_unicode(self) -> bool:
        """Whether each of them shows all characters."""
        return all(console.knows_unicode for console in self._all)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines that each of them has."""
        sizes = [console.size for console in self._all] or [_USUAL]
        return min(columns for columns, _ in sizes), min(rows for _, rows in sizes)

    def show(self, data: bytes) -> None:
        """Shows it on each."""
        for console in self._all:
            console.show(data)

    def typed(self, seconds: float) -> bytes:
        """What is typed on any of them, waited for that long."""
        ready, free, _ = select.select(self._all, self._behind(), [], seconds)
        for console in free:
            console.go_on()
        return b"".join(console.typed() for console in ready)

    def run(self, program: Callable[[], int], typed: bytes = b"", *, raw: bool = False) -> int:
        """Runs a program in a process of its own, on a terminal that all of them show; its status.

        ``typed`` was typed before; a program that takes single keys has a ``raw`` terminal from
        the start, so that none waits for the end of a line.
        """
        child, terminal = os.forkpty()
        if child == 0:
            status = 1
            try:
                status = program()
            finally:
                os._exit(status)
        try:
            self._fit(terminal)
            if raw:
                tty.setraw(terminal, termios.TCSANOW)
            if typed:
                os.write(terminal, typed)
            self._relay(terminal)
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256

    def _relay(self, terminal: int) -> None:
        size, takes = self.size, True
        while True:
            behind = self._behind()
            # The fastest console sets the pace, as long as there is one that takes anything.
            waits = takes and bool(behind) and len(behind) == len(self._all)
            handles = [console.fileno() for console in self._all]
            ready, free, _ = select.select(
                handles if waits else [terminal, *handles], behind, [], _HELD_UP
            )
            if free or waits:
                takes = bool(free)
            for console in free:
                console.go_on()
            if terminal in ready:
                try:
                    shown = os.read(terminal, 65_536)
                except OSError:  # whoever had its other side has ended
                    self._hand_over()
                    return
                self.show(shown)
            for console in self._all:
                if console.fileno() in ready and (keys := console.typed()):
                    os.write(terminal, keys)
            if not ready and self.size != size:
                size = self.size
                self._fit(terminal)

    def _behind(self) -> list[Console]:
        return [console for console in self._all if console.is_behind]

    def _hand_over(self) -> None:
        """Gives slow consoles a while to show the end."""
        until = time.monotonic() + _HELD_UP
        while (behind := self._behind()) and (left := until - time.monotonic()) > 0:
            for console in select.select([], behind, [], left)[1]:
                console.go_on()

    def _fit(self, terminal: int) -> None:
        columns, rows = self.size
        with contextlib.suppress(OSError):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def opened() -> Iterator[Console]:
    """The consoles of the kernel's command line; those that cannot be opened are left out."""
    try:
        active = ACTIVE.read_text(encoding="ascii")
    except OSError:
        active = ""
    for name in names(active):
        with contextlib.suppress(OSError):
            is_screen = name.startswith("tty") and name[3:].isdigit()
            yield Console(Path("/dev") / name, is_serial=not is_screen)
