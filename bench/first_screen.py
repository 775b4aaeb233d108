"""How long the boot client takes to its first screen, against a Textual program with one label.

Each is a process of its own on a terminal of its own, and is watched from its start until its text
has been written to the terminal.
"""

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

from bench.harness import MeasureError, Reach, Rounds, Say, milliseconds, one_figure
from bench.site import Site, running_site
from bench.terminal import Terminal
from bus.texts import TEXTS

_ROUNDS: Final = 15
_COUNTDOWN: Final = TEXTS["countdown_left"].partition("{")[0].strip()


def client_command(site: Site) -> list[str]:
    """`imageinvoker client` at a site.

    Raises:
        MeasureError: the command is not installed beside this interpreter.
    """
    command = shutil.which("imageinvoker", path=sysconfig.get_path("scripts"))
    if command is None:
        raise MeasureError("imageinvoker is not installed: make setup")
    return [command, "client", "--server", site.url, "--site", site.name, "--timeout", "60"]


def _make(say: Say) -> float:
    label = [sys.executable, str(Path(__file__).with_name("label.py"))]
    rounds = Rounds(say, "client", "label", milliseconds)
    with running_site() as site:
        client = client_command(site)
        for number in range(_ROUNDS + 1):
            with Terminal(client, site.environment) as terminal:
                ours = terminal.sees(_COUNTDOWN)
            with Terminal(label, site.environment) as terminal:
                bare = terminal.sees("Nothing but this label")
            if number:  # The first start compiles modules and fills the disk's cache.
                rounds.add(ours, bare)
    return rounds.median()


RUN: Final = one_figure(
    name="first_screen",
    about="time from start to first screen of the boot client / of a Textual program with a label",
    reach=Reach("<=", 2),
    make=_make,
)
