"""Real databases for tests: SQLite files, a PostgreSQL server of our own, a SQL Server if given.

`dsn` is the connection string of an embedded database with the sample job tree, one for each test
and kind of server; `empty_dsn` that of an empty one. A SQL Server takes part when the environment
variable IMAGEINVOKER_TEST_MSSQL holds the connection string of an empty database.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import pyodbc
import pytest

from express.connection import sqlite_dsn
from express.database import Database, Transaction
from express.dialects import Dialect
from express.schema import create_embedded
from tests.buses import free_port

MSSQL = os.environ.get("IMAGEINVOKER_TEST_MSSQL", "")
KINDS: list[Dialect] = ["sqlite", "postgres", *(["mssql"] if MSSQL else [])]  # type: ignore[list-item]

_TABLES = (
    "event_schedule", "nics", "hardware", "computer", "computer_group", "event", "event_folder",
    "ii_request", "ii_lock", "ii_monitor", "ii_heard", "ii_opening", "ii_deployment", "ii_rollup",
    "ii_total",
)  # fmt: skip


_HANGS: Final = 10.0
"""Seconds after which a transaction that should have gone on is taken to hang."""

T = TypeVar("T")


class PostgresServer:
    """A PostgreSQL server in a scratch folder, reached by TCP on the loopback address."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        assert found, "PostgreSQL is not installed (Debian: postgresql)"
        self._bin = found[-1].parent
        self._folder = Path(tempfile.mkdtemp(prefix="ii-postgres-"))
        # The server refuses to run as root.
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as_user = [
                "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
            ]  # fmt: skip
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = free_port()
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "--no-sync",
                  "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip

    def _run(self, program: str, *args: str | Path) -> None:
        subprocess.run(
            [*self._as_user, self._bin / program, *args],
            check=True, stdout=subprocess.DEVNULL, cwd=self._folder, timeout=60,
        )  # fmt: skip

    def start(self, *, durable: bool = False) -> None:
        """Starts it and waits until it answers; ``durable`` waits for the disk, as is usual."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_user, self._bin / "postgres", "-D", self._data,
                    *(() if durable else ("-F",)),
                    "-p", str(self.port), "-h", "127.0.0.1", "-k", self._folder,
                    "-c", "max_connections=200", "-c", "shared_buffers=16MB",
                ],
                stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        until = time.monotonic() + 30
        while True:
            try:
                self.admin().close()
            except pyodbc.Error:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < until, "PostgreSQL did not start"
                time.sleep(0.02)
            else:
                return

    @property
    def pid(self) -> int:
        """Its process; its backends are the children of that."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stops the server at once, as if it had crashed, or as gently as ``how`` says."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @contextmanager
    def frozen(self, *, for_all: bool = True) -> Iterator[None]:
        """The server as it is when its machine hangs: connections stand, and nothing answers.

        Without ``for_all`` only those who connect anew get no answer.
        """
        assert self._process is not None
        server = self._process.pid
        os.kill(server, signal.SIGSTOP)
        # Only now does the server start no further process.
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        stopped = [*map(int, children if for_all else ()), server]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def dsn(self, database: str = "postgres") -> str:
        return (
            f"Driver=PostgreSQL Unicode;Server=127.0.0.1;Port={self.port};Database={database};"
            "UID=postgres;PWD=not-asked-for"
        )

    def admin(self) -> Any:
        """A connection outside of what is tested."""
        return pyodbc.connect(self.dsn(), autocommit=True, timeout=2)

    def create(self, template: str = "template0") -> str:
        """A new database's name."""
        self._databases += 1
        name = f"t{self._databases}"
        admin = self.admin()
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        admin.close()
        return name

    def drop(self, name: str) -> None:
        admin = self.admin()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()


class Held:
    """A transaction that takes its steps one by one, when a test says so."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[Callable[[Transaction], None] | None] = SimpleQueue()

    async def do(self, step: Callable[[Transaction], T]) -> T:
        """What a step makes of the transaction; one that fails ends it."""
        done: Future[T] = Future()

        def take(tx: Transaction) -> None:
            try:
                done.set_result(step(tx))
            except BaseException as error:
                done.set_exception(error)
                raise

        self._steps.put(take)
        async with asyncio.timeout(_HANGS):
            return await asyncio.wrap_future(done)

    def work(self, tx: Transaction) -> None:
        """For `Database.transact`."""
        while (step := self._steps.get()) is not None:
            step(tx)

    def end(self) -> None:
        """Nothing more is to be done."""
        self._steps.put(None)


@asynccontextmanager
async def held(database: Database) -> AsyncIterator[Held]:
    """A transaction that stands, does as it is told, and is committed at the end."""
    transaction = Held()
    doing = asyncio.create_task(database.transact(transaction.work))
    try:
        await transaction.do(lambda _tx: None)
        yield transaction
    finally:
        transaction.end()
        await doing


async def together(database: Database, count: int, work: Callable[[Transaction], T]) -> list[T]:
    """What ``count`` transactions make of it that are open at the same time."""
    met = threading.Barrier(count, timeout=_HANGS)

    def meet(tx: Transaction) -> T:
        met.wait()
        return work(tx)

    return await asyncio.gather(*(database.transact(meet) for _ in range(count)))


async def _create_sample(dsn: str) -> None:
    database = Database(dsn, create=True)
    await create_embedded(database, sample=True)
    await database.close()


def _empty_mssql() -> None:
    connection = pyodbc.connect(MSSQL, autocommit=True, timeout=10)
    for table in _TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test run."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    name = postgres.create()
    asyncio.run(_create_sample(postgres.dsn(name)))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(_create_sample(sqlite_dsn(path)))
    return path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Dialect:
    """Each kind of database server at hand."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def empty_dsn(kind: Dialect, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The connection string of an empty database; a SQLite file does not exist yet."""
    match kind:
        case "sqlite":
            yield sqlite_dsn(tmp_path / "express.db")
        case "postgres":
            server: PostgresServer = request.getfixturevalue("postgres")
            name = server.create()
            yield server.dsn(name)
            server.drop(name)
        case "mssql":
            _empty_mssql()
            yield MSSQL
            _empty_mssql()


@pytest.fixture
def dsn(kind: Dialect, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The connection string of an embedded database with the sample job tree."""
    match kind:
        case "sqlite":
            path = tmp_path / "express.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
            yield sqlite_dsn(path)
        case "postgres":
            server: PostgresServer = request.getfixturevalue("postgres")
            name = server.create(request.getfixturevalue("postgres_template"))
            yield server.dsn(name)
            server.drop(name)
        case "mssql":
            _empty_mssql()
            asyncio.run(_create_sample(MSSQL))
            yield MSSQL
            _empty_mssql()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool of connections to an embedded database with the sample job tree."""
    pool = Database(dsn)
    yield pool
    await pool.close()
