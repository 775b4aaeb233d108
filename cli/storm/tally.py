"""What is counted in a storm: times by step, errors by code, all of it in bounded memory. Pure."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

Step = Literal["connect", "welcome", "login", "menu", "schedule", "outcome", "journey"]
STEPS: Final[tuple[Step, ...]] = (
    "connect", "welcome", "login", "menu", "schedule", "outcome", "journey",
)  # fmt: skip
"""``schedule`` lasts until the first answer, ``outcome`` until the final one, both from sending the
request; ``journey`` from connecting until the final outcome."""
MEANING: Final[Mapping[Step, str]] = {
    "connect": "a connection to the bus",
    "welcome": "the welcome",
    "login": "the sign-in",
    "menu": "the menu",
    "schedule": "from the request to its first answer",
    "outcome": "from the request to its final outcome",
    "journey": "all of it, from connecting to the outcome",
}

_FIRST: Final = 1e-6
_GROWTH: Final = 1.02
_LOG_GROWTH: Final = math.log(_GROWTH)
ERROR: Final = math.sqrt(_GROWTH) - 1
"""How far a percentile may be from the true one, as a share of it."""
MOST_WINDOWS: Final = 240
"""Parts into which the course of a storm is divided."""


class Histogram:
    """Times in buckets, each 2 % wider than the one before; the greatest is kept as it is."""

    def __init__(self) -> None:
        self.count = 0
        self.max = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One time more; what is below a microsecond counts as one."""
        bucket = max(0, math.ceil(math.log(max(seconds, _FIRST) / _FIRST) / _LOG_GROWTH))
        self._buckets[bucket] += 1
        self.count += 1
        self.max = max(self.max, seconds)

    def percentile(self, share: float) -> float:
        """The least time that ``share`` (0 to 1) of all do not exceed, but for `ERROR`; 0 of none.

        The nearest rank, so it is a time that was measured and none in between.
        """
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(self.max, float(_FIRST * _GROWTH ** (bucket - 0.5)))
        return 0.0

    def merge(self, other: "Histogram") -> None:
        """All of the other's times as well."""
        self._buckets.update(other._buckets)
        self.count += other.count
        self.max = max(self.max, other.max)


class Window:
    """What happened in a second of the storm, or in some seconds of a long one."""

    def __init__(self) -> None:
        self.arrived = 0
        self.finished = 0
        self.failed = 0
        self.steps: dict[Step, Histogram] = {}

    def time(self, step: Step, seconds: float) -> None:
        """A step ended that took so long."""
        self.steps.setdefault(step, Histogram()).add(seconds)

    def merge(self, later: "Window") -> None:
        """All that happened in another one as well."""
        self.arrived += later.arrived
        self.finished += later.finished
        self.failed += later.failed
        for step, histogram in later.steps.items():
            self.steps.setdefault(step, Histogram()).merge(histogram)


class Tally:
    """What is known of a storm so far."""

    def __init__(self) -> None:
        self.width = 1
        """Seconds of a window; doubled whenever there would be too many of them."""
        self.windows: list[Window] = []
        self.steps: dict[Step, Histogram] = {}
        self.arrived = 0
        self.scheduled = 0
        self.rejected = 0
        self.failed = 0
        self.errors: Counter[str] = Counter()
        """Why machines failed or were rejected, by code."""
        self.retries: Counter[str] = Counter()
        """Why machines had to ask again, by code."""
        self.held_back = 0
        """Machines that had to wait since as many travelled as may at a time."""
        self.longest_hold = 0.0
        self.latest = 0.0
        """The most seconds that a machine set out late though it was not held back: how much the
        storm itself lagged."""
        self.last_end = 0.0

    @property
    def ended(self) -> int:
        """Machines whose journey has ended, well or not."""
        return self.scheduled + self.rejected + self.failed

    def arrive(self, at: float, late: float, *, held: bool) -> None:
        """A machine sets out ``at`` seconds of the storm, ``late`` ones after its time."""
        self.arrived += 1
        self._window(at).arrived += 1
        if held:
            self.held_back += 1
            self.longest_hold = max(self.longest_hold, late)
        else:
            self.latest = max(self.latest, late)

    def time(self, step: Step, seconds: float, at: float) -> None:
        """A step of a journey took so long; the journey ended ``at`` seconds of the storm."""
        self.steps.setdefault(step, Histogram()).add(seconds)
        self._window(at).time(step, seconds)

    def finish(
        self, at: float, state: Literal["scheduled", "rejected", "failed"], code: str
    ) -> None:
        """A journey has ended; ``code`` says why where it did not end well."""
        window = self._window(at)
        self.last_end = max(self.last_end, at)
        if state == "scheduled":
            self.scheduled += 1
            window.finished += 1
            return
        if state == "rejected":
            self.rejected += 1
        else:
            self.failed += 1
        window.failed += 1
        self.errors[code] += 1

    def _window(self, at: float) -> Window:
        while at >= self.width * MOST_WINDOWS:
            self._widen()
        place = max(0, int(at // self.width))
        while len(self.windows) <= place:
            self.windows.append(Window())
        return self.windows[place]

    def _widen(self) -> None:
        self.width *= 2
        for first, second in zip(self.windows[::2], self.windows[1::2], strict=False):
            first.merge(second)
        del self.windows[1::2]
