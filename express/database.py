"""Connections to the deployment server's database that are checked, bounded and timed.

Every connection has a thread of its own (`express/connection.py`), so that one that hangs holds up
nobody else; the number of threads is bounded, and no caller waits longer than the time-outs say,
whatever the database does. A transaction is carried out in its connection's thread from its
beginning to its end: to go there and back for each statement costs thirty times what a small
statement does.
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

import pyodbc

from bus.problems import Problem
from engine.errors import Conflict
from engine.protocol import Observer
from express.connection import DatabaseUnavailable, OdbcConnection, end_late, is_sqlite, tuned
from express.dialects import Column, Dialect, column, meaning

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

_T = TypeVar("_T")
_SECRET = re.compile(r"(?i)(?:PWD|Password)\s*=\s*(\{(?:[^}]|\}\})*\}|[^;]*)")


class WriteConflict(Conflict):
    """Another transaction was in the way (deadlock, lock, unique key): this one may be repeated."""


def markers(count: int) -> str:
    """The markers of ``count`` values, for an IN list or one row."""
    return ", ".join("?" * count)


class Transaction:
    """What can be asked of the database inside one transaction, in the thread it is carried out in.

    Every method raises `DatabaseUnavailable`, `WriteConflict`, or the driver's error for a
    statement that the database refuses. After any of them the transaction can only be rolled back.
    """

    def __init__(self, connection: OdbcConnection) -> None:
        self.usable = True
        """Whether the connection can be used for other transactions after this one."""
        self.left = False
        """Whether whoever wanted it is gone: then nothing more of it is done."""
        self.steps: list[tuple[float, bool]] = []
        """The seconds that each statement took, and whether it went well."""
        self._connection = connection
        self._failure: Exception | None = None
        self._since: float | None = None
        # Held where a statement begins and ends, and where the transaction is left.
        self._border = threading.Lock()

    @property
    def took(self) -> float | None:
        """The seconds that the statement has taken so far that is running, None if none is."""
        since = self._since
        return None if since is None else time.perf_counter() - since

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    @property
    def version(self) -> str:
        """The database server's name and version, as the driver tells them."""
        return self._connection.version

    def fetch(self, sql: str, *params: Value) -> list[Row]:
        """The rows of a query."""
        cursor = self._connection.cursor
        return self._do(lambda: cursor.execute(sql, *params).fetchall())

    def execute(self, sql: str, *params: Value) -> int:
        """Carries a statement out; returns the number of rows it touched."""
        cursor = self._connection.cursor
        return self._do(lambda: int(cursor.execute(sql, *params).rowcount))

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Inserts rows in their order, many with each statement."""
        names = ", ".join(columns)
        row = markers(len(columns))
        most = min(MAX_ROWS, MAX_MARKERS // len(columns))
        for start in range(0, len(rows), most):
            batch = rows[start : start + most]
            statement = f"INSERT INTO {table} ({names}) VALUES ({row})" + f", ({row})" * (
                len(batch) - 1
            )
            self.execute(statement, *chain.from_iterable(batch))

    def columns(self, table: str) -> tuple[Column, ...]:
        """The columns of a table in their order; none when there is no such table."""
        cursor = self._connection.cursor
        # The name is a pattern to the driver, in which an underscore is any character.
        described = self._do(lambda: cursor.columns(table=table).fetchall())
        found = [row for row in described if row[2].lower() == table]
        schemas = {row[1] for row in found}
        schema = next((name for name in ("dbo", "public") if name in schemas), None)
        if schema is not None:
            found = [row for row in found if row[1] == schema]
        keys: list[str] = []
        if found and self.dialect == "sqlite":
            primary = self._do(lambda: cursor.primaryKeys(table=table).fetchall())
            keys = [row[3] for row in primary]
        return tuple(
            column(self.dialect, row[3], row[5], row[6], row[10] != 0, row[12], keys == [row[3]])
            for row in found
        )

    def leave(self) -> None:
        """Nothing more of it is done; the statement that runs counts as failed.

        May be called in any thread.
        """
        with self._border:
            self.left = True
            if self._since is not None:
                self.steps.append((time.perf_counter() - self._since, False))

    def carry_out(self, work: Callable[["Transaction"], _T]) -> _T:
        """Does ``work`` and commits it, or rolls back whatever it raises.

        A failure that ``work`` hushed up is raised instead of the commit.
        """
        try:
            result = work(self)
            self._commit()
        except BaseException:
            self._roll_back()
            raise
        return result

    def _commit(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._do(self._connection.odbc.commit)

    def _roll_back(self) -> None:
        # A connection that is lost has nothing left to be rolled back.
        if not isinstance(self._failure, DatabaseUnavailable):
            try:
                self._do(self._connection.odbc.rollback)
            except (Problem, WriteConflict, pyodbc.Error):
                self.usable = False

    def _do(self, call: Callable[[], _T]) -> _T:
        with self._border:
            if self.left:
                raise DatabaseUnavailable("nobody waits for it any more")
            self._since = began = time.perf_counter()
        well = True
        try:
            return call()
        except pyodbc.Error as error:
            failure = self._failed(error)
            well = isinstance(failure, WriteConflict)
            self._failure = failure
            raise failure from None
        finally:
            with self._border:
                self._since = None
                if not self.left:
                    self.steps.append((time.perf_counter() - began, well))

    def _failed(self, error: pyodbc.Error) -> Exception:
        text = str(error.args[-1])
        match meaning(str(error.args[0]), text):
            case "conflict":
                return WriteConflict(text)
            case "unavailable":
                self.usable = False
                return DatabaseUnavailable(text)
            case "error":
                self.usable = False
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
        observe: Observer = lambda _step, _seconds, _well: None,
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
            observe: told of every step that takes time.
        """
        # The driver manager's own pool would hand out connections that nobody checked.
        pyodbc.pooling = False
        secret = _SECRET.search(dsn)
        self._secret = secret[1] if secret else ""
        file = not create and is_sqlite(dsn)
        self._dsn = tuned(f"{dsn.rstrip(';')};NoCreat=1" if file else dsn)
        self._size = size
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._wait_timeout = wait_timeout
        self._trusted_idle = trusted_idle
        self._observe = observe
        self._free = asyncio.Semaphore(size)
        self._idle: list[OdbcConnection] = []
        self._lanes = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        """What ``work`` makes of a transaction: committed, or rolled back if it raises anything.

        ``work`` is done in a thread, so it must not touch what others may change meanwhile. Who is
        cancelled leaves it; then it goes no further than the statement that runs.

        Raises:
            DatabaseUnavailable: there is no connection to be had in time, or a statement or the
                commit had no answer; what was written may then be there or not.
        """
        began = time.perf_counter()
        well = False
        try:
            connection = await self._check_out()
            well = True
        finally:
            self._observe("connection", time.perf_counter() - began, well)
        transaction = Transaction(connection)
        doing = asyncio.wrap_future(connection.lane.submit(partial(transaction.carry_out, work)))
        try:
            await self._done(transaction, doing)
        except BaseException:
            transaction.leave()
            if not doing.cancel():
                # Or asyncio would complain that nobody looks at what it raised meanwhile.
                doing.exception()
            raise
        finally:
            self._check_in(
                connection,
                usable=transaction.usable and not transaction.left,
                busy=transaction.left,
            )
            for seconds, well in transaction.steps:
                self._observe("statement", seconds, well)
        return doing.result()

    async def sign_of_life(self) -> None:
        """Asks for something that every database has.

        Raises:
            Exception: it does not answer.
        """
        await self.transact(lambda transaction: transaction.fetch("SELECT 1"))

    async def close(self) -> None:
        """Ends every connection; those that hang are left behind after two seconds."""
        self._closed = True
        self._discard_idle()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSING)
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _done(self, transaction: Transaction, doing: asyncio.Future[_T]) -> None:
        """Returns when it is done, well or not.

        Raises:
            DatabaseUnavailable: a statement takes too long.
        """
        left = self._statement_timeout
        while not (await asyncio.wait({doing}, timeout=left))[0]:
            took = transaction.took or 0.0
            if took >= self._statement_timeout:
                raise DatabaseUnavailable(f"no answer within {self._statement_timeout:g} s")
            left = self._statement_timeout - took

    async def _check_out(self) -> OdbcConnection:
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

    def _check_in(self, connection: OdbcConnection, *, usable: bool, busy: bool) -> None:
        self._free.release()
        if usable and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self._discard(connection, interrupt=busy)

    async def _idle_one(self) -> OdbcConnection | None:
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

    async def _new_one(self) -> OdbcConnection:
        opening: asyncio.Task[OdbcConnection] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                # Those that are being ended may hang, and each of them keeps a thread.
                while self._ending and self._lanes >= 2 * self._size:
                    await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
                self._lanes += 1
                opening = asyncio.create_task(
                    OdbcConnection.open(self._dsn, self._connect_timeout, self._statement_timeout)
                )
                return await asyncio.shield(opening)
        except BaseException as error:
            if opening is not None:
                self._end(end_late(opening))
            if isinstance(error, pyodbc.Error):
                reason = self._without_secret(str(error.args[-1]))
                raise DatabaseUnavailable(reason) from None
            if isinstance(error, TimeoutError):
                reason = f"no connection within {self._connect_timeout:g} s"
                raise DatabaseUnavailable(reason) from None
            raise

    def _discard(self, connection: OdbcConnection, *, interrupt: bool) -> None:
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
