"""A whole site for tests: the services' own programs on a real bus, and somebody who asks them.

In-process copies are entered with `running`; `ServiceProcess` is one that can be killed.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pyodbc
import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from bus import contract, subjects
from bus.access import ALL_RIGHTS
from bus.buckets import prepare
from bus.connection import BusUnavailableError, Connection, ask, connect
from bus.contract import Endpoint, FromMachine
from bus.events import EventLog
from bus.machines import machine_key
from bus.menus import ask_menu
from bus.messages import (
    AskStatus,
    Hello,
    Login,
    Machine,
    Menu,
    Outcome,
    Request,
    Schedule,
    Session,
    ShowMenu,
    Welcome,
    encode,
)
from bus.option_store import LiveOptions, OptionStore
from bus.options import DEFAULTS, PASSWORD, parse
from bus.problems import RETRIABLE, Code, Problem
from engine.finding import find
from engine.orders import Order
from express.carrying import carry_out
from express.connection import SQLITE_GATE
from express.database import Database
from express.dialects import dialect_of
from express.schedules import locking
from express.schema import read_layout
from services.admission import Admission
from services.auth.passwords import Passwords
from services.running import Program, Site
from services.scheduler.intake import Intake
from tests.databases import PostgresServer

Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")
_Found = TypeVar("_Found")
Rows = list[tuple[Any, ...]]

DESKTOP: Final = "folder:10"
"""An item of the sample: a folder of ten jobs, with a job that gives its title."""
DESKTOP_JOBS: Final = tuple(range(2000101, 2000111))
LAPTOP: Final = "folder:11"
LAPTOP_JOBS: Final = tuple(range(2000120, 2000125))
MEMORY_TEST: Final = "job:2000190"
"""An item of the sample: one job."""

STAFF_0117: Final = Machine(
    uuid="6f0c2b5e-31d4-4a7c-9b52-0d6e8a1f4c01",
    serial="5CG9207XK1",
    asset_tag="U-10117",
    macs=("3c:52:82:a1:b7:01",),
)
"""The machine of a computer of the sample."""

TABLES: Final = (
    "event",
    "event_folder",
    "event_schedule",
    "computer",
    "computer_group",
    "hardware",
    "nics",
    "ii_request",
    "ii_lock",
)
_FINAL: Final = ("scheduled", "rejected")


def new_machine(number: int) -> Machine:
    """A machine that the sample does not know, another one for each number."""
    return Machine(
        uuid=f"{number:08x}-7a31-4c02-9d5e-1b6f00c4e2d7",
        serial=f"NEW{number:07}",
        asset_tag=f"T-{number:06}",
        macs=(f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",),
        manufacturer="Dell Inc.",
        model="OptiPlex 7010",
    )


def new_id() -> str:
    """A request id that nobody has used."""
    return str(uuid.uuid4())


def site_name(node: str) -> str:
    """A site of its own for each test, so that tests may share a server."""
    return re.sub("[^a-z0-9-]", "-", node.lower().removeprefix("test_"))[:23] + "-" + new_id()[:8]


async def eventually(
    look: Callable[[], Awaitable[_Found]],
    good: Callable[[_Found], bool],
    seconds: float = 10,
) -> _Found:
    """What ``look`` finds, once it is good; fails with what it last was."""
    deadline = time.monotonic() + seconds
    while not good(found := await look()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        await asyncio.sleep(0.02)
    return found


@contextmanager
def refused(*codes: Code) -> Iterator[list[Problem]]:
    """Expects one of these problems; it stands in the list afterwards."""
    caught: list[Problem] = []
    with pytest.raises(Problem) as info:
        yield caught
    caught.append(info.value)
    assert info.value.code in codes, info.value


async def problem_of(asking: Awaitable[object]) -> str:
    """The code of the problem that is the answer, or that there is none; empty for a good one."""
    try:
        await asking
    except Problem as problem:
        return problem.code
    except BusUnavailableError:
        return "no answer"
    return ""


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """The database server crashes, and is up again at the end."""
    server.stop()
    try:
        yield
    finally:
        server.start()


class Express:
    """The deployment server's database as somebody else sees and changes it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def sql(self, statement: str, *values: object) -> Rows:
        """Carries one statement out and commits; the rows of a query."""
        with self._connected() as connection:
            return _rows(connection, statement, *values)

    def tables(self, *names: str) -> dict[str, Rows]:
        """Every row of every table, or of those that are named."""
        with self._connected() as connection:
            return {
                name: sorted(_rows(connection, f"SELECT * FROM {name}"), key=repr)
                for name in names or TABLES
            }

    def scheduled(self, computer: str) -> list[int]:
        """The jobs that are pending for a computer, in the order of their rows."""
        rows = self.sql(
            "SELECT s.event_id FROM event_schedule s JOIN computer c"
            " ON c.computer_id = s.computer_id WHERE c.name = ? AND s.status_code IS NULL"
            " ORDER BY s.schedule_id",
            computer,
        )
        return [int(row[0]) for row in rows]

    def computer_id(self, name: str) -> int:
        """The id of the one computer of this name."""
        ((found,),) = self.sql("SELECT computer_id FROM computer WHERE name = ?", name)
        return int(found)

    def schedule_row(self, job: int, computer: str, status: int | None) -> None:
        """A row as the deployment server's console would add it."""
        self.sql(
            "INSERT INTO event_schedule (event_id, computer_id, start_time, status_code)"
            " VALUES (?, ?, ?, ?)",
            job,
            self.computer_id(computer),
            datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 (the database's own clock)
            status,
        )

    @contextmanager
    def busy(self, machine: Machine) -> Iterator[None]:
        """Somebody else holds what a request of this machine needs, as a slow transaction would."""
        with SQLITE_GATE:
            connection = pyodbc.connect(self.dsn, autocommit=False, timeout=5)
        try:
            dialect = dialect_of(connection.getinfo(pyodbc.SQL_DBMS_NAME))
            assert dialect
            connection.execute(locking(dialect, 1), f"machine:{machine_key(machine)}")
            yield
        finally:
            # The server may have crashed meanwhile, and the transaction with it.
            with suppress(pyodbc.Error):
                connection.rollback()
            with SQLITE_GATE:
                connection.close()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        with SQLITE_GATE:
            connection = pyodbc.connect(self.dsn, autocommit=True, timeout=5)
        try:
            yield connection
        finally:
            with SQLITE_GATE:
                connection.close()


def _rows(connection: Any, statement: str, *values: object) -> Rows:
    # SQLite's driver keeps the files of a connection open whose cursor still is.
    with closing(connection.execute(statement, *values)) as cursor:
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


class Asker:
    """A client of a site, for whichever machine."""

    def __init__(self, connection: Connection, site: str) -> None:
        self.connection = connection
        self.site = site

    async def _ask(
        self, endpoint: Endpoint[Asked, Answered], question: Asked, seconds: float = 10
    ) -> Answered:
        key = machine_key(question.machine)
        return await ask(self.connection, self.site, endpoint, key, question, timeout=seconds)

    async def welcome(self, machine: Machine, visit: str | None = None) -> Welcome:
        return await self._ask(contract.WELCOME, Hello(machine=machine, visit=visit))

    async def login(self, machine: Machine, password: str, username: str | None = None) -> Session:
        question = Login(machine=machine, password=password, username=username)
        return await self._ask(contract.LOGIN, question)

    async def show(
        self, machine: Machine = STAFF_0117, token: str | None = None, visit: str | None = None
    ) -> Menu:
        question = ShowMenu(machine=machine, token=token, visit=visit)
        return await ask_menu(
            self.connection, self.site, machine_key(machine), question, timeout=10
        )

    async def schedule(
        self,
        machine: Machine,
        item_id: str,
        computer_name: str | None = None,
        *,
        request_id: str | None = None,
        start_at: datetime | None = None,
        token: str | None = None,
    ) -> Outcome:
        question = Schedule(
            request_id=request_id or new_id(),
            machine=machine,
            item_id=item_id,
            computer_name=computer_name,
            start_at=start_at,
            token=token,
        )
        return await self._ask(contract.SCHEDULE, question)

    async def status(self, machine: Machine, request_id: str, *, wait: bool = False) -> Outcome:
        question = AskStatus(machine=machine, request_id=request_id, wait=wait)
        return await self._ask(contract.STATUS, question)

    async def settled(self, machine: Machine, request_id: str, seconds: float = 15) -> Outcome:
        """What has become of an accepted request in the end; asks again where that may help."""

        async def look() -> Outcome | str:
            question = AskStatus(machine=machine, request_id=request_id)
            try:
                return await self._ask(contract.STATUS, question, 1)
            except Problem as problem:
                if problem.code not in RETRIABLE:
                    raise
                return problem.code
            except BusUnavailableError:
                return "no answer"

        found = await eventually(
            look, lambda o: isinstance(o, Outcome) and o.state in _FINAL, seconds
        )
        assert isinstance(found, Outcome)
        return found

    async def insist(
        self, machine: Machine, item_id: str, request_id: str, seconds: float = 40
    ) -> Outcome:
        """The final outcome, however often the services die: asks as a boot client does."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    outcome = await self._ask(
                        contract.SCHEDULE,
                        Schedule(request_id=request_id, machine=machine, item_id=item_id),
                        3,
                    )
                    if outcome.state in _FINAL:
                        return outcome
                except (BusUnavailableError, Problem):
                    pass
                await asyncio.sleep(0.1)

    async def send(self, endpoint: Endpoint[Asked, Answered], question: Asked) -> None:
        """Asks, and does not wait for an answer."""
        key = machine_key(question.machine)
        subject = subjects.endpoint(self.site, endpoint.service, endpoint.verb, key)
        await self.connection.publish(subject, encode(question), reply=self.connection.new_inbox())

    async def raw(
        self, endpoint: Endpoint[Asked, Answered], key: str, body: bytes, seconds: float = 5
    ) -> Msg:
        """The answer to a body of whichever bytes."""
        site = endpoint.site or self.site
        subject = subjects.endpoint(site, endpoint.service, endpoint.verb, key)
        return await self.connection.request(subject, body, timeout=seconds)

    async def set(self, option: str, value: str) -> None:
        """Sets an option as the command line does."""
        store = await OptionStore.open(self.connection, self.site)
        await store.write(option, parse(option, value))

    async def protect(self, password: str) -> None:
        """Protects the site by one shared password."""
        passwords = Passwords()
        try:
            hashed = await passwords.hash(password)
        finally:
            await passwords.close()
        store = await OptionStore.open(self.connection, self.site)
        await store.write(PASSWORD, hashed.encode())
        await store.write("protection", parse("protection", "hash"))

    async def kept(self, stream: str, subject: str) -> list[bytes]:
        """What stands in a stream under a subject (with wildcards), oldest first."""
        jetstream = self.connection.jetstream()
        info = await jetstream.stream_info(stream, subjects_filter=subject)
        found: list[tuple[int, bytes]] = []
        for name, count in (info.state.subjects or {}).items():
            seq = 1
            # What is carried out meanwhile is gone.
            with suppress(NotFoundError):
                for _ in range(count):
                    message = await jetstream.get_msg(stream, seq, subject=name, next=True)
                    assert message.seq is not None
                    found.append((message.seq, message.data or b""))
                    seq = message.seq + 1
        return [data for _, data in sorted(found)]

    async def waiting(self) -> list[bytes]:
        """The site's requests that are still to be carried out."""
        return await self.kept(subjects.REQUESTS, subjects.request(self.site))

    async def rejected(self) -> list[bytes]:
        """The site's requests that were rejected."""
        return await self.kept(subjects.REJECTED, subjects.rejected(self.site))


@asynccontextmanager
async def asker(url: str, site: str) -> AsyncIterator[Asker]:
    """Somebody who asks a site, on a connection of their own."""
    connection = await connect(url, f"tester-{site}")
    try:
        await prepare(connection.jetstream())
        yield Asker(connection, site)
    finally:
        await connection.close()


@asynccontextmanager
async def running(url: str, site: str, *programs: Program) -> AsyncIterator[None]:
    """One copy of each service, each on a connection of its own, as if it were a process."""
    if not programs:
        yield
        return
    connection = await connect(url, f"copy-{site}")
    try:
        await prepare(connection.jetstream())
        options = LiveOptions(connection, site)
        await options.start()
        try:
            async with (
                programs[0](Site(site, connection, options)),
                running(url, site, *programs[1:]),
            ):
                yield
        finally:
            await options.stop()
    finally:
        await connection.close()


def intake_only(dsn: str) -> Program:
    """A scheduler whose carrier is stopped: it takes requests in, and nobody carries them out."""

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        engine = find(dsn).open(site.name)
        events = EventLog(site.connection, site.name)
        admission = Admission(site.connection, site.name, site.options, events)
        intake = Intake(site, engine, admission, events)
        service = site.service("scheduler", "Takes requests in")
        service.serve(contract.SCHEDULE, intake.schedule)
        service.serve(contract.STATUS, intake.status)
        try:
            await admission.start()
            await intake.start()
            await service.start()
            yield
            # Nobody will carry out what the answers wait for.
            await service.leave(0)
        finally:
            await admission.stop()
            await engine.close()

    return serving


async def carried_out(dsn: str, request: Request) -> Outcome:
    """What becomes of a request that is carried out by one who dies before anybody hears of it."""
    order = Order(request, DEFAULTS, ALL_RIGHTS)
    database = Database(dsn)
    try:
        (outcome,) = await database.transact(
            lambda tx: carry_out(tx, read_layout, request.site, [order])
        )
    finally:
        await database.close()
    assert isinstance(outcome, Outcome), outcome
    return outcome


class ServiceProcess:
    """A real process of one service; its log lines go to a file."""

    def __init__(self, service: str, url: str, site: str, dsn: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "cli", service]
        self._environment = os.environ | {
            "IMAGEINVOKER_SERVER": url,
            "IMAGEINVOKER_SITE": site,
            "IMAGEINVOKER_DATABASE": dsn,
            "XDG_DATA_HOME": str(folder),
        }
        self.log = folder / f"{service}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Ends it as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def terminate(self) -> None:
        """Asks it to leave."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def status(self, seconds: float = 30) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        status = await asyncio.to_thread(self._process.wait, seconds)
        self._process = None
        return status

    async def serving(self, times: int = 1) -> None:
        """Returns when it is on the bus, for the ``times``-th time."""
        await self.logged("serving", times)

    async def logged(self, event: str, times: int = 1) -> None:
        """Returns when it has logged a line so often."""

        async def count() -> int:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            return self.log.read_text().count(f'"event": "{event}"')

        await eventually(count, lambda found: found >= times, 20)


@contextmanager
def processes(*started: ServiceProcess) -> Iterator[None]:
    """Starts processes, and ends those that are left."""
    try:
        for each in started:
            each.start()
        yield
    finally:
        for each in started:
            each.kill()
