"""A real terminal for tests and pictures: a program on a pty, and the screen a person would see."""

import codecs
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import pyte


class Terminal:
    """A program in a terminal of its own."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        rows: int = 25,
        kind: str = "linux",
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._terminal, program_side = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(program_side, termios.TIOCSWINSZ, size)
        self.process = subprocess.Popen(
            command,
            stdin=program_side,
            stdout=program_side,
            stderr=program_side,
            env={**environment, "TERM": kind, "COLUMNS": str(columns), "LINES": str(rows)},
            start_new_session=True,
        )
        os.close(program_side)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._terminal)

    @property
    def text(self) -> str:
        """The screen as it stands, a line each."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._terminal, keys.encode())

    def read(self, seconds: float = 0.05) -> bool:
        """Takes in what the program writes within ``seconds``; whether there was anything."""
        # `select` knows no file numbers beyond 1023.
        waiting = select.poll()
        waiting.register(self._terminal, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return False
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._terminal, 65_536)
        self._stream.feed(self._decoder.decode(data))
        return bool(data)

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """The screen once it holds ``text``.

        Raises:
            AssertionError: it does not within ``seconds``; with what the screen holds instead.
        """
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if text in self.text:
                self._settle()
                return self.text
            self.read()
            if self.process.poll() is not None and not self.read():
                break
        if text in self.text:
            return self.text
        raise AssertionError(f"{text!r} did not appear within {seconds} s:\n{self.text}")

    def status(self, seconds: float = 20) -> int:
        """The program's exit status once it has ended."""
        give_up = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < give_up:
            self.read()
        return self.process.wait(max(0.1, give_up - time.monotonic()))

    def _settle(self) -> None:
        # A screen is drawn in several writes: until a short silence it is not whole.
        while self.read(0.1):
            pass
