"""Programs out of unpacked packages, run where they were unpacked: nothing is installed."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from boot.errors import MissingToolError, OutputError
from boot.libraries import FOLDERS, LOADER

_LONGEST: Final = 1800.0


class Tools:
    """The programs of the packages that were unpacked into ``root``.

    They run with the loader and the libraries of these packages, so that it does not matter which
    release this computer has; ``epoch``, in seconds since 1970, is the time that they write.
    """

    def __init__(self, root: Path, epoch: int) -> None:
        self._root = root
        self.epoch: Final = epoch

    def run(self, name: str, *arguments: str | Path, cwd: Path | None = None) -> None:
        """Runs one to its end.

        Raises:
            MissingToolError: there is no such program in the packages.
            OutputError: it could not do what it was to do.
        """
        program = self._root / "usr/bin" / name
        if not program.exists():
            raise MissingToolError(
                f"There is no program {name} in the packages.",
                "Is this another release of Debian than boot images are made of?",
            )
        folders = ":".join(str(self._root / each) for each in FOLDERS)
        command: Sequence[str | Path] = [
            self._root / "lib/x86_64-linux-gnu" / LOADER, "--library-path", folders,
            "--argv0", name, program, *arguments,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=os.environ | {"SOURCE_DATE_EPOCH": str(self.epoch), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OutputError(f"{name} has not ended within {_LONGEST:.0f} s.", "Try again.") from (
                error
            )
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or "it did not say why"
            raise OutputError(f"{name} could not do it: {said}.", "Is there room on the disk?")
