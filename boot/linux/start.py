"""From the kernel to the portal, and on: the one program of the boot image that knows all parts.

What comes in the end (`reboot`, `poweroff`) is left in a file to the program `init`.
"""

import contextlib
import gc
import os
import subprocess
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Final, cast

from boot.linux import cards, local_disk, network, screen
from boot.linux.consoles import Consoles, opened
from boot.linux.screen import First, first_screen
from boot.linux.told import IMAGE, Told, told
from client.main import run as run_client
from client.settings import Settings, WrongUseError, read_kernel_command_line, resolve, shown
from client.status import WRONG_USE

NEXT: Final = cards.RUN / "next"
AGENT: Final = "/opt/agent/start"
SCRIPT: Final = "/opt/script"
_ITS_FILE: Final = "/etc/imageinvoker/password"
_GO_ON: Final = (b"i", b"I")
"""Keys for which the portal comes up at once, and hears them."""
_LOOK: Final = 0.1
_READING: Final = 10.0
"""Seconds to read a message before the boot goes on."""
_CLEAR: Final = b"\x1b[0m\x1b[?25h\x1b[2J\x1b[H"


def main() -> None:
    """The whole boot; leaves what is next in a file."""
    text = f"{_image()} {read_kernel_command_line()}"
    boot = told(text)
    session = Session(Consoles([*opened()]), boot)
    NEXT.write_text(session.go(text), encoding="ascii")


class Session:
    """What happens on the consoles."""

    def __init__(self, consoles: Consoles, boot: Told) -> None:
        self._consoles = consoles
        self._boot = boot
        self._shown = b""

    def go(self, text: str) -> str:
        """The portal and what comes after it; what is to happen in the end."""
        try:
            settings = resolve(environment=_secrets(), kernel=text)
        except WrongUseError as error:
            self._start_network()
            self._say(str(error), "The computer goes on starting.")
            return self._after(WRONG_USE, Settings())
        first = First(
            server=shown(settings.server or ""),
            site=settings.site or "",
            asks=settings.item is None,
            waits=settings.timeout == 0,
        )
        self._show(first_screen(first, None, *self._consoles.size))
        if self._boot.wrong:
            self._say(*self._boot.wrong)
        typed = self._wait(settings, first)
        status = self._consoles.run(
            lambda: self._client(settings), typed, raw=settings.item is None
        )
        return self._after(status, settings)

    def _wait(self, settings: Settings, first: First) -> bytes:
        """Waits for the network where it makes sense, while the client is loaded; what was typed.

        A time-out that this PC was told holds whatever the network is at. One that the site knows
        is heard over the network, which is waited for then.
        """
        self._start_network()
        if settings.timeout is not None:
            # The client loads itself, in a process that shares nothing that is to be copied.
            return self._consoles.typed(0)[-64:]
        _load(settings)
        # Only here: the first screen does without.
        from boot.linux import keeper  # noqa: PLC0415

        loaded = time.monotonic()
        typed = self._consoles.typed(0)
        while not typed.endswith(_GO_ON):
            # While the client was loaded, a slow PC had no time for anything else.
            seen = network.since(keeper.tells(), loaded)
            if network.waits(seen, self._boot.patience) <= 0:
                break
            self._show(first_screen(first, seen, *self._consoles.size))
            typed += self._consoles.typed(_LOOK)
        return typed[-64:]

    def _start_network(self) -> None:
        from boot.linux import keeper  # noqa: PLC0415 (the first screen does without)

        keeper.start(self._boot)

    def _client(self, settings: Settings) -> int:
        if not self._consoles.knows_unicode:
            # By its encoding the client knows what it may show.
            cast("TextIOWrapper", sys.stderr).reconfigure(encoding="ascii", errors="replace")
        return run_client(settings)

    def _show(self, lines: list[str]) -> None:
        shown = screen.drawn(lines)
        if shown != self._shown:
            self._consoles.show(shown)
            self._shown = shown

    def _say(self, *texts: str) -> None:
        self._show(screen.message_screen(list(texts), self._boot.site, *self._consoles.size))
        until = time.monotonic() + _READING
        while time.monotonic() < until and not self._consoles.typed(_LOOK):
            pass

    def _after(self, status: int, settings: Settings) -> str:
        then = self._boot.then
        self._consoles.show(_CLEAR)
        if then in {"agent", "script"}:
            program = AGENT if then == "agent" else SCRIPT
            if not Path(program).exists():
                self._say(f"This boot image holds no {then}.", "The computer starts again.")
            else:
                self._run([program], status, settings)
            return "reboot"
        if then == "shell":
            self._run(["/usr/bin/sh", "-l"], status, settings)
            return "reboot"
        if then == "local":
            if not _firmware_told():
                self._say(
                    "The firmware of this computer cannot be told to start from its disk.",
                    "It starts again, in the order that is set in its setup.",
                )
            return "reboot"
        return then

    def _run(self, command: list[str], status: int, settings: Settings) -> None:
        environment = os.environ | {
            "IMAGEINVOKER_STATUS": str(status),
            "IMAGEINVOKER_SERVER": settings.server or "",
            "IMAGEINVOKER_SITE": settings.site or "",
        }

        def program() -> int:
            os.chdir("/root")
            os.execve(command[0], command, environment)

        self._consoles.run(program)


def _image() -> str:
    with contextlib.suppress(OSError):
        return Path(IMAGE).read_text(encoding="utf-8")
    return ""


def _secrets() -> dict[str, str]:
    """The password of unattended PCs, as the client hears it; none where the image has none."""
    with contextlib.suppress(OSError):
        lines = Path(_ITS_FILE).read_text(encoding="utf-8").splitlines()
        return {"IMAGEINVOKER_PASSWORD": lines[0]}
    return {}


def _load(settings: Settings) -> None:
    """Loads what the client will need, while the network comes up."""
    if settings.item is None:
        import client.portal.app  # noqa: PLC0415 (after the first screen is drawn)
    else:
        import client.unattended  # noqa: F401, PLC0415
    # What is loaded stays: nobody need look through it again, least of all after the fork.
    gc.freeze()


def _firmware_told() -> bool:
    if not Path("/sys/firmware/efi").exists():
        return False
    folder = local_disk.VARIABLES
    subprocess.run(["modprobe", "-q", "efivarfs"], check=False, timeout=10)
    subprocess.run(["mount", "-t", "efivarfs", "efivarfs", folder], check=False, timeout=10)
    return local_disk.choose(folder)


if __name__ == "__main__":
    main()
