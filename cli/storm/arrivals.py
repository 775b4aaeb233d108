"""When each machine of a storm arrives. Pure."""

import random
from collections.abc import Iterator


def arrivals(machines: int, within: float, seed: int) -> Iterator[float]:
    """The seconds after which each machine arrives, in order: spread evenly, with jitter.

    Each has a slot of ``within / machines`` seconds, and comes somewhere in it; the same seed gives
    the same times.
    """
    chance = random.Random(seed)  # noqa: S311 (no secret)
    slot = within / machines
    for number in range(machines):
        yield min(within, (number + chance.random()) * slot)
