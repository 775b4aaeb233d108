"""Somebody at a console of a PC: a terminal whose other end a test holds."""

import contextlib
import os
import pty
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from boot.linux.consoles import Console


class Person:
    """Sees what is shown there, and types."""

    def __init__(self) -> None:
        self._end, self._device = pty.openpty()
        self._heard = bytearray()
        self._listening: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._device)
        if self._listening is not None:
            self._listening.join(10)
        os.close(self._end)

    def console(self) -> Console:
        """The console, a serial one."""
        return Console(Path(os.ttyname(self._device)), is_serial=True)

    def types(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._end, keys)

    def sees(self) -> bytes:
        """What has been shown so far."""
        return os.read(self._end, 65_536)

    def listens(self) -> None:
        """Takes in all that is shown from now on."""

        def listen() -> None:
            with contextlib.suppress(OSError):
                while data := os.read(self._end, 65_536):
                    self._heard += data

        self._listening = threading.Thread(target=listen, daemon=True)
        self._listening.start()

    def heard(self) -> bytes:
        """All of it."""
        return bytes(self._heard)
