"""Letters for terminals that know ASCII only. Pure functions."""

import unicodedata
from typing import Final

from rich.cells import cell_len

_LIKE: Final = {
    "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "…": ".", "•": "*", "·": ".",
    "‘": "'", "’": "'", "‚": ",", "“": '"', "”": '"', "„": '"', "«": "<", "»": ">",
    "ß": "s", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ł": "l", "Ł": "L", "æ": "a", "Æ": "A",
    "œ": "o", "Œ": "O", "ı": "i", "ð": "d", "Ð": "D", "þ": "t", "Þ": "T", "\u00a0": " ",
}  # fmt: skip


def ascii_like(text: str) -> str:
    """The text in ASCII, each letter as wide as before, so that nothing moves on the screen."""
    return text if text.isascii() else "".join(map(_like, text))


def _like(letter: str) -> str:
    if letter.isascii():
        return letter
    width = cell_len(letter)
    base = _LIKE.get(letter) or unicodedata.normalize("NFKD", letter)[:1]
    return (base if base.isascii() and base.isprintable() else "?") * width
