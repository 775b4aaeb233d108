"""Boot images that tests start PCs with, and the command that makes them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.e2e_site import COMMAND
from tests.virtual_pc import CONSOLE, HOST

_UNPRIVILEGED = (
    () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
)
"""Root without a single capability may no more than anybody else with its files."""


@dataclass(frozen=True)
class Image:
    """What was made, and the packages that it is made of.

    It goes to the server at this ``port`` unless it is told of another.
    """

    folder: Path
    packages: Path
    port: int

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.img"

    @property
    def disc(self) -> Path:
        return self.folder / "imageinvoker.iso"

    @property
    def wishes(self) -> tuple[str, ...]:
        """The arguments of which the same image is made."""
        return (
            "--server", f"nats://{HOST}:{self.port}", "--packages", str(self.packages),
            "--iso", "--ipxe", "--quick", "--append", f"{CONSOLE} imageinvoker.timeout=0",
        )  # fmt: skip


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """What `imageinvoker boot linux` does with these arguments, without any right of root."""
    return subprocess.run(
        [*_UNPRIVILEGED, *COMMAND, "boot", "linux", *arguments],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
