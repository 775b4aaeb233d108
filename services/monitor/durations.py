"""Durations counted in buckets, so that medians of any span of days can be told from sums. Pure.

Each bucket is a tenth wider than the one before, and a duration is told as the geometric middle of
its bucket: that is at most 5 % away from the true one, between a tenth of a second and a week.
"""

import math
from bisect import bisect_left
from typing import Final

_FIRST: Final = 100.0
_GROWTH: Final = 1.1
_WEEK: Final = 7 * 86_400_000
_BOUNDS: Final = tuple(
    _FIRST * _GROWTH**step for step in range(math.ceil(math.log(_WEEK / _FIRST, _GROWTH)) + 1)
)
"""The longest duration of each bucket but the last, in milliseconds."""

UNKNOWN: Final = -1
"""Stands for the bucket of a duration that is not known."""
ERROR: Final = math.sqrt(_GROWTH) - 1
"""How far a quantile may be from the true one, as a share of it."""


def bucket_of(milliseconds: int) -> int:
    """The bucket that a duration falls into; the last one takes all that are longer."""
    return bisect_left(_BOUNDS, milliseconds)


def seconds_of(bucket: int) -> float:
    """The duration that a bucket stands for."""
    if bucket >= len(_BOUNDS):
        return _BOUNDS[-1] / 1000
    return _BOUNDS[bucket] / math.sqrt(_GROWTH) / 1000
