"""The clock of a machine that has just booted, set by what its site says."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from client.settings import Settings
from client.system import system

_ENOUGH: Final = 2.0
"""Seconds that it may be off; a question and its answer take as long at worst."""


def follower(settings: Settings) -> Callable[[datetime], None] | None:
    """What is to be told the server's time; nothing unless this machine's clock is ours to set."""
    return follow if settings.sets_clock else None


def follow(moment: datetime) -> None:
    """Sets the clock to this moment if it is off; one that may not be set is left as it is."""
    if abs(moment.timestamp() - time.time()) > _ENOUGH:
        system.set_clock(moment.timestamp())
