"""Drivers for what is in this PC, and for what is plugged in later."""

import contextlib
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_UEVENTS: Final = 15
"""NETLINK_KOBJECT_UEVENT: by it the kernel tells of devices (linux/netlink.h)."""
_KERNEL: Final = 1
"""The group of what the kernel itself tells."""
_BUSES: Final = (
    "pci",
    "virtio",
    "usb",
    "vmbus",
    "hid",
    "xen",
    "thunderbolt",
    "serio",
    "i2c",
    "mmc",
)
_MODPROBE: Final = ("modprobe", "-a", "-q", "-b")


class Devices:
    """Has the kernel load the modules of devices; a `modprobe` at a time, so that it is small."""

    def __init__(self) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _UEVENTS)
        self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._kernel.setblocking(False)
        self._kernel.bind((0, _KERNEL))
        self._known: set[str] = set()
        self._waiting: set[str] = set()
        self._loading: subprocess.Popen[bytes] | None = None

    def fileno(self) -> int:
        """To wait for what the kernel tells."""
        return self._kernel.fileno()

    def look(self, root: Path = Path("/sys/bus")) -> None:
        """Takes in every device that is there already."""
        for bus in _BUSES:
            for file in (root / bus / "devices").glob("*/modalias"):
                with contextlib.suppress(OSError):
                    self._take([file.read_text(encoding="ascii", errors="replace").strip()])

    def listen(self) -> None:
        """Takes in what the kernel has told meanwhile."""
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    told = self._kernel.recv(65_536)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    self.look()  # it has told more than there was room for
                    return
                self._take(modaliases(told))

    def load(self) -> None:
        """Has modules loaded for what was taken in, unless others are being loaded."""
        if self._loading is not None:
            if self._loading.poll() is None:
                return
            self._loading = None
        if self._waiting:
            wanted = sorted(self._waiting)
            self._waiting.clear()
            self._loading = subprocess.Popen(
                [*_MODPROBE, *wanted], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def _take(self, aliases: Iterable[str]) -> None:
        new = {alias for alias in aliases if alias} - self._known
        self._known |= new
        self._waiting |= new


def modaliases(event: bytes) -> list[str]:
    """Which device an event of the kernel tells of, if one was added."""
    fields = event.split(b"\0")
    if not fields[0].startswith(b"add@"):
        return []
    mark = b"MODALIAS="
    return [each[len(mark) :].decode("latin-1") for each in fields if each.startswith(mark)]
