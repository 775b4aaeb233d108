"""A PC made of software: QEMU, whose serial line is the terminal of a test."""

import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus.messages import Machine
from tests.terminal import Terminal

MEMORY = 768
"""Megabytes; less than any PC of the last fifteen years has."""
CONSOLE = "console=ttyS0,115200 panic=-1"
"""The serial line as the kernel's console; a kernel that cannot go on ends the PC."""
HOST = "10.0.2.2"
"""The address at which a virtual PC reaches the loopback of the computer that it runs on."""
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card; nobody answers on a ``dead`` one; ``more`` is about its network."""

    model: str = "virtio-net-pci"
    mac: str = "52:54:00:12:34:56"
    dead: bool = False
    more: str = ""
    boots: bool = False


@dataclass(frozen=True, kw_only=True)
class Pc:
    """What the PC is made of, and how it starts.

    ``kernel`` and ``initramfs`` start at once, with ``line`` as the kernel's command line. Without
    them it starts from its cards or from ``disc``. ``firmware`` is a copy of UEFI's variables.
    """

    machine: Machine = field(default_factory=Machine)
    cards: Sequence[Card] = (Card(),)
    kernel: Path | None = None
    initramfs: Path | None = None
    line: str = ""
    disc: Path | None = None
    disk: Path | None = None
    firmware: Path | None = None
    monitor: Path | None = None
    clock: str = "utc"

    def command(self) -> list[str]:
        """The command that runs it."""
        return [
            program("qemu-system-x86_64"),
            "-accel", "tcg,thread=multi", "-machine", "q35,graphics=off", "-cpu", "qemu64,+rdrand",
            "-smp", "1", "-m", str(MEMORY),
            "-nodefaults", "-display", "none", "-no-reboot",
            "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line",
            "-rtc", f"base={self.clock}",
            *self._monitored(),
            *self._firmware(),
            *self._smbios(),
            *(word for number, card in enumerate(self.cards) for word in _card(number, card)),
            *self._started(),
        ]  # fmt: skip

    def _firmware(self) -> list[str]:
        if self.firmware is None:
            return []
        return [
            "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}",
            "-drive", f"if=pflash,format=raw,file={self.firmware}",
        ]  # fmt: skip

    def _monitored(self) -> list[str]:
        if self.monitor is None:
            return ["-monitor", "none"]
        return ["-monitor", f"unix:{self.monitor},server=on,wait=off"]

    def _smbios(self) -> list[str]:
        machine = self.machine
        system = {
            "manufacturer": machine.manufacturer,
            "product": machine.model,
            "serial": machine.serial,
            "uuid": machine.uuid,
        }
        told = "".join(f",{name}={value}" for name, value in system.items() if value)
        asset = f",asset={machine.asset_tag}" if machine.asset_tag else ""
        return ["-smbios", f"type=1{told}", "-smbios", f"type=3{asset}"]

    def _started(self) -> list[str]:
        words: list[str] = []
        if self.kernel and self.initramfs:
            words += ["-kernel", str(self.kernel), "-initrd", str(self.initramfs)]
            words += ["-append", self.line]
        if self.disc:
            words += ["-drive", f"if=none,id=disc,format=raw,readonly=on,file={self.disc}"]
            words += ["-device", "ide-cd,drive=disc,bus=ide.0,bootindex=1"]
        if self.disk:
            words += ["-drive", f"if=none,id=disk,format=raw,file={self.disk}"]
            words += ["-device", "ide-hd,drive=disk,bus=ide.1,bootindex=5"]
        return words


class VirtualPc(Terminal):
    """A PC that is switched on; what its serial line shows is the screen."""

    def __init__(self, pc: Pc, environment: Mapping[str, str], columns: int = 80) -> None:
        super().__init__(pc.command(), environment, columns=columns, rows=24)
        self._monitor = pc.monitor

    def tell(self, order: str) -> None:
        """Has QEMU do something to the PC, such as ``set_link card0 off``."""
        with self._line_to_monitor() as line:
            heard = b""
            for text in ("", f"{order}\n"):
                line.sendall(text.encode())
                heard = b""
                while not heard.endswith(b"(qemu) "):
                    heard += line.recv(4096)

    def _line_to_monitor(self) -> socket.socket:
        assert self._monitor
        give_up = time.monotonic() + 30
        while True:
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(30)
            try:
                line.connect(str(self._monitor))
            except (FileNotFoundError, ConnectionRefusedError):
                # The file is there a moment before QEMU listens.
                line.close()
            else:
                return line
            assert self.process.poll() is None, self.text
            assert time.monotonic() < give_up
            time.sleep(0.02)


def program(name: str) -> str:
    """Where a program is that a test needs.

    Raises:
        AssertionError: it is not here.
    """
    found = shutil.which(name)
    assert found, f"{name} is not installed: make setup"
    return found


def _card(number: int, card: Card) -> list[str]:
    boots = ",bootindex=2" if card.boots else ",romfile="
    network = f"hubport,id=net{number},hubid={number}" if card.dead else f"user,id=net{number}"
    words = ["-netdev", f"{network}{card.more}"]
    words += ["-device", f"{card.model},netdev=net{number},id=card{number},mac={card.mac}{boots}"]
    return words
