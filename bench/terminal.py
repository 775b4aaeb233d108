"""A program on a terminal of its own, as a person in front of it sees it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from bench.harness import MeasureError
from bench.site import end

_COLUMNS, _LINES = 80, 25
_PATIENCE: Final = 30.0
_CONTROL: Final = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]")
"""A control sequence or an escape sequence (ECMA-48, 5.4 and ISO 2022)."""


class Terminal:
    """Runs a program on a terminal of 80 columns and 25 lines for as long as it is entered."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = {
            name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES"}
        } | {"TERM": "xterm-256color"}
        self._written = b""

    def __enter__(self) -> "Terminal":
        self._screen, program_side = pty.openpty()
        try:
            size = struct.pack("HHHH", _LINES, _COLUMNS, 0, 0)
            fcntl.ioctl(program_side, termios.TIOCSWINSZ, size)
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=program_side,
                stdout=program_side,
                stderr=program_side,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._screen)
            raise
        finally:
            os.close(program_side)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        end(self._process)
        os.close(self._screen)

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    def sees(self, text: str) -> float:
        """Waits until the text has been written; the seconds since the program's start.

        A text counts whatever colours and moves of the cursor stand in it.

        Raises:
            MeasureError: it did not come.
        """
        wanted = text.encode()
        give_up = time.perf_counter() + _PATIENCE
        while wanted not in _CONTROL.sub(b"", self._written):
            ready, _, _ = select.select([self._screen], [], [], give_up - time.perf_counter())
            if not ready:
                raise MeasureError(f"{text!r} was not seen on:\n{self._plain()}")
            try:
                self._written += os.read(self._screen, 65_536)
            except OSError as error:  # The program has closed its side.
                raise MeasureError(f"it ended:\n{self._plain()}") from error
        return time.perf_counter() - self._began

    def types(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._screen, keys.encode())

    def _plain(self) -> str:
        return _CONTROL.sub(b"", self._written).decode(errors="replace")
