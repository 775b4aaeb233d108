"""What the terminal at the other end of a line is, asked of itself.

A serial line tells nobody how large the terminal is, or whether it knows Unicode. But terminals
since the VT100 say where their cursor stands (DSR, ECMA-48 8.3.35): sent as far as it goes, it is
in the last column of the last line; and a letter of two bytes has moved it by one column or two.
"""

import re
from dataclasses import dataclass
from typing import Final

QUESTION: Final = b"\x1b7\x1b[999;999H\x1b[6n\x1b[1;1H\xc3\xa9\x1b[6n\x1b[1;1H\x1b[K\x1b8"
"""How large it is, and whether it knows Unicode."""
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
        typed=typed(heard),
    )


def typed(heard: bytes) -> str:
    """The keys in what was heard, without answers."""
    return _ANSWER.sub(b"", heard).decode("ascii", "ignore")
