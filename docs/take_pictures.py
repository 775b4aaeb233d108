"""Takes the pictures of the portal from the real client, in a real terminal, against a real site.

Run by `make pictures`; writes docs/pictures/*.png and docs/pictures/journey.gif.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from tests.terminal import Terminal

PICTURES: Final = Path(__file__).parent / "pictures"
_FONT: Final = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"
_SIZE: Final = 15
_MARGIN: Final = 12
_PAPER: Final = (16, 18, 24)
_INK: Final = (214, 218, 224)
_COLOURS: Final = {
    "black": _PAPER,
    "red": (224, 108, 117),
    "green": (152, 195, 121),
    "brown": (229, 192, 123),
    "blue": (97, 175, 239),
    "magenta": (198, 120, 221),
    "cyan": (86, 182, 194),
    "white": _INK,
}
_MACHINE: Final = (
    '{"uuid": "5E1F7A64-3B0C-4D2E-9A8B-0C1D2E3F4A5B", "serial": "5CG1234XYZ",'
    ' "macs": ["00:1A:4B:16:01:59"]}'
)
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
    """Boots a machine twice, once at an open site and once at one where technicians sign in."""
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
            for words, typed in _CLOSING:
                subprocess.run(
                    [*command, *words],
                    env=environment,
                    check=True,
                    input=typed,
                    stdout=subprocess.DEVNULL,
                )
            second_boot(client, environment)
        finally:
            site.terminate()
            site.wait()
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


def take(terminal: Terminal, name: str) -> None:
    """Paints what stands on the screen."""
    font = ImageFont.truetype(_FONT, _SIZE)
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
                pen.text((place[0], place[1] + 1), cell.data, font=font, fill=ink)
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
