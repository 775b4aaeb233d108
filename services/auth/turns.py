"""Who waits to be let in: address by address in turn, so that a crowd at one holds up no other."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """What waits, for each address in order, and for all of them in turn; bounded both ways."""

    def __init__(self, limit: int, limit_of_each: int) -> None:
        self._limit = limit
        self._limit_of_each = limit_of_each
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, address: str, item: Item) -> Item | None:
        """Takes one more in; what there is no room for, which may be this one or another's.

        When all is full, the last of the longest line makes room for who has a shorter one.
        """
        line = self._lines.get(address, ())
        if len(line) >= self._limit_of_each:
            return item
        left_out: Item | None = None
        if self._waiting >= self._limit:
            longest = max(self._lines, key=lambda each: len(self._lines[each]))
            if len(self._lines[longest]) <= len(line) + 1:
                return item
            left_out = self._lines[longest].pop()
            self._waiting -= 1
        self._lines.setdefault(address, deque()).append(item)
        self._waiting += 1
        return left_out

    def take(self) -> Item:
        """The next one whose turn it is.

        Raises:
            KeyError: nobody waits.
        """
        address, line = self._lines.popitem(last=False)
        item = line.popleft()
        self._waiting -= 1
        if line:
            self._lines[address] = line
        return item
