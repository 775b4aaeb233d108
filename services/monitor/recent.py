"""What was heard of lately, in little memory however much there is."""

from typing import Final

_EMPTY: Final = frozenset[int]()


class Recent:
    """Texts that were noted; at least the last ``most`` of them are known, at most twice as many.

    It keeps their hashes: of 2^64, two texts in so few do not share one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now: set[int] = set()
        self._before: set[int] | frozenset[int] = _EMPTY

    def __contains__(self, text: str) -> bool:
        number = hash(text)
        return number in self._now or number in self._before

    def add(self, text: str) -> None:
        """Notes a text."""
        self._now.add(hash(text))
        if len(self._now) >= self._most:
            self._now, self._before = set(), self._now
