"""A whole site as an operator starts it, and a machine that boots beside it."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from bus.messages import Machine, encode
from cli.embedded import READY, Ready
from tests.terminal import Terminal

COMMAND = (sys.executable, "-m", "cli")


class Site:
    """A site that runs, and what a person at its operator's desk can do."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("IMAGEINVOKER")
        } | {"XDG_DATA_HOME": str(home)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, port: int = 0) -> Ready:
        """Runs `imageinvoker up` until it says that all of it answers."""
        with (self.folder.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--data", str(self.folder), "--port", str(port), *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + 60
        while not (self.folder / READY).exists():
            assert self.process.poll() is None, (self.folder.parent / "up.log").read_text()
            assert time.monotonic() < give_up, self.logs()
            time.sleep(0.02)
        return self.ready

    def logs(self) -> str:
        """All that the services and the bus have said."""
        return "".join(each.read_text() for each in sorted((self.folder / "logs").iterdir()))

    @property
    def ready(self) -> Ready:
        return msgspec.json.decode((self.folder / READY).read_bytes(), type=Ready)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends the site; its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    def run(
        self, *arguments: str, typed: str = "", more: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs one command of `imageinvoker` beside the site."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment | dict(more or {}),
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """What stands in the database, seen without any code of ours."""
        with closing(sqlite3.connect(self.folder / "express.db")) as database:
            return database.execute(query, values).fetchall()

    def pending(self, computer: str) -> list[object]:
        """The jobs that are pending on a computer, in their order."""
        rows = self.rows(
            "SELECT e.name FROM event_schedule s JOIN event e ON e.event_id = s.event_id"
            " JOIN computer c ON c.computer_id = s.computer_id"
            " WHERE c.name = ? AND s.status_code IS NULL ORDER BY s.schedule_id",
            computer,
        )
        return [name for (name,) in rows]

    def child(self, name: str) -> int:
        """The process id of a part of the site: the newest process that `up` started for it."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in map(int, children.split()):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if any(word.decode().endswith(name) for word in words):
                return child
        raise AssertionError(f"{name} does not run")

    def machine_file(self, machine: Machine) -> str:
        """A file that says which machine this is."""
        file = self.folder.parent / f"machine-{machine.serial}.json"
        file.write_bytes(encode(machine))
        return str(file)

    def boot(
        self, machine: Machine, *arguments: str, columns: int = 80, rows: int = 25
    ) -> Terminal:
        """The boot client on a machine, in a terminal of its own."""
        return Terminal(
            [*COMMAND, "client", "--machine", self.machine_file(machine), *arguments],
            self.environment,
            columns=columns,
            rows=rows,
        )


OpenPortal = Callable[..., Terminal]
