"""What the terminal at the other end of a line is, asked of itself.

A serial line tells nobody how large the terminal is, or whether it knows Unicode. But terminals
since the VT100 say where their cursor stands (DSR, ECMA-48 8.3.35): sent as far as it goes, it is
in the last column of the last line; and a letter of two bytes has moved it by one column or two.
"""

import os
import re
import select
import sys
import time
from dataclasses import dataclass
from typing import Final, Self

_SCREENS: Final = re.compile(r"/dev/(?:tty\d+|pts/\d+)\Z")
"""Terminals of which the kernel knows the size, and which take UTF-8 unless they are older ones."""
_OLD: Final = ("vt", "ansi", "dumb")
"""How the names of terminals begin that may not know Unicode."""
_PATIENCE: Final = 1.0
"""Seconds; at 9600 baud an answer is here in 50 ms, over a network of consoles in half a second."""
_QUESTION: Final = b"\x1b7\x1b[999;999H\x1b[6n\x1b[1;1H\xc3\xa9\x1b[6n\x1b[1;1H\x1b[K\x1b8"
_ANSWER: Final = re.compile(rb"\x1b\[(\d{1,4});(\d{1,4})R")
_SMALLEST: Final = (20, 8)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal, as far as it is known; ``typed`` are the keys pressed meanwhile."""

    size: tuple[int, int] | None = None
    knows_unicode: bool = True
    typed: str = ""


def read_answers(heard: bytes, size_is_known: bool) -> Terminal | None:
    """What a terminal has answered; None as long as an answer is missing."""
    answers = _ANSWER.findall(heard)
    if len(answers) < 2:
        return None
    rows, columns = map(int, answers[0])
    is_sane = columns >= _SMALLEST[0] and rows >= _SMALLEST[1]
    return Terminal(
        size=None if size_is_known or not is_sane else (columns, rows),
        knows_unicode=int(answers[1][1]) == 2,
        typed=_typed(heard),
    )


def _typed(heard: bytes) -> str:
    return _ANSWER.sub(b"", heard).decode("ascii", "ignore")


if sys.platform == "win32":

    class Asking:
        """A console of Windows, of which all is known."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def answer(self) -> Terminal:
            """What there is to know."""
            return Terminal()

else:
    import termios
    import tty

    class Asking:
        """Asks the terminal we run in, where the system does not know.

        The question goes out at once, so that the answer comes while something else is done.
        """

        def __init__(self) -> None:
            self._knows_unicode = "utf" in (sys.stderr.encoding or "").lower()
            self._taking, self._giving = sys.stdin.fileno(), sys.stderr.fileno()
            self._before: list[int | list[bytes | int]] | None = None
            self._is_asked = False
            self._size_is_known = True
            self._until = 0.0

        def __enter__(self) -> Self:
            try:
                columns, rows = os.get_terminal_size(self._giving)
                name = os.ttyname(self._giving)
                before = termios.tcgetattr(self._taking)
            except (OSError, termios.error):
                return self
            self._size_is_known = bool(columns and rows)
            is_old = os.environ.get("TERM", "").startswith(_OLD)
            if self._size_is_known and _SCREENS.match(name) and not is_old:
                return self
            self._before = before
            tty.setraw(self._taking, termios.TCSANOW)
            # A line that takes nothing is not waited for.
            if select.select([], [self._giving], [], 0)[1]:
                os.write(self._giving, _QUESTION)
                self._is_asked = True
                self._until = time.monotonic() + _PATIENCE
            return self

        def __exit__(self, *_: object) -> None:
            if self._before is not None:
                termios.tcsetattr(self._taking, termios.TCSANOW, self._before)

        def answer(self) -> Terminal:
            """What the terminal has answered; waits for it no longer than it may take."""
            if self._before is None:
                return Terminal(knows_unicode=self._knows_unicode)
            heard = b""
            answered = None
            while self._is_asked and answered is None:
                left = max(self._until - time.monotonic(), 0)
                if not select.select([self._taking], [], [], left)[0]:
                    break
                part = os.read(self._taking, 256)
                heard += part
                answered = read_answers(heard, self._size_is_known)
                if not part:
                    break
            if answered is None:
                # Who says nothing of itself is taken for what most are: 80 columns of ASCII.
                return Terminal(knows_unicode=False, typed=_typed(heard))
            if answered.size:
                columns, rows = answered.size
                termios.tcsetwinsize(self._giving, (rows, columns))
            return answered
