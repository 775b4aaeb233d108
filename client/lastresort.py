"""Ends the client when nothing else can: the boot must go on, come what may."""

import os
import threading
from typing import Final

from client.system import system

GRACE: Final = 5.0
"""Seconds that a client may take to leave after its time is up."""


class LastResort:
    """Ends this process at a moment that its own loop may miss.

    A terminal that takes nothing (a serial line on hold, a console that stands still) holds up
    whoever writes to it, for ever, and so would a boot be held up.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._before = system.terminal_state()

    def end_in(self, seconds: float, status: int) -> None:
        """Ends the process in so many seconds with this status, instead of at any moment before."""
        self.stay()
        self._timer = threading.Timer(seconds, self._end, (status,))
        self._timer.daemon = True
        self._timer.start()

    def stay(self) -> None:
        """Ends it no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, status: int) -> None:
        system.restore_terminal(self._before)
        os._exit(status)
