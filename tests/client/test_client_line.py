"""Terminals at the end of a serial line: small, old, noisy ones, and ones that stand still."""

import asyncio
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import pyte
import pytest
from client_site import Site, items, menu, welcome
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bus.texts import TEXTS
from client.portal.ascii import ascii_like
from client.portal.asking import Terminal, read_answers
from client.portal.terminal import help_lines
from client.words import OWN

NOBODY = "nats://127.0.0.1:1"


class Line:
    """A terminal at the end of a line that tells nothing by itself, with a portal on it.

    It answers where its cursor stands, unless it is ``mute``. With ``tells_size`` it is at the end
    of a network, of which the system knows how large it is.
    """

    def __init__(
        self,
        server: str,
        site: str,
        machine: Path,
        *,
        columns: int = 40,
        rows: int = 24,
        mute: bool = False,
        latin: bool = False,
        timeout: int = 0,
        tells_size: bool = False,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.screen.write_process_input = self.type  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self.screen)
        self._mute = mute
        if latin:
            self._stream.select_other_charset("@")
        self._main, other = pty.openpty()
        fcntl.ioctl(
            other,
            termios.TIOCSWINSZ,
            struct.pack("HHHH", *((rows, columns) if tells_size else (0, 0)), 0, 0),
        )
        # A line has no environment, but whoever runs tests on several cores may set one.
        told = {name: v for name, v in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cli", "client", "--server", server, f"--site={site}"),
                *("--machine", str(machine), "-t", str(timeout)),
            ],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**told, "TERM": "vt100"},
            start_new_session=True,
        )
        self.other = other
        self.raw = b""

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.other)
        os.close(self._main)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys: str | bytes) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        if not (self._mute and data.startswith(b"\x1b[")):
            os.write(self._main, data)

    def sees(self, *texts: str) -> None:
        deadline = time.monotonic() + 30
        while not all(text in " ".join(self.text.split()) for text in texts):
            assert time.monotonic() < deadline, f"{texts}:\n{self.text}"
            self.read()

    def sees_nothing_cut(self) -> None:
        """Below the title; a screen is drawn in several writes."""
        deadline = time.monotonic() + 30
        while "..." in "\n".join(self.text.splitlines()[1:]):
            assert time.monotonic() < deadline, self.text
            self.read()

    def leaves_with(self, status: int) -> None:
        deadline = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self.read()
        assert self.process.returncode == status

    def read(self) -> None:
        if select.select([self._main], [], [], 0.05)[0]:
            data = os.read(self._main, 65_536)
            self.raw += data
            # No old terminal knows these modern ways, which would fill the screen of this one.
            self._stream.feed(data.replace(b"\x1b[>25u", b"").replace(b"\x1b[<u", b""))


async def test_a_terminal_of_40_columns_is_filled_and_not_overfilled(
    site: Site, machine_file: Path
) -> None:
    def goes() -> None:
        with Line(site.url, site.site, machine_file) as pc:
            pc.sees("known as PC-0815", "i opens the deployment menu")
            pc.type("i")
            pc.sees("Windows 11 Staff", "UP/DOWN choose ENTER picks", "ESC leaves")
            pc.sees_nothing_cut()
            pc.type("\r")
            pc.sees("To be deployed: Windows 11 Staff", "ENTER schedules ESC goes back")
            pc.type("\r")
            pc.sees("Scheduled for PC-0815", "- Lay the image")
            pc.type("\r")
            pc.leaves_with(0)

    await asyncio.to_thread(goes)


def test_the_smallest_terminal_has_room_for_all_that_a_screen_says(machine_file: Path) -> None:
    with Line(NOBODY, "lab", machine_file, columns=40, rows=12) as pc:
        pc.sees("Press i for the deployment menu", "The computer waits", "! Nobody answers at this")
        pc.type("i")
        pc.sees(
            "! Nobody answers", "It is tried again by itself.", "ESC goes on without the portal."
        )
        pc.type("\x1b")
        pc.leaves_with(4)


@pytest.mark.parametrize(
    "name",
    [*(name for name in {**TEXTS, **OWN} if name.startswith(("trouble_", "network_"))), "lost"],
)
def test_what_is_wrong_fits_on_a_narrow_screen(name: str) -> None:
    text = {**TEXTS, **OWN}[name].replace("{message}", "tls://deploy.example.org:4222")
    assert len(textwrap.wrap(f"! {text}", 40 - 2)) <= 5


@pytest.mark.parametrize("tells_size", [False, True])
@pytest.mark.parametrize(("latin", "shown"), [(False, "Büro – 5 €"), (True, "Buro - 5 ?")])
async def test_letters_are_those_that_the_terminal_knows(
    site: Site, machine_file: Path, latin: bool, shown: str, tells_size: bool
) -> None:
    site.menu = menu(*items("Büro – 5 €"))

    def goes() -> None:
        with Line(
            *(site.url, site.site, machine_file), latin=latin, columns=80, tells_size=tells_size
        ) as pc:
            pc.sees("known as PC-0815")
            pc.type("i")
            pc.sees(shown)

    await asyncio.to_thread(goes)


