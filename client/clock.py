"""The clock of a machine that has just booted, set by what its site says."""

import contextlib
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from client.settings import Settings

_ENOUGH: Final = 2.0
"""Seconds that it may be off; a question and its answer take as long at worst."""


def follower(settings: Settings) -> Callable[[datetime], None] | None:
    """What is to be told the server's time; nothing unless this machine's clock is ours to set."""
    return follow if settings.sets_clock else None


def follow(moment: datetime) -> None:
    """Sets the clock to this moment if it is off; one that may not be set is left as it is."""
    if abs(moment.timestamp() - time.time()) > _ENOUGH:
        _set(moment.timestamp())


if sys.platform == "win32":

    def _set(_seconds: float) -> None:
        """No image of ours with Windows PE says that its clock is to be set."""

else:

    def _set(seconds: float) -> None:
        with contextlib.suppress(OSError):
            time.clock_settime(time.CLOCK_REALTIME, seconds)
