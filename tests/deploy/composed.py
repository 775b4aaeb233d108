"""docker-compose.yml as it is without an `.env`, and what its tests do with it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.buses import free_port

ROOT = Path(__file__).parent.parent.parent
SECRETS = Path("/run/secrets")


def _filled(value: object) -> object:
    """With ${NAME:-default} replaced by the default, as it is without an `.env`."""
    if isinstance(value, str):
        return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    return value


COMPOSE: dict[str, Any] = _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))  # type: ignore[assignment]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PLAIN = [name for name, each in SERVICES.items() if "profiles" not in each]
"""The services of a site without an estate, which start without being asked for."""
OURS = [name for name, each in SERVICES.items() if each["image"].startswith("imageinvoker:")]
SERVING = [name for name in OURS if "--metrics" in SERVICES[name]["command"]]
ONCE = [name for name in OURS if name not in SERVING]


def wait(well: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when it is well; a process that ends before has failed, and its log says why."""
    until = time.monotonic() + 60
    while not well():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def prepare(folder: Path, *options: str, **environment: str) -> None:
    """Runs deploy/compose/prepare; our command line is the one that is tested."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [ROOT / "deploy/compose/prepare", *options, folder],
        env={"PATH": path, **environment},
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """The secrets of a service by the names that they have in its container."""
    named = service.get("secrets", ())
    return dict((each, each) if isinstance(each, str) else (each["target"], each["source"])
                for each in named)  # fmt: skip


class Postgres:
    """A PostgreSQL of Debian's, started as the compose file starts that of the image."""

    def __init__(self, folder: Path, name: str = "postgres") -> None:
        """``name`` is that of its container."""
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.binaries = max(Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Made anew, with the options of the compose file, until it is left."""
        settings = SERVICES[self.name]["environment"]["POSTGRES_INITDB_ARGS"].split()
        self._run("initdb", "--no-sync", "-U", "postgres", "-A", "trust", *settings,
                  "-D", str(self.folder / "data"))  # fmt: skip
        program, *options = SERVICES[self.name]["command"]
        command = [*self._as_user, self.binaries / program, *options, "-D", self.folder / "data",
                   "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder]  # fmt: skip
        log = self.folder / "log"
        with (
            log.open("wb") as to,
            subprocess.Popen(command, stdout=to, stderr=to, cwd=self.folder) as process,
        ):
            try:
                wait(self.well, process, log)
                yield
            finally:
                process.send_signal(signal.SIGINT)

    def well(self) -> bool:
        """What the health check of the compose file says."""
        _, program, *arguments = SERVICES[self.name]["healthcheck"]["test"]
        check = [self.binaries / program, *arguments, "-p", str(self.port)]
        return subprocess.run(check, check=False, timeout=30).returncode == 0

    def make_databases(self, secrets: Path) -> None:
        """What the image does when its volume is new."""
        (source,) = (
            each["source"] for each in SERVICES[self.name]["volumes"] if isinstance(each, dict)
        )
        kept = self.folder / "secrets"
        shutil.copytree(secrets, kept)
        if self._as_user:
            shutil.chown(kept, "postgres", "postgres")
        script = self.folder / "databases.sql"
        script.write_text((ROOT / source).read_text().replace(str(SECRETS), str(kept)))
        self.run("psql", "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", "-q",
                 "-U", "postgres", "-f", str(script))  # fmt: skip

    def run(self, program: str, *arguments: str) -> None:
        """Runs a program of PostgreSQL as in the container, where the server's socket is found."""
        self._run(program, "-h", str(self.folder), "-p", str(self.port), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, self.binaries / program, *arguments],
            check=True, capture_output=True, cwd=self.folder, timeout=60,
        )  # fmt: skip

    def here(self, connection: str) -> str:
        """A connection string of the containers, for this server."""
        there = f"Server={self.name};Port=5432;"
        assert there in connection
        return connection.strip().replace(there, f"Server=127.0.0.1;Port={self.port};")
