"""Connections to the deployment server's database that are checked, bounded and timed.

Every connection has a thread of its own, so that one that hangs holds up nobody else; the number of
threads is bounded, and no caller waits longer than the time-outs say, whatever the database does.
"""

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from datetime import datetime
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

import aioodbc
import pyodbc
from aioodbc.cursor import Cursor

from bus.problems import Problem
from express.dialects import Column, Dialect, column, dialect_of, meaning

Value = str | int | float | datetime | None
"""What can be bound to a statement's marker."""
Row = Sequence[Any]
"""A row as the driver gives it; what a column holds is for the schema to say."""

MAX_ROWS: Final = 1000
"""Rows of one INSERT, and values of one IN list; T-SQL takes no more of the former."""
MAX_MARKERS: Final = 2000
"""Markers of one statement; T-SQL takes 2100."""

_CLOSING: Final = 2.0
"""Seconds that `Database.close` waits for connections to end."""

SQLITE_GATE: Final = threading.Lock()
"""Held while a connection to SQLite opens or closes: its driver keeps them all in one list, which
it changes without a lock of its own (libsqliteodbc 0.9998), so that a process could crash."""

_T = TypeVar("_T")
_P = ParamSpec("_P")
_SECRET = re.compile(r"(?i)(?:PWD|Password)\s*=\s*(\{(?:[^}]|\}\})*\}|[^;]*)")


class DatabaseUnavailable(Problem):
    """The database did not answer in time, or not at all; ``reason`` is for the log."""

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__("deployment_server_unavailable", message)
        self.reason = reason


class WriteConflict(Exception):
    """Another transaction was in the way (deadlock, lock, unique key): this one may be repeated."""


def sqlite_dsn(path: Path) -> str:
    """The connection string of a SQLite file.

    Raises:
        ValueError: the path holds what no connection string can hold.
    """
    text = str(path.absolute())
    if any(c in text for c in ";{}\0"):
        raise ValueError(f"no database can stand at {text!r}: a path without ; {{ }} is needed")
    return f"Driver=SQLite3;Database={text};JournalMode=WAL;Timeout=5000;FKSupport=1"


def is_sqlite(dsn: str) -> bool:
    """Whether a connection string names a driver of SQLite."""
    return re.search(r"(?i)driver\s*=\s*\{?[^;]*sqlite", dsn) is not None


def markers(count: int) -> str:
    """The markers of ``count`` values, for an IN list or one row."""
    return ", ".join("?" * count)


def _known(dbms_name: str) -> Dialect:
    dialect = dialect_of(dbms_name)
    if dialect is None:
        raise DatabaseUnavailable(f"{dbms_name} is no database server known here")
    return dialect


