"""What each machine of a storm was told, in a few bytes each. Pure."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from cli.storm.journeys import Passage

Told = Literal["nothing", "asked", "accepted", "scheduled", "rejected"]
_TOLD: Final[tuple[Told, ...]] = ("nothing", "asked", "accepted", "scheduled", "rejected")


class Ledger:
    """What the machines from number 1 on were told, and what in it cannot be.

    ``jobs`` are those of the item as the first machine was told them.
    """

    def __init__(self, machines: int) -> None:
        self.machines = machines
        self.jobs: tuple[int, ...] = ()
        self.odd: Counter[str] = Counter()
        """What contradicts itself in the answers, with how many machines got such ones."""
        self._told = bytearray(machines + 1)
        self._computers = array("q", bytes(8 * (machines + 1)))

    def note(self, passage: Passage) -> None:
        """A machine's journey has ended, well or not."""
        outcome = passage.outcome
        told: Told = "nothing"
        if outcome is not None and outcome.state == "scheduled":
            told = "scheduled"
            jobs = tuple(job.id for job in outcome.jobs)
            self.jobs = self.jobs or jobs
            if jobs != self.jobs:
                self.odd["other jobs than the first machine"] += 1
            if outcome.computer is None:
                self.odd["jobs, and no computer"] += 1
            else:
                self._computers[passage.number] = outcome.computer.id
                if outcome.computer.created and outcome.replaced:
                    self.odd["a new computer that had jobs"] += 1
        elif outcome is not None:
            told = "rejected"
        elif passage.accepted:
            told = "accepted"
        elif passage.asked:
            told = "asked"
        self._told[passage.number] = _TOLD.index(told)

    def told(self, number: int) -> Told:
        """The last that a machine was told."""
        return _TOLD[self._told[number]]

    def computer(self, number: int) -> int | None:
        """The computer that a machine was told to be; None for who was told none."""
        return self._computers[number] if self.told(number) == "scheduled" else None

    def count(self, told: Told) -> int:
        """How many machines were told this last."""
        return self._told[1:].count(_TOLD.index(told))

    def shared_computers(self) -> int:
        """How many machines were told a computer that another one was told as well."""
        seen = Counter(each for each in self._computers if each)
        return sum(count - 1 for count in seen.values())

    def batches(self, size: int) -> Iterator[Sequence[int]]:
        """The numbers of all machines, so many at a time."""
        for first in range(1, self.machines + 1, size):
            yield range(first, min(first + size, self.machines + 1))
