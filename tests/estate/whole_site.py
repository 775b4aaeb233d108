"""A site of an estate as it is deployed: its server, its services as processes, its operator."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bus import subjects
from bus.connection import connect
from bus.door import BootLogin, Door
from bus.machines import machine_key
from bus.messages import Machine
from bus.presence import wait_for_services
from estate.folder import EstateFolder
from estate.permissions import SERVICES
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from tests.estate.servers import EstateServer, site_server
from tests.site import Asker

COMMAND = (sys.executable, "-m", "cli")


class WholeSite:
    """A site whose bus trusts nobody."""

    def __init__(self, estate: EstateFolder, name: str, scratch: Path) -> None:
        self.name = name
        self.server: EstateServer = site_server(estate, name)
        self.dsn = sqlite_dsn(scratch / "express.db")
        self.history = sqlite_dsn(scratch / "history.db")
        self._scratch = scratch
        self.image = scratch / "boot-credential"
        """The boot credential of an image."""
        self.image.write_text(estate.issue_boot("winpe"))
        self.image.chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        """As the file `environment` that was made says, and what each site adds to it."""
        told = (self.server.ready / "environment").read_text().splitlines()
        return (
            {key: value for key, value in os.environ.items() if not key.startswith("IMAGEINV")}
            | dict(line.split("=", 1) for line in told)
            | {
                "IMAGEINVOKER_DATABASE": self.dsn,
                "IMAGEINVOKER_HISTORY": self.history,
                "XDG_DATA_HOME": str(self._scratch / "home"),
                "TZ": "UTC",
            }
        )

    @asynccontextmanager
    async def working(self, *services: str) -> AsyncIterator[None]:
        """The server runs, and a process of each of the services."""
        database = Database(self.dsn, create=True)
        try:
            await create_embedded(database, sample=True)
        finally:
            await database.close()
        self.server.start()
        try:
            with self._processes(services):
                try:
                    await asyncio.wait_for(self._answered(services), 40)
                except TimeoutError:
                    raise AssertionError(self.logs()) from None
                yield
        finally:
            self.server.stop()

    async def _answered(self, services: tuple[str, ...]) -> None:
        operator = await connect(self.server.url, "command", door=self.server.door("operator"))
        try:
            await wait_for_services(operator, self.name, set(services))
        finally:
            await operator.close()

    @contextlib.contextmanager
    def _processes(self, services: tuple[str, ...]) -> Iterator[None]:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number, service in enumerate(services):
                with (self._scratch / f"{number}-{service}.log").open("ab") as log:
                    started.append(
                        subprocess.Popen(
                            [*COMMAND, service], env=self.environment, stdout=log, stderr=log
                        )
                    )
            yield
        finally:
            for each in started:
                each.terminate()
            for each in started:
                try:
                    each.wait(30)
                except subprocess.TimeoutExpired:
                    each.kill()
                    each.wait(10)

    def logs(self) -> str:
        """What the services and the server have said."""
        logs = sorted(self._scratch.glob("*.log"))
        return "\n".join(each.read_text()[-3000:] for each in logs) + self.server.log()[-3000:]

    async def type(
        self,
        *arguments: str,
        typed: str = "",
        status: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Types a command as the operator; what it said."""
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            env=self.environment | dict(more or {}),
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout

    async def watch(self, *arguments: str, until: str) -> None:
        """Types a command that goes on for ever, until it has said something; then Ctrl-C."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, env=self.environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        try:
            async with asyncio.timeout(30):
                while until not in (await process.stdout.readline()).decode():
                    assert not process.stdout.at_eof()
        finally:
            process.send_signal(signal.SIGINT)
            await process.stdout.read()
            await process.wait()

    @asynccontextmanager
    async def machine(self, machine: Machine, within: float = 20) -> AsyncIterator[Asker]:
        """A machine that has booted the image."""
        key = machine_key(machine)
        door = Door(ca=self.server.ready / "tls" / "ca.pem", boot=BootLogin(key, self.image))
        async with asyncio.timeout(within):
            connection = await connect(
                self.server.url, "client", inbox=subjects.inbox(key), door=door
            )
        try:
            yield Asker(connection, self.name)
        finally:
            await connection.close()


ALL = (*SERVICES, "menu")
"""A copy of each service, and two of the menu service, which talk to one another."""
