"""A whole site as real processes, and what may happen to each of them."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from bus import subjects
from bus.connection import BusUnavailableError
from bus.presence import wait_for_services
from tests.buses import BusServer
from tests.clusters import Cluster
from tests.databases import PostgresServer
from tests.faults.clocks import Clock
from tests.site import Asker, Express, ServiceProcess, asker, eventually

PASSWORD: Final = "Sturmwarnung 4711"
"""The one password of every site here."""
SERVICES: Final = ("menu", "auth", "scheduler")


class CrashingPostgres(PostgresServer):
    """A PostgreSQL server that can end as in a power failure."""

    def crash(self) -> None:
        """Kills the server and every process of its own at once; none may clean up."""
        assert self._process is not None
        server = self._process.pid
        os.kill(server, signal.SIGSTOP)
        # Only now does the server start no further process.
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process in (*map(int, children), server):
            os.kill(process, signal.SIGKILL)
        self._process.wait(10)
        self._process = None


class Copy(ServiceProcess):
    """One copy of a service; a monitor keeps its history in a database of its own."""

    def __init__(
        self,
        service: str,
        url: str,
        site: str,
        dsn: str,
        folder: Path,
        history: str = "",
        clock: Clock | None = None,
    ) -> None:
        """Takes a clock that is its own, else it has that of the machine."""
        super().__init__(service, url, site, dsn, folder)
        self._environment |= {"IMAGEINVOKER_HISTORY": history}
        self._environment |= clock.environment if clock else {}
        self.clock = clock
        self._served = 0

    def start(self) -> None:
        self._served = self._times_serving()
        super().start()

    def kill(self) -> None:
        process = self._process
        super().kill()
        if self.clock and process:
            self.clock.clear_up(process.pid)

    def crash(self) -> None:
        """Dies at once, and is started again, as a supervisor does."""
        self.supervise()
        self.kill()
        self.start()

    def supervise(self) -> None:
        """Starts it again if it has ended, which it may before it serves: the bus may have died."""
        if self._process is not None and self._process.poll() is not None:
            said = self.log.read_text()[-4000:]
            assert self._times_serving() == self._served, f"ended by itself: {said}"
            self.start()

    def _times_serving(self) -> int:
        return self.log.read_text().count('"event": "serving"') if self.log.exists() else 0

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It hangs: its connections stand, and it does nothing."""
        assert self._process is not None
        process = self._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


class SmallDisk:
    """A file system in memory that only those who are started within it see."""

    def __init__(self, folder: Path, size: str) -> None:
        self._folder = folder
        folder.mkdir()
        # Whoever may not mount here may do so as the root of a user namespace of its own.
        own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && echo mounted && exec sleep infinity'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *own_user, "sh", "-c", mount, str(folder)],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.remove()
            raise AssertionError("no file system can be mounted here")
        self.within: Final = [
            "nsenter", f"--target={self._holder.pid}", "--mount",
            *(["--user", "--preserve-credentials"] if own_user else []),
        ]  # fmt: skip

    def fill(self) -> None:
        """Leaves no room on it."""
        full = subprocess.run(
            [*self.within, "dd", "if=/dev/zero", f"of={self._ballast}", "bs=4k"],
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        assert b"No space left" in full.stderr

    def free(self) -> None:
        """Gives the room back."""
        subprocess.run([*self.within, "rm", self._ballast], check=True, timeout=30)

    def remove(self) -> None:
        """The file system goes with the last who sees it."""
        self._holder.kill()
        self._holder.communicate(timeout=10)

    @property
    def _ballast(self) -> str:
        return str(self._folder / "ballast")


class SafeBus(BusServer):
    """A NATS server that has on disk what it acknowledges, perhaps with little room for it."""

    def __init__(
        self, folder: Path, *, room: int | None = None, disk: SmallDisk | None = None
    ) -> None:
        limit = f", max_file_store: {room}" if room else ""
        store = folder / "store"
        super().__init__(
            folder, more=f'jetstream {{ store_dir: "{store}", sync_interval: always{limit} }}'
        )
        if disk:
            self._command = [*disk.within, *self._command]


class Estate:
    """A site: its bus, its database, and every copy of its services."""

    def __init__(
        self,
        bus: BusServer | Cluster,
        name: str,
        express: Express,
        copies: list[Copy],
        client: Asker,
    ) -> None:
        self.bus = bus
        self.name = name
        self.express = express
        self.copies = copies
        self.client = client

    async def supervise(self) -> None:
        """Starts what has ended by itself, for ever."""
        while True:
            for each in self.copies:
                each.supervise()
            await asyncio.sleep(0.2)

    @property
    def clocks(self) -> list[Clock]:
        """Those that copies have of their own."""
        return [each.clock for each in self.copies if each.clock]

    def of(self, service: str) -> list[Copy]:
        """The copies of one service."""
        return [each for each in self.copies if each.log.name == f"{service}.log"]

    async def answers(self) -> None:
        """Returns when every service is on the bus."""
        async with asyncio.timeout(40):
            services = {each.log.stem for each in self.copies}
            await wait_for_services(self.client.connection, self.name, services)

    async def restart_bus(self) -> None:
        """The bus dies as in a power failure, and is started again."""
        assert isinstance(self.bus, BusServer)
        self.bus.kill()
        await asyncio.to_thread(self.bus.start)

    async def settled(self, seconds: float = 90) -> None:
        """Returns when no request waits any more."""
        try:
            await eventually(self._waiting, lambda count: count == 0, seconds)
        except AssertionError:
            stream = self.client.connection.jetstream()
            carrier = await stream.consumer_info(subjects.REQUESTS, subjects.carrier(self.name))
            kept = await stream.stream_info(subjects.REQUESTS)
            waiting = await self.client.waiting()
            pytest.fail(f"requests wait for ever: {waiting}, {carrier}, {kept.state}")

    async def leave(self) -> None:
        """Asks every copy to leave; each must be there, and leave in peace."""
        await self.answers()
        for each in self.copies:
            each.terminate()
        ends = await asyncio.gather(*(each.status() for each in self.copies))
        assert set(ends) == {0}, ends

    async def _waiting(self) -> int:
        try:
            return len(await self.client.waiting())
        except (OSError, TimeoutError, BusUnavailableError):
            return -1


@asynccontextmanager
async def estate(
    bus: BusServer | Cluster,
    name: str,
    dsn: str,
    folder: Path,
    *,
    copies: int = 2,
    history: str = "",
    off: float | None = None,
) -> AsyncIterator[Estate]:
    """A site that is protected by one password and answers, with so many copies of each service.

    It has a monitor where there is a database for its ``history``. Each copy starts with a clock of
    its own that is ``off`` by so many seconds, where these are given.
    """
    services = (*SERVICES, *(["monitor"] if history else []))
    started: list[Copy] = []
    async with asker(bus.url, name) as client:
        await client.protect(PASSWORD)
        try:
            for number in range(copies):
                place = folder / f"copy{number}"
                place.mkdir()
                copy = []
                for each in services:
                    clock = None if off is None else Clock(place / f"{each}.clock", off)
                    copy.append(Copy(each, bus.url, name, dsn, place, history, clock))
                started += copy
                for each in copy:
                    each.start()
                for each in copy:
                    await each.serving()
            yield Estate(bus, name, Express(dsn), started, client)
        finally:
            for each in started:
                each.kill()
            if os.environ.get("IMAGEINVOKER_FAULT_LOGS"):
                shutil.copytree(folder, os.environ["IMAGEINVOKER_FAULT_LOGS"], dirs_exist_ok=True)
