"""Takes the pictures of the portal from the real client, in a real terminal, against a real site.

Run by `make pictures`; writes docs/pictures/*.png and docs/pictures/journey.gif.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from tests.client.offline import DEAD, FAR, LINKED, WORKING, alone, with_card
from tests.secured import Authority, SecuredServer
from tests.terminal import Terminal

PICTURES: Final = Path(__file__).parent / "pictures"
_FONT: Final = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"
_STRONG: Final = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf"
_SIZE: Final = 15
_MARGIN: Final = 12
_PAPER: Final = (16, 18, 24)
_INK: Final = (214, 218, 224)
_COLOURS: Final = {
    "black": _PAPER,
    "red": (190, 60, 70),
    "green": (110, 165, 90),
    "brown": (200, 155, 80),
    "blue": (38, 84, 150),
    "magenta": (165, 95, 190),
    "cyan": (70, 165, 180),
    "white": _INK,
    "brightblack": (105, 112, 125),
    "brightred": (240, 120, 125),
    "brightgreen": (160, 215, 130),
    "brightbrown": (240, 205, 120),
    "brightblue": (110, 180, 250),
    "brightmagenta": (215, 145, 235),
    "brightcyan": (120, 210, 225),
    "brightwhite": (255, 255, 255),
}
"""The sixteen colours of a console, as a terminal of our days shows them."""
_MACHINE: Final = (
    '{"uuid": "5E1F7A64-3B0C-4D2E-9A8B-0C1D2E3F4A5B", "serial": "5CG1234XYZ",'
    ' "macs": ["00:1A:4B:16:01:59"]}'
)
_JUNK: Final = '{"uuid": "00000000-0000-0000-0000-000000000000", "serial": "Default string"}'
_CLOSING: Final = (
    (("options", "set", "menu_type", "folders"), b""),
    (("account", "add", "alice"), b"open sesame\n"),
    (("access", "allow", "user:alice", "all"), b""),
    (("options", "set", "protection", "server"), b""),
)
"""What an operator does, and types, to show folders to those who sign in."""
_FRAMES: Final = {
    "countdown": 1800, "menu": 1500, "find": 1200, "unknown": 1500, "name": 1500, "scheduled": 3000,
}  # fmt: skip
"""Milliseconds that each picture of the journey stands."""


def main() -> None:
    """Boots a machine at an open site, at one where technicians sign in, and where things fail."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = dict(os.environ) | {"XDG_DATA_HOME": str(folder / "home")}
        (folder / "machine.json").write_text(_MACHINE)
        command = [sys.executable, "-m", "cli"]
        site = subprocess.Popen(
            [*command, "up", "--data", str(folder / "site"), "--port", "0", "--site", "london"],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            while not (folder / "site" / "ready.json").exists():
                time.sleep(0.1)
            client = [*command, "client", "--machine", str(folder / "machine.json")]
            first_boot(client, environment)
            busy_server(client, folder / "site" / "express.db", environment)
            for words, typed in _CLOSING:
                subprocess.run(
                    [*command, *words],
                    env=environment,
                    check=True,
                    input=typed,
                    stdout=subprocess.DEVNULL,
                )
            second_boot(client, environment)
            (folder / "junk.json").write_text(_JUNK)
            small_and_odd(command, folder, environment)
            shut_out(client, environment)
        finally:
            site.terminate()
            site.wait()
        failing(command, folder, environment)
    frames = [Image.open(PICTURES / f"{name}.png") for name in _FRAMES]
    frames[0].save(
        PICTURES / "journey.gif",
        save_all=True,
        append_images=frames[1:],
        duration=list(_FRAMES.values()),
        loop=0,
    )


def first_boot(client: list[str], environment: dict[str, str]) -> None:
    """An unknown machine at an open site."""
    with Terminal(client, environment) as pc:
        pc.wait_for("Press i")
        pc.wait_for("not known")
        take(pc, "countdown")
        pc.type("i")
        pc.wait_for("What is to be deployed")
        take(pc, "menu")
        pc.type("win")
        pc.wait_for("1 of 2")
        take(pc, "find")
        pc.type("\r")
        pc.wait_for("NOT KNOWN")
        take(pc, "unknown")
        pc.type("\x7f" * 10 + "FIN-0042")
        pc.wait_for("FIN-0042")
        take(pc, "name")
        pc.type("\r")
        pc.wait_for("Scheduled for")
        take(pc, "scheduled")


def busy_server(client: list[str], database: Path, environment: dict[str, str]) -> None:
    """A deployment server that keeps a request waiting: somebody else writes to its database."""
    with (
        closing(sqlite3.connect(database, isolation_level=None)) as other,
        Terminal(client, environment) as pc,
    ):
        pc.wait_for("known as FIN-0042")
        pc.type("i")
        pc.wait_for("What is to be deployed")
        pc.type("\r")
        pc.wait_for("schedules")
        other.execute("BEGIN IMMEDIATE")
        pc.type("\r")
        pc.wait_for("safely kept")
        take(pc, "scheduling")
        other.execute("ROLLBACK")
        pc.wait_for("Scheduled for")


def second_boot(client: list[str], environment: dict[str, str]) -> None:
    """The same machine again, known by now, at a site with accounts and folders."""
    with Terminal(client, environment) as pc:
        pc.wait_for("known as FIN-0042")
        take(pc, "known")
        pc.type("i")
        pc.wait_for("User name")
        pc.type("alice\rguess\r")
        pc.wait_for("Tries left")
        take(pc, "password")
        pc.type("open sesame\r")
        pc.wait_for("What is to be deployed")
        take(pc, "folders")


def small_and_odd(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """A terminal of 40 columns, and a machine whose firmware says nothing of it."""
    client = [*command, "client", "-t", "0", "--machine"]
    with Terminal([*client, str(folder / "machine.json")], environment, columns=40, rows=20) as pc:
        pc.wait_for("known as FIN-0042")
        pc.type("i")
        pc.wait_for("User name")
        pc.type("alice\ropen sesame\r")
        pc.wait_for("[Deploy]")
        pc.type("win")
        pc.wait_for("1 of 2")
        take(pc, "small")
    with Terminal([*client, str(folder / "junk.json")], environment) as pc:
        pc.wait_for("Nothing tells this computer from others")
        pc.type("i")
        pc.wait_for("ENTER tries again")
        take(pc, "same")


def shut_out(client: list[str], environment: dict[str, str]) -> None:
    """Somebody who guesses passwords."""
    with Terminal([*client, "-t", "0"], environment) as pc:
        pc.wait_for("known as FIN-0042")
        pc.type("i")
        pc.wait_for("User name")
        pc.type("alice\r")
        for tries_left in ("Tries left: 2", "Tries left: 1", "No entry"):
            pc.type("guess\r")
            pc.wait_for(tries_left)
        take(pc, "locked")


def failing(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """A machine without a link, without an address, without a server, with the wrong clock."""
    words = ["--site", "london", "--machine", str(folder / "machine.json"), "-t", "0"]
    client = [*command, "client", *words, "--server"]
    far = f"nats://{FAR}:4222"
    faults = {
        "no-link": ([*with_card(DEAD, "eth0"), *with_card(DEAD, "eth1")], "There is no link"),
        "no-address": (with_card(LINKED, "eth0"), "no DHCP server answers"),
        "no-answer": (with_card(WORKING, "eth0"), "The server does not answer"),
    }
    for name, (cards, text) in faults.items():
        with Terminal(alone([*client, far], *cards), environment) as pc:
            pc.wait_for(text)
            take(pc, name)
    with Terminal([*client, "nats://127.0.0.1:1"], environment) as pc:
        pc.wait_for("Press i")
        pc.type("i")
        pc.wait_for("ESC goes on without the portal")
        pc.wait_for("3 s")
        take(pc, "waiting")
    authority = Authority()
    ended = authority.issue(since=timedelta(days=-400), until=timedelta(days=-35))
    server = SecuredServer(folder, authority=authority, certificate=ended)
    server.start()
    try:
        with Terminal([*client, server.url, "--ca", str(server.ca)], environment) as pc:
            pc.wait_for("certificate has expired")
            take(pc, "certificate")
    finally:
        server.stop()


def take(terminal: Terminal, name: str) -> None:
    """Paints what stands on the screen."""
    font, strong = (ImageFont.truetype(file, _SIZE) for file in (_FONT, _STRONG))
    width = round(font.getlength("M"))
    height = _SIZE + 4
    screen = terminal.screen
    size = (screen.columns * width + 2 * _MARGIN, screen.lines * height + 2 * _MARGIN)
    picture = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(picture)
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            ink, paper = _colour(cell.fg, _INK), _colour(cell.bg, _PAPER)
            if cell.reverse:
                ink, paper = paper, ink
            place = _MARGIN + column * width, _MARGIN + row * height
            if paper != _PAPER:
                pen.rectangle([*place, place[0] + width - 1, place[1] + height - 1], fill=paper)
            if cell.data.strip():
                look = strong if cell.bold else font
                pen.text((place[0], place[1] + 1), cell.data, font=look, fill=ink)
    picture.quantize(32).save(PICTURES / f"{name}.png", optimize=True)


def _colour(name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
    if name == "default":
        return default
    if name in _COLOURS:
        return _COLOURS[name]
    try:
        red, green, blue = bytes.fromhex(name)
    except ValueError:
        return default
    return red, green, blue


if __name__ == "__main__":
    main()
