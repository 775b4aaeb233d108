"""How much memory the boot client takes when its menu is shown.

What the kernel counts as resident (VmRSS in /proc/PID/status), shared libraries included, in
megabytes of 1,000,000 bytes. A figure of its own, no ratio.
"""

import re
import time
from pathlib import Path
from typing import Final

from bench.first_screen import client_command
from bench.harness import MeasureError, Reach, Say, middle, one_figure
from bench.site import running_site
from bench.terminal import Terminal
from bus.texts import TEXTS

_STARTS: Final = 5
_ITEM: Final = "Windows 11 for staff laptops"
_SETTLES: Final = 0.5
"""Seconds after the menu has come up."""


def _make(say: Say) -> float:
    resident: list[float] = []
    peak: list[float] = []
    with running_site() as site:
        command = [*client_command(site), "--machine", str(site.machine_file())]
        for number in range(1, _STARTS + 1):
            with Terminal(command, site.environment) as terminal:
                terminal.sees(TEXTS["countdown"])
                terminal.types("i")
                terminal.sees(_ITEM)
                time.sleep(_SETTLES)
                resident.append(_megabytes(terminal.pid, "VmRSS"))
                peak.append(_megabytes(terminal.pid, "VmHWM"))
            say(f"start {number}   resident {resident[-1]:.1f} MB   at most {peak[-1]:.1f} MB")
    middle(say, "at most (information)", peak, digits=1)
    return middle(say, "resident", resident, digits=1)


def _megabytes(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise MeasureError(f"the kernel does not tell {name}")
    return int(found[1]) * 1024 / 1_000_000


RUN: Final = one_figure(
    name="client_memory_mb",
    about="resident memory of the boot client with its menu on the screen, in MB",
    reach=Reach("<", 80),
    make=_make,
)
