"""A whole site, as `imageinvoker up` runs it: bus, sample database and services, each a process."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.harness import MeasureError
from bus.messages import Machine, encode
from cli.embedded import READY, Ready

_STARTS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 60.0

MACHINE: Final = Machine(
    uuid="4C4C4544-0047-5810-8032-B7C04F4E4433", serial="7GX2ND3", macs=("B0:7B:25:C4:D1:01",)
)
"""One of the sample's computers: CAD-LAB-01."""


@dataclass(frozen=True)
class Site:
    """A site that answers."""

    url: str
    name: str
    folder: Path
    environment: Mapping[str, str]

    def machine_file(self) -> Path:
        """A file that says that this machine is `MACHINE`."""
        file = self.folder / "machine.json"
        file.write_bytes(encode(MACHINE))
        return file


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """A site with the sample job tree in a scratch folder, on a free port; ended on leaving.

    Raises:
        MeasureError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        folder = Path(scratch)
        environment = clean_environment(folder)
        with (folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", "--data", str(folder / "site"), "--port", "0"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            ready = _wait(process, folder / "site" / READY, folder / "up.log")
            yield Site(ready.nats_url, ready.site, folder, environment)
        finally:
            end(process)


def clean_environment(folder: Path) -> dict[str, str]:
    """This process's environment without what would lead a program to another site."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEINVOKER_")}
    return kept | {"XDG_DATA_HOME": str(folder / "home")}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process that was started here, and waits for it."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", file: Path, log: Path) -> Ready:
    give_up = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < give_up:
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=Ready)
        time.sleep(0.05)
    raise MeasureError(f"the site did not start:\n{log.read_text(encoding='utf-8')}")
