"""Remembers how often requests have failed, of so many that a bad day does not fill the memory."""

from typing import Final

_MOST: Final = 10_000


class Failures:
    """The failed attempts of requests, which are told by their numbers in the stream.

    Of more than ``most`` requests the one that began to fail first is forgotten: another copy has
    most likely seen it through.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._counts: dict[int, int] = {}

    def add(self, number: int) -> int:
        """Counts one more failure of a request; how many there are."""
        if number not in self._counts and len(self._counts) >= self._most:
            del self._counts[next(iter(self._counts))]
        count = self._counts.get(number, 0) + 1
        self._counts[number] = count
        return count

    def forget(self, number: int) -> None:
        """The request fails no more."""
        self._counts.pop(number, None)

    def __len__(self) -> int:
        """Of how many requests failures are remembered."""
        return len(self._counts)
