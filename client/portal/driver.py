"""Textual's way to a terminal of Linux, made fit for a serial line."""

import select
import sys
from typing import Final

from textual.drivers.linux_driver import LinuxDriver

from client.portal.ascii import ascii_like
from client.status import DONE

assert sys.platform != "win32"  # noqa: S101 (mypy knows platforms by branches and by this)

_GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class LineDriver(LinuxDriver):
    """Passes over noise on the line; Textual would give up, and show its memory.

    And leaves with the terminal, where nobody can see anything any more: Textual would read its
    end again and again, for ever.
    """

    def start_application_mode(self) -> None:
        """Told by Textual."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._app.set_interval(1.0, self._leave_with_the_terminal)

    def _leave_with_the_terminal(self) -> None:
        line = select.poll()
        line.register(self.fileno, 0)
        if any(happened & _GONE for _, happened in line.poll(0)):
            self._app.exit(DONE)

    def run_input_thread(self) -> None:
        """Told by Textual, in a thread of its own."""
        while not self.exit_event.is_set():
            try:
                super().run_input_thread()
            except UnicodeDecodeError:
                continue
            else:
                return


class AsciiDriver(LineDriver):
    """For terminals that do not know Unicode."""

    def write(self, data: str) -> None:
        """Told by Textual."""
        super().write(ascii_like(data))
