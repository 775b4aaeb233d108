"""The client as a process: what it imports, what it weighs, and how it looks on a terminal."""

import asyncio
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from client_site import Site, welcome

_PORTAL = """
import sys
from pathlib import Path
from client.main import run
from client.settings import Settings
sys.exit(run(Settings(server=sys.argv[1], site=sys.argv[2], machine=Path(sys.argv[3]))))
"""
_UNATTENDED = """
import sys
from pathlib import Path
from client.main import run
from client.settings import Settings
run(Settings(server="nats://127.0.0.1:1", item="job:1", timeout=1))
names = {name.partition(".")[0] for name in sys.modules}
print(*sorted(names & set(sys.argv[1:])))
"""
_EIGHT = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
SIXTEEN = {"default", *_EIGHT, *(f"bright{colour}" for colour in _EIGHT)}
"""What pyte calls the colours of every console; of others it gives the value."""
_FORBIDDEN = ("textual", "rich", "cryptography", "pyodbc", "structlog", "uvloop", "express")


def test_unattended_imports_no_screen_and_nothing_of_the_services() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNATTENDED, *_FORBIDDEN, "services"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.splitlines()[-1] == ""


def test_the_portal_imports_nothing_of_the_services() -> None:
    code = "import sys, client.portal.way; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert not set(done.stdout.split()) & {*_FORBIDDEN[2:], "services", "cli"}


class Terminal:
    """A terminal of 80x25 with a portal in it."""

    def __init__(self, site: Site, machine: str) -> None:
        self._screen = pyte.Screen(80, 25)
        self._stream = pyte.ByteStream(self._screen)
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PORTAL, site.url, site.site, machine],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**os.environ, "TERM": "linux"},
            start_new_session=True,
        )
        os.close(other)
        self.raw = b""

    def types(self, keys: bytes) -> None:
        os.write(self._main, keys)

    def sees(self, text: str) -> None:
        self._reads_until(lambda: any(text in line for line in self._screen.display), text)

    def leaves_with(self, status: int) -> None:
        self._reads_until(lambda: self.process.poll() is not None, "the end")
        assert self.process.returncode == status

    def colours(self) -> set[str]:
        return {
            colour
            for line in self._screen.buffer.values()
            for char in line.values()
            for colour in (char.fg, char.bg)
        }

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)

    def _reads_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"{what}:\n" + "\n".join(self._screen.display)
            if select.select([self._main], [], [], 0.05)[0]:
                try:
                    data = os.read(self._main, 65536)
                except OSError:
                    continue
                self.raw += data
                self._stream.feed(data)


@pytest.fixture
def terminal(site: Site, machine_file: Path) -> Iterator[Terminal]:
    terminal = Terminal(site, str(machine_file))
    yield terminal
    terminal.close()


async def test_the_whole_way_on_a_real_terminal(site: Site, terminal: Terminal) -> None:
    def goes() -> None:
        terminal.sees("This computer is known as PC-0815")
        terminal.types(b"\x03\x11\x1a\x1c\x1b[A q")  # Ctrl+C, +Q, +Z, +\\, an arrow
        time.sleep(0.3)
        terminal.types(b"i")
        terminal.sees("Windows 11 Staff")
        terminal.types(b"\x1b[B\r")
        terminal.sees("To be deployed: Windows 11 Public")
        terminal.types(b"\x7f6\r")
        terminal.sees("Scheduled for PC-0816 (was PC-0815)")
        assert resident(terminal.process.pid) < 80
        assert terminal.colours() <= SIXTEEN
        terminal.types(b"\r")
        terminal.leaves_with(0)

    await asyncio.to_thread(goes)
    assert [wish.computer_name for wish in site.sent] == ["PC-0816"]


async def test_an_unused_countdown_leaves_no_trace_and_status_0(
    site: Site, terminal: Terminal
) -> None:
    site.welcome = welcome(timeout=1)
    await asyncio.to_thread(terminal.leaves_with, 0)
    assert b"Press i for the deployment menu" in terminal.raw
    assert b"Traceback" not in terminal.raw


async def test_a_portal_that_is_ended_from_outside_puts_the_terminal_right(
    site: Site, terminal: Terminal
) -> None:
    def goes() -> None:
        terminal.sees("This computer is known as PC-0815")
        terminal.process.terminate()
        terminal.leaves_with(143)

    await asyncio.to_thread(goes)
    assert b"\x1b[?25h" in terminal.raw


def resident(process_id: int) -> float:
    """Megabytes of memory."""
    with Path(f"/proc/{process_id}/status").open() as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
