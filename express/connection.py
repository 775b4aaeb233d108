"""One connection over ODBC, with a thread of its own that nothing else waits for."""

import asyncio
import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final, ParamSpec, TypeVar

import aioodbc
import pyodbc
from aioodbc.cursor import Cursor

from bus.problems import Problem
from express.dialects import Dialect, dialect_of

SQLITE_GATE: Final = threading.Lock()
"""Held while a connection to SQLite opens or closes: its driver keeps them all in one list, which
it changes without a lock of its own (libsqliteodbc 0.9998), so that a process could crash."""

_T = TypeVar("_T")
_P = ParamSpec("_P")


class DatabaseUnavailable(Problem):
    """The database did not answer in time, or not at all; ``reason`` is for the log."""

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__("deployment_server_unavailable", message)
        self.reason = reason


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


def _known(dbms_name: str) -> Dialect:
    dialect = dialect_of(dbms_name)
    if dialect is None:
        raise DatabaseUnavailable(f"{dbms_name} is no database server known here")
    return dialect


class Lane(Executor):
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


class OdbcConnection:
    """One ODBC connection, its one cursor, and the lane that all of its calls run in."""

    def __init__(
        self,
        lane: Lane,
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
    async def open(
        cls, dsn: str, login_timeout: float, statement_timeout: float
    ) -> "OdbcConnection":
        """Connects and tells the server how long a statement may take.

        Raises:
            pyodbc.Error: the driver could not connect.
            DatabaseUnavailable: what answers is none of the servers known here.
        """
        raws: list[pyodbc.Connection] = []

        async def keep(raw: pyodbc.Connection) -> None:
            raws.append(raw)

        async with AsyncExitStack() as undo:
            lane = Lane()
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
        helper = Lane()
        cancelled = helper.submit(self._raw.cancel)
        helper.shutdown()
        # Awaited, since no driver bears to be closed in the middle of this.
        with suppress(pyodbc.Error):
            await asyncio.wrap_future(cancelled)


async def end_late(opening: "asyncio.Task[OdbcConnection]") -> None:
    """Ends a connection that nobody waits for any more, once it stands, if it ever does."""
    try:
        connection = await opening
    except (pyodbc.Error, DatabaseUnavailable):
        return
    await connection.close(interrupt=False)
