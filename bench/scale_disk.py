"""How long the disk takes for an fsync, which is what each message that the bus keeps waits for."""

import os
import statistics
import tempfile
import time
from typing import Final

from bench.harness import Say

_TIMES: Final = 500
_WRITTEN: Final = b"x" * 512


def measured(say: Say) -> float:
    """Median seconds of a small write that is brought to the disk."""
    taken: list[float] = []
    with tempfile.TemporaryFile(prefix="ii-bench-") as file:
        for _ in range(_TIMES):
            began = time.perf_counter()
            file.write(_WRITTEN)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    median = statistics.median(taken)
    say(f"an fsync: {1000 * median:.2f} ms")
    return median
