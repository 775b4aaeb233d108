"""Clocks of single processes, which jump while these run.

libfaketime answers in place of the C library what time it is, and reads from a file by how much to
be off. The monotonic clock goes on as it does; only `time.sleep`, which no service calls, fails
under it (0.9.10). A program that asks the kernel without the C library, as the NATS server and all
that is written in Go do, keeps the right time.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DAY: Final = 86_400.0
_MISSING: Final = "libfaketime is not installed (Debian: libfaketime)"


class Clock:
    """The clock of one process."""

    def __init__(self, file: Path, off: float) -> None:
        """Takes the file that is to say how far it is off; seconds that it is off at first."""
        self._file = file
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Without this, threads of Python that wait for each other would spin.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            # What is written on a file when it changes has nothing to do with who looks later.
            "NO_FAKE_STAT": "1",
        }
        self.jump(off)

    def jump(self, off: float) -> None:
        """From now on it is off by so many seconds; ahead of the right time if these are positive.

        Whoever started with this clock's environment sees it at once.
        """
        # Whole or not at all: it may be read at any moment.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{off:+.3f}")
        fresh.replace(self._file)

    @staticmethod
    def clear_up(process: int) -> None:
        """Removes what a process that was killed leaves in memory.

        Another one of the same id would not start with it.
        """
        for name in (f"faketime_shm_{process}", f"sem.faketime_sem_{process}"):
            Path("/dev/shm", name).unlink(missing_ok=True)


def _library() -> Path:
    """The one for programs with threads, wherever this architecture has it."""
    assert shutil.which("dpkg"), _MISSING
    listed = subprocess.run(
        ["dpkg", "-L", "libfaketime"], capture_output=True, text=True, timeout=30, check=False
    )
    found = [Path(line) for line in listed.stdout.splitlines() if line.endswith("MT.so.1")]
    assert found, _MISSING
    return found[0]
