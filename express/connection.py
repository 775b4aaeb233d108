"""One connection over ODBC, with a thread of its own that nothing else waits for."""

import asyncio
import contextvars
import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import pyodbc

from engine.errors import EngineUnavailable
from express.dialects import Dialect, dialect_of

SQLITE_GATE: Final = threading.Lock()
"""Held while a connection to SQLite opens or closes: its driver keeps them all in one list, which
it changes without a lock of its own (libsqliteodbc 0.9998), so that a process could crash."""

_SQLITE: Final = {"SyncPragma": "FULL"}
_PSQLODBC: Final = {"UseServerSidePrepare": "0", "Protocol": "7.4-0"}

_T = TypeVar("_T")


class DatabaseUnavailable(EngineUnavailable):
    """The database did not answer in time, or not at all; ``reason`` is for the log."""


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


def tuned(dsn: str) -> str:
    """A connection string with what its driver needs to be told, where it does not say otherwise.

    SQLite's driver leaves a commit in the cache of the operating system: a power failure would take
    what was promised. psqlodbc would prepare each statement on the server and forget it at once,
    and set a savepoint before each, though no transaction here goes on after a failure: that
    doubles what a statement costs.
    """
    if is_sqlite(dsn):
        wanted = _SQLITE
    elif re.search(r"(?i)driver\s*=\s*\{?[^;]*(?:postgres|psqlodbc)", dsn):
        wanted = _PSQLODBC
    else:
        return dsn
    said = {part.partition("=")[0].strip().lower() for part in dsn.split(";")}
    settings = [f"{name}={value}" for name, value in wanted.items() if name.lower() not in said]
    return ";".join([dsn.rstrip(";"), *settings])


def _known(dbms_name: str) -> Dialect:
    dialect = dialect_of(dbms_name)
    if dialect is None:
        raise DatabaseUnavailable(f"{dbms_name} is no database server known here")
    return dialect


class Lane:
    """One daemon thread that does what it is given, in order.

    The standard pool's threads are joined when the process ends, so one that hangs would hang it.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="odbc", daemon=True).start()

    def submit(self, do: Callable[[], _T]) -> "Future[_T]":
        """Does it when what was given before is done, in the context of who asks."""
        future: Future[_T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(do)
            except StopIteration as error:
                # No coroutine can raise it: who waits for the future would do so for ever.
                stopped = RuntimeError("what was to be done raised StopIteration")
                stopped.__cause__ = error
                future.set_exception(stopped)
            except BaseException as error:  # noqa: BLE001 (whoever waits for the future gets it)
                future.set_exception(error)
            else:
                future.set_result(result)

        self._work.put(work)
        return future

    def shutdown(self) -> None:
        """Ends the thread after what it has been given; never waits for it."""
        self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            # Nothing of a finished call may live on here: it may be the last to hold a connection.
            del work


class OdbcConnection:
    """One ODBC connection and its one cursor, for the thread of their lane alone."""

    def __init__(
        self, lane: Lane, odbc: pyodbc.Connection, cursor: pyodbc.Cursor, dialect: Dialect
    ) -> None:
        self.lane = lane
        self.odbc = odbc
        self.cursor = cursor
        self.dialect: Dialect = dialect
        self.idle_since = 0.0

    @classmethod
    async def open(
        cls, dsn: str, login_timeout: float, statement_timeout: float
    ) -> "OdbcConnection":
        """Connects and tells the server how long a statement may take.

        Raises:
            pyodbc.Error: the driver could not connect.
            DatabaseUnavailable: what answers is none of the servers known here.
        """
        lane = Lane()
        opened = partial(cls._opened, lane, dsn, login_timeout, statement_timeout)
        try:
            return await asyncio.wrap_future(lane.submit(opened))
        except BaseException:
            lane.shutdown()
            raise

    @classmethod
    def _opened(
        cls, lane: Lane, dsn: str, login_timeout: float, statement_timeout: float
    ) -> "OdbcConnection":
        with _gate(sqlite=is_sqlite(dsn)):
            odbc = pyodbc.connect(dsn, timeout=math.ceil(login_timeout))
            try:
                dialect = _known(str(odbc.getinfo(pyodbc.SQL_DBMS_NAME)))
                if dialect == "mssql":
                    odbc.timeout = math.ceil(statement_timeout)
                # It takes over the connection's time-out when it is made, and never after.
                cursor = odbc.cursor()
                if dialect == "postgres":
                    milliseconds = math.ceil(statement_timeout * 1000)
                    cursor.execute(f"SET statement_timeout = {milliseconds}")
                    # By its own 4 it reads thousands of computers rather than ask an index for ten.
                    cursor.execute("SET random_page_cost = 1.1")
                    odbc.commit()
            except BaseException:
                odbc.close()
                raise
            return cls(lane, odbc, cursor, dialect)

    @property
    def version(self) -> str:
        """The database server's name and version, as the driver tells them."""
        wanted = (pyodbc.SQL_DBMS_NAME, pyodbc.SQL_DBMS_VER)
        return " ".join(str(self.odbc.getinfo(each)) for each in wanted)

    async def check(self) -> None:
        """Asks for a sign of life."""

        def ask() -> None:
            self.cursor.execute("SELECT 1").fetchall()
            self.odbc.rollback()

        await asyncio.wrap_future(self.lane.submit(ask))

    async def close(self, *, interrupt: bool) -> None:
        """Ends the connection in its own thread, for as long as that takes.

        With ``interrupt`` the statement that still runs is cancelled first, so that the server
        lets go of what it locked.
        """
        sqlite = self.dialect == "sqlite"

        def end() -> None:
            with _gate(sqlite=sqlite):
                # SQLite's driver keeps the files of a connection open whose cursor still is.
                with suppress(pyodbc.Error):
                    self.cursor.close()
                with suppress(pyodbc.Error):
                    self.odbc.close()

        # SQLite's driver frees what it is working on when another thread cancels, and crashes.
        # Its statements end by themselves: no server is there to hang.
        if interrupt and not sqlite:
            await self._interrupt()
        ending = self.lane.submit(end)
        self.lane.shutdown()
        # Who gives up waiting leaves it to the lane: the driver bears to be closed there only.
        await asyncio.shield(asyncio.wrap_future(ending))

    async def _interrupt(self) -> None:
        helper = Lane()
        cancelled = helper.submit(self.cursor.cancel)
        helper.shutdown()
        # Awaited, since no driver bears to be closed in the middle of this.
        with suppress(pyodbc.Error):
            await asyncio.wrap_future(cancelled)


def _gate(*, sqlite: bool) -> AbstractContextManager[object]:
    return SQLITE_GATE if sqlite else nullcontext()


async def end_late(opening: "asyncio.Task[OdbcConnection]") -> None:
    """Ends a connection that nobody waits for any more, once it stands, if it ever does."""
    try:
        connection = await opening
    except (pyodbc.Error, DatabaseUnavailable):
        return
    await connection.close(interrupt=False)
