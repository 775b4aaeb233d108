"""Ends the client when nothing else can: the boot must go on, come what may."""

import contextlib
import os
import sys
import threading
from typing import Final

GRACE: Final = 5.0
"""Seconds that a client may take to leave after its time is up."""


class LastResort:
    """Ends this process at a moment that its own loop may miss.

    A terminal that takes nothing (a serial line on hold, a console that stands still) holds up
    whoever writes to it, for ever, and so would a boot be held up.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._before = _terminal_state()

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
        _restore_terminal(self._before)
        os._exit(status)


if sys.platform == "win32":

    def _terminal_state() -> object:
        return None

    def _restore_terminal(_before: object) -> None:
        """The command interpreter that called us puts the mode of its console right."""

else:
    import select
    import termios

    _USUAL_SCREEN: Final = b"\x1b[?1049l\x1b[?25h"
    """The screen that was there before, and its cursor."""
    _State = list[int | list[bytes | int]]

    def _terminal_state() -> _State | None:
        try:
            return termios.tcgetattr(0)
        except (termios.error, OSError):
            return None

    def _restore_terminal(before: _State | None) -> None:
        """What was not taken is dropped: the kernel would wait for the line once more."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcflush(0, termios.TCOFLUSH)
            if select.select([], [2], [], 0)[1]:
                os.write(2, _USUAL_SCREEN)
            if before is not None:
                termios.tcsetattr(0, termios.TCSANOW, before)
