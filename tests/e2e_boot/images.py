"""A boot image that tests start PCs with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """What was made, and the port of the server that it goes to unless it is told of another."""

    folder: Path
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
