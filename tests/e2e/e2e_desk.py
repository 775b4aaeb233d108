"""An operator's desk beside a bus: commands as real processes, without a whole site."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bus.connection import Connection
from bus.events import Event, event_decoder
from tests.e2e.e2e_site import COMMAND

SITE = "lab"


class Desk:
    """Where an operator types commands for the site of this test."""

    def __init__(self, url: str, connection: Connection, home: Path) -> None:
        self.connection = connection
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("IMAGEINVOKER")
        } | {
            "IMAGEINVOKER_SERVER": url,
            "IMAGEINVOKER_SITE": SITE,
            "XDG_DATA_HOME": str(home),
            "TZ": "UTC",
        }

    def run(
        self, *arguments: str, typed: str = "", more: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs one command of `imageinvoker` to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment | dict(more or {}),
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def done(self, *arguments: str, typed: str = "") -> str:
        """Runs one command that must succeed; what it said."""
        done = self.run(*arguments, typed=typed)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str, typed: str = "") -> str:
        """Runs one command that makes no sense; the sentence that says so."""
        wrong = self.run(*arguments, typed=typed)
        assert wrong.returncode == 2, (wrong.stdout, wrong.stderr)
        assert "Traceback" not in wrong.stderr
        assert wrong.stdout == ""
        return wrong.stderr

    def audit(self, *arguments: str) -> list[Event]:
        """What the audit shows to a program."""
        lines = self.done("audit", "--json", *arguments).splitlines()
        return [event_decoder.decode(line) for line in lines]

    def json(self, *arguments: str) -> object:
        """What a command says to a program."""
        return msgspec.json.decode(self.done(*arguments, "--json"))

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that does not end by itself; it is ended with the test."""
        with subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Ctrl-C; the exit status, and what was said since."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err