class _Lane(Executor):
    """One daemon thread that does what it is given, in order.

    The standard pool's threads are joined when the process ends, so one that hangs would hang it.
    What it does is done within ``gate``.
    """

    def __init__(self) -> None:
        self.gate: AbstractContextManager[object] = nullcontext()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="odbc", daemon=True).start()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        future: Future[_T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with self.gate:
                    result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._work.put(work)
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Ends the thread after what it has been given; never waits for it."""
        self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            # Nothing of a finished call may live on here: it may be the last to hold a connection.
            del work


class _Connection:
    """One ODBC connection, its one cursor, and the lane that all of its calls run in."""

    def __init__(
        self,
        lane: _Lane,
        odbc: aioodbc.Connection,
        raw: pyodbc.Cursor,
        dialect: Dialect,
        version: str,
    ) -> None:
        self.lane = lane
        self.odbc = odbc
        self.cursor = Cursor(raw, odbc)
        self.dialect: Dialect = dialect
        self.version = version
        self.idle_since = 0.0
        self._raw = raw

    @classmethod
    async def open(cls, dsn: str, login_timeout: float, statement_timeout: float) -> "_Connection":
        """Connects and tells the server how long a statement may take.

        Raises:
            pyodbc.Error: the driver could not connect.
            DatabaseUnavailable: what answers is none of the servers known here.
        """
        raws: list[pyodbc.Connection] = []

        async def keep(raw: pyodbc.Connection) -> None:
            raws.append(raw)

        async with AsyncExitStack() as undo:
            lane = _Lane()
            undo.callback(lane.shutdown)
            if is_sqlite(dsn):
                lane.gate = SQLITE_GATE
            odbc = await aioodbc.connect(
                dsn=dsn, executor=lane, timeout=math.ceil(login_timeout), after_created=keep
            )
            undo.push_async_callback(odbc.close)
            name = str(await odbc.getinfo(pyodbc.SQL_DBMS_NAME))
            version = str(await odbc.getinfo(pyodbc.SQL_DBMS_VER))
            dialect = _known(name)
            connection = raws.pop()
            if dialect == "mssql":
                connection.timeout = math.ceil(statement_timeout)
            elif dialect == "postgres":
                milliseconds = math.ceil(statement_timeout * 1000)
                await odbc.execute(f"SET statement_timeout = {milliseconds}")
                await odbc.commit()
            raw = await asyncio.get_running_loop().run_in_executor(lane, connection.cursor)
            undo.pop_all()
        lane.gate = nullcontext()
        return cls(lane, odbc, raw, dialect, f"{name} {version}")

    async def check(self) -> None:
        """Asks for a sign of life."""
        await self.cursor.execute("SELECT 1")
        await self.cursor.fetchall()
        await self.odbc.rollback()

    async def close(self, *, interrupt: bool) -> None:
        """Ends the connection in its own thread, for as long as that takes.

        With ``interrupt`` the statement that still runs is cancelled first, so that the server
        lets go of what it locked.
        """
        try:
            # SQLite's driver frees what it is working on when another thread cancels, and crashes.
            # Its statements end by themselves: no server is there to hang.
            if interrupt and self.dialect != "sqlite":
                await self._interrupt()
            if self.dialect == "sqlite":
                self.lane.gate = SQLITE_GATE
            with suppress(pyodbc.Error):
                await self.odbc.close()
        finally:
            # aioodbc's finaliser would close a connection that still hangs from the event loop's
            # thread, and hang that too. Without its last reference the driver's object ends in
            # the lane's thread, once the call that holds it returns.
            self.odbc._conn = None
            self.lane.shutdown()

    async def _interrupt(self) -> None:
        helper = _Lane()
        cancelled = helper.submit(self._raw.cancel)
        helper.shutdown()
        # Awaited, since no driver bears to be closed in the middle of this.
        with suppress(pyodbc.Error):
            await asyncio.wrap_future(cancelled)


async def _end_late(opening: "asyncio.Task[_Connection]") -> None:
    """Ends a connection that nobody waits for any more, once it stands, if it ever does."""
    try:
        connection = await opening
    except (pyodbc.Error, DatabaseUnavailable):
        return
    await connection.close(interrupt=False)


class Transaction:
    """What can be asked of the database inside one transaction.

    Every method raises `DatabaseUnavailable`, `WriteConflict`, or the driver's error for a
    statement that the database refuses. After any of them the transaction can only be rolled back.
    """

    def __init__(self, connection: _Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._failure: Exception | None = None
        self._alive = True
        self._clean = True
        self.running = False

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    @property
    def version(self) -> str:
        """The database server's name and version, as the driver tells them."""
        return self._connection.version

    async def fetch(self, sql: str, *params: Value) -> list[Row]:
        """The rows of a query."""

        async def ask() -> list[Row]:
            await self._connection.cursor.execute(sql, *params)
            rows: list[Row] = await self._connection.cursor.fetchall()
            return rows

        return await self._timed(ask)

    async def execute(self, sql: str, *params: Value) -> int:
        """Carries a statement out; returns the number of rows it touched."""

        async def do() -> int:
            await self._connection.cursor.execute(sql, *params)
            return int(self._connection.cursor.rowcount)

        return await self._timed(do)

    async def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]
    ) -> None:
        """Inserts rows in their order, many with each statement."""
        names = ", ".join(columns)
        row = markers(len(columns))
        most = min(MAX_ROWS, MAX_MARKERS // len(columns))
        for start in range(0, len(rows), most):
            batch = rows[start : start + most]
            statement = f"INSERT INTO {table} ({names}) VALUES ({row})" + f", ({row})" * (
                len(batch) - 1
            )
            await self.execute(statement, *chain.from_iterable(batch))

    async def columns(self, table: str) -> tuple[Column, ...]:
        """The columns of a table in their order; none when there is no such table."""

        async def ask() -> tuple[Column, ...]:
            cursor = self._connection.cursor
            await cursor.columns(table=table)
            # The name is a pattern to the driver, in which an underscore is any character.
            found = [row for row in await cursor.fetchall() if row[2].lower() == table]
            schemas = {row[1] for row in found}
            schema = next((name for name in ("dbo", "public") if name in schemas), None)
            if schema is not None:
                found = [row for row in found if row[1] == schema]
            keys: list[str] = []
            if found and self.dialect == "sqlite":
                await cursor.primaryKeys(table=table)
                keys = [row[3] for row in await cursor.fetchall()]
            return tuple(
                column(
                    self.dialect, row[3], row[5], row[6], row[10] != 0, row[12], keys == [row[3]]
                )
                for row in found
            )

        return await self._timed(ask)

    async def commit(self) -> None:
        """Commits; `Database.transaction` does it. A failure that was hushed up comes out here."""
        if self._failure is not None:
            raise self._failure
        await self._timed(self._connection.odbc.commit)

    async def roll_back(self) -> bool:
        """Rolls back where that can be done; False when the connection is not to be used again."""
        if not self._alive:
            return False
        try:
            await self._timed(self._connection.odbc.rollback)
        except (Problem, WriteConflict, pyodbc.Error):
            return False
        return self._clean

    async def _timed(self, call: Callable[[], Awaitable[_T]]) -> _T:
        self.running = True
        try:
            async with asyncio.timeout(self._timeout):
                result = await call()
        except pyodbc.Error as error:
            self.running = False
            self._failure = self._failed(error)
            raise self._failure from None
        except TimeoutError:
            self._alive = False
            self._failure = DatabaseUnavailable(f"no answer within {self._timeout:g} s")
            raise self._failure from None
        except BaseException:
            self._alive = False
            raise
        self.running = False
        return result

    def _failed(self, error: pyodbc.Error) -> Exception:
        text = str(error.args[-1])
        match meaning(str(error.args[0]), text):
            case "conflict":
                return WriteConflict(text)
            case "unavailable":
                self._alive = False
                return DatabaseUnavailable(text)
            case "error":
                self._clean = False
                plain: Exception = error
                return plain


class Database:
    """A small pool of connections to one database."""

    def __init__(
        self,
        dsn: str,
        *,
        size: int = 4,
        connect_timeout: float = 5,
        statement_timeout: float = 10,
        wait_timeout: float = 5,
        trusted_idle: float = 2,
        create: bool = False,
    ) -> None:
        """Connects to nothing yet.

        Args:
            dsn: the ODBC connection string.
            size: transactions at a time.
            connect_timeout: seconds until a connection must stand.
            statement_timeout: seconds that one statement may take.
            wait_timeout: seconds to wait for one of ``size`` connections to become free.
            trusted_idle: seconds for which an idle connection is used without a check.
            create: make a SQLite file that does not exist, instead of refusing it.
        """
        # The driver manager's own pool would hand out connections that nobody checked.
        pyodbc.pooling = False
        secret = _SECRET.search(dsn)
        self._secret = secret[1] if secret else ""
        file = not create and is_sqlite(dsn)
        self._dsn = f"{dsn.rstrip(';')};NoCreat=1" if file else dsn
        self._size = size
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._wait_timeout = wait_timeout
        self._trusted_idle = trusted_idle
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Connection] = []
        self._lanes = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction: committed at its end, rolled back by any exception.

        Raises:
            DatabaseUnavailable: there is no connection to be had in time, or the commit had no
                answer; what was written may then be there or not.
        """
        return self._transaction()

    async def close(self) -> None:
        """Ends every connection; those that hang are left behind after two seconds."""
        self._closed = True
        self._discard_idle()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSING)
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        connection = await self._check_out()
        tx = Transaction(connection, self._statement_timeout)
        sound = False
        try:
            yield tx
            await tx.commit()
            sound = True
        except Exception:
            sound = await tx.roll_back()
            raise
        finally:
            self._check_in(connection, sound=sound, interrupt=tx.running)

    async def _check_out(self) -> _Connection:
        if self._closed:
            raise DatabaseUnavailable("the pool is closed")
        try:
            async with asyncio.timeout(self._wait_timeout):
                await self._free.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(
                f"all {self._size} connections were busy for {self._wait_timeout:g} s"
            ) from None
        try:
            return await self._idle_one() or await self._new_one()
        except BaseException:
            self._free.release()
            raise

    def _check_in(self, connection: _Connection, *, sound: bool, interrupt: bool) -> None:
        self._free.release()
        if sound and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self._discard(connection, interrupt=interrupt)

    async def _idle_one(self) -> _Connection | None:
        """An idle connection that lives, or None."""
        while self._idle:
            connection = self._idle.pop()
            if asyncio.get_running_loop().time() - connection.idle_since < self._trusted_idle:
                return connection
            alive = False
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await connection.check()
                alive = True
            except (TimeoutError, pyodbc.Error):
                # Whatever ended this one has very likely ended those that idle beside it.
                self._discard_idle()
            finally:
                if not alive:
                    self._discard(connection, interrupt=True)
            if alive:
                return connection
        return None

    async def _new_one(self) -> _Connection:
        opening: asyncio.Task[_Connection] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                # Those that are being ended may hang, and each of them keeps a thread.
                while self._ending and self._lanes >= 2 * self._size:
                    await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
                self._lanes += 1
                opening = asyncio.create_task(
                    _Connection.open(self._dsn, self._connect_timeout, self._statement_timeout)
                )
                return await asyncio.shield(opening)
        except BaseException as error:
            if opening is not None:
                self._end(_end_late(opening))
            if isinstance(error, pyodbc.Error):
                reason = self._without_secret(str(error.args[-1]))
                raise DatabaseUnavailable(reason) from None
            if isinstance(error, TimeoutError):
                reason = f"no connection within {self._connect_timeout:g} s"
                raise DatabaseUnavailable(reason) from None
            raise

    def _discard(self, connection: _Connection, *, interrupt: bool) -> None:
        self._end(connection.close(interrupt=interrupt))

    def _discard_idle(self) -> None:
        while self._idle:
            self._discard(self._idle.pop(), interrupt=False)

    def _end(self, work: Coroutine[None, None, None]) -> None:
        """Ends one connection or attempt at one, in the background."""

        def ended(task: asyncio.Task[None]) -> None:
            self._ending.discard(task)
            self._lanes -= 1

        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(ended)

    def _without_secret(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text
