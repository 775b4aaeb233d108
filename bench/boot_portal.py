"""How long a PC takes to the portal, against the same kernel and initramfs that start bare Python.

Both are virtual PCs of one processor, emulated by software: what they take on real hardware is a
small part of it, but each of both is slowed down alike. The clock runs from the kernel's first line
on the serial console to the first screen there, on which `i` is heard; on to the same screen of the
portal itself, which takes its place; or to the end of `python3 -c pass`, which the kernel calls a
panic, since it was its only program.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.harness import Figure, MeasureError, Reach, Rounds, Run, Say
from bench.site import MACHINE, running_site
from bus.texts import TEXTS
from tests.virtual_pc import CONSOLE, HOST, Pc, VirtualPc

_ROUNDS: Final = 5
_LONGEST_SHARE: Final = 2.0
"""Seconds that everything but the kernel and typing may take on a real PC."""
_MAKING: Final = 1200.0
_PATIENCE: Final = 180.0
_FIRST: Final = "0.000000]"
"""The kernel's first lines begin so."""
_BARE: Final = "rdinit=/usr/bin/python3 -- -c pass"
_ENDED: Final = "Kernel Offset"
"""The last line of what the kernel says then; the first ones scroll away."""


def _make(say: Say) -> dict[str, float]:
    first = Rounds(say, "first screen", "python -c pass", _unit)
    portal = Rounds(say, "portal", "python -c pass", _unit)
    with tempfile.TemporaryDirectory() as folder, running_site() as site:
        port = site.url.rpartition(":")[2]
        image = _image(Path(folder) / "image", f"nats://{HOST}:{port}")
        own: list[float] = []
        (before,) = _seconds(image, _BARE, _ENDED)
        for _ in range(_ROUNDS):
            screen = TEXTS["countdown"]
            seen = _seconds(image, "imageinvoker.timeout=0", screen, screen)
            (after,) = _seconds(image, _BARE, _ENDED)
            # Before and after, so that a computer with other work to do is as slow for both.
            bare, before = (before + after) / 2, after
            first.add(seen[0], bare)
            portal.add(seen[1], bare)
            own.append(seen[1] - bare)
    figures = {_FIRST_SCREEN.name: first.median(), _PORTAL.name: portal.median()}
    share = figures[_PORTAL.name] - 1
    say(
        f"the client's own share: {median(own):.2f} s in a virtual PC, {share:.2f} of what kernel "
        f"and Python take; under 2 s where they take less than {_LONGEST_SHARE / share:.1f} s"
    )
    return figures


def _unit(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _image(folder: Path, server: str) -> Path:
    command = [sys.executable, "-m", "cli", "boot", "linux", "--server", server]
    made = subprocess.run(
        [*command, "--out", str(folder)],
        capture_output=True, text=True, timeout=_MAKING, check=False,
    )  # fmt: skip
    if made.returncode:
        raise MeasureError(f"there is no boot image: {made.stderr}")
    return folder


def _seconds(image: Path, line: str, *texts: str) -> list[float]:
    """The seconds from the kernel's first line to each text; a text anew is waited for anew."""
    pc = Pc(
        machine=MACHINE,
        kernel=image / "vmlinuz",
        initramfs=image / "initramfs.img",
        line=f"{CONSOLE} {line}",
    )
    with VirtualPc(pc, os.environ) as running:
        began = _seen(running, _FIRST)
        found = []
        for text in texts:
            found.append(_seen(running, text) - began)
            running.screen.reset()
        return found


def _seen(pc: VirtualPc, text: str) -> float:
    give_up = time.perf_counter() + _PATIENCE
    while text not in pc.text:
        has_ended = pc.process.poll() is not None
        if not pc.read(0.02) and (has_ended or time.perf_counter() > give_up):
            raise MeasureError(f"{text!r} was not seen on:\n{pc.text}")
    return time.perf_counter()


_FIRST_SCREEN: Final = Figure(
    "boot_first_screen",
    "time from the kernel's first line to the first screen / to the end of python -c pass instead",
    Reach("<=", 1.6),
)
_PORTAL: Final = Figure(
    "boot_portal",
    "time from the kernel's first line to the portal itself / to the end of python -c pass instead",
    Reach("<=", 1.6),
)
RUN: Final = Run((_FIRST_SCREEN, _PORTAL), _make)