async def test_a_terminal_that_says_nothing_gets_plain_letters(
    site: Site, machine_file: Path
) -> None:
    site.menu = menu(*items("Büro"))

    def goes() -> None:
        with Line(site.url, site.site, machine_file, mute=True, columns=80) as pc:
            pc.sees("known as PC-0815")
            pc.type("i")
            pc.sees("Buro")
            assert pc.raw.isascii() or pc.raw.count(b"\xc3\xa9") == 1  # the question alone

    await asyncio.to_thread(goes)


async def test_a_key_that_is_pressed_before_the_terminal_was_known_counts(
    site: Site, machine_file: Path
) -> None:
    def goes() -> None:
        with Line(site.url, site.site, machine_file, columns=80) as pc:
            while b"\x1b[6n" not in pc.raw:
                pc.read()
                pc.type("i")
            pc.sees("What is to be deployed")

    await asyncio.to_thread(goes)


async def test_noise_on_the_line_does_no_harm(site: Site, machine_file: Path) -> None:
    def goes() -> None:
        with Line(site.url, site.site, machine_file, columns=80) as pc:
            pc.sees("known as PC-0815")
            for noise in (b"\xff\xfe\x80", b"\xe9", b"\xc3\x28", b"\x00\x1b[\xff"):
                pc.type(noise)
                time.sleep(0.2)
            pc.type("i")
            pc.sees("Windows 11 Staff")

    await asyncio.to_thread(goes)


@pytest.mark.parametrize("words", [(), ("--item", "job:1")])
def test_a_terminal_that_takes_nothing_does_not_hold_the_boot_up(
    machine_file: Path, words: tuple[str, ...]
) -> None:
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    termios.tcflow(other, termios.TCOOFF)
    before = termios.tcgetattr(other)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "cli", "client", "--server", NOBODY, "-t", "1"),
                *("--machine", str(machine_file), *words),
            ],
            stdin=other,
            stdout=other,
            stderr=other,
            timeout=60,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == 4
        assert termios.tcgetattr(other) == before
    finally:
        os.close(other)
        os.close(main)


def test_a_portal_leaves_with_its_terminal(machine_file: Path) -> None:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "cli", "client", "--server", NOBODY, "-t", "0"]
    portal = subprocess.Popen(
        [*command, "--site", "main", "--machine", str(machine_file)],
        stdin=other,
        stdout=other,
        stderr=other,
        env={**os.environ, "TERM": "linux"},
    )
    os.close(other)
    shown = b""
    while b"ImageInvoker" not in shown:
        shown += os.read(main, 65_536)
    os.close(main)
    try:
        assert portal.wait(30) == 0
    finally:
        portal.kill()
        portal.wait()


async def test_who_entered_may_take_longer_than_the_countdown(
    site: Site, machine_file: Path
) -> None:
    site.welcome = welcome(timeout=1)

    def goes() -> None:
        with Line(site.url, site.site, machine_file, columns=80, timeout=9) as pc:
            pc.sees("known as PC-0815")
            pc.type("i")
            pc.sees("Windows 11 Staff")
            until = time.monotonic() + 13
            while time.monotonic() < until:
                pc.read()
            pc.type("\x1b[B")
            pc.sees("2 of 3")

    await asyncio.to_thread(goes)


SIZE, WIDE, NARROW = b"\x1b[24;40R", b"\x1b[1;2R", b"\x1b[1;3R"


@pytest.mark.parametrize(
    ("heard", "known", "terminal"),
    [
        (SIZE + WIDE, False, Terminal((40, 24), knows_unicode=True)),
        (SIZE + NARROW, False, Terminal((40, 24), knows_unicode=False)),
        (b"i" + SIZE + b"x" + WIDE, True, Terminal(None, knows_unicode=True, typed="ix")),
        (b"\x1b[1;1R" + WIDE, False, Terminal(None, knows_unicode=True)),
        (SIZE, False, None),
        (b"", False, None),
    ],
)
def test_what_a_terminal_answers_is_understood(
    heard: bytes, known: bool, terminal: Terminal | None
) -> None:
    assert read_answers(heard, known) == terminal


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_answer_is_too_odd(heard: bytes) -> None:
    read_answers(heard, size_is_known=False)
    found = read_answers(heard + SIZE + WIDE, size_is_known=False)
    assert found is not None


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_letters_of_ascii_are_as_wide_as_those_they_stand_for(text: str) -> None:
    made = ascii_like(text)
    assert made.isascii()
    assert len(made) == sum(cell_len(c) if not c.isascii() else 1 for c in text)
    assert "".join(c for c in text if c.isascii()) == text or made != text


@given(st.lists(st.text("abc ", min_size=1, max_size=12)), st.integers(10, 60))
@settings(max_examples=200, deadline=None)
def test_help_is_broken_between_its_parts_only(parts: list[str], width: int) -> None:
    clean = [part.strip() for text in parts for part in text.split("   ") if part.strip()]
    lines = help_lines("   ".join(parts), width)
    assert sorted(each for line in lines for each in line) == sorted(
        part.strip() for part in "   ".join(parts).split("   ") if part.strip()
    )
    assert clean or lines == [[]]
    for line in lines:
        assert len(line) == 1 or len("   ".join(line)) <= width
