"""Connections that are checked, bounded and timed, whatever the database does."""

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import pyodbc
import pytest

from bus.problems import Problem
from engine.protocol import Step
from express.connection import DatabaseUnavailable, sqlite_dsn, tuned
from express.database import Database, Transaction, WriteConflict
from express.dialects import Column, Dialect
from tests.buses import free_port
from tests.databases import Held, PostgresServer, held, together

HANGS = 10.0
"""Seconds after which a call that should have been given up is taken to hang."""

pytestmark = pytest.mark.express


def names(tx: Transaction) -> list[str]:
    return sorted(str(row[0]) for row in tx.fetch("SELECT name FROM computer_group"))


def add(tx: Transaction, number: int, name: str) -> int:
    return tx.execute("INSERT INTO computer_group (group_id, name) VALUES (?, ?)", number, name)


def ask(tx: Transaction) -> None:
    tx.fetch("SELECT 1")


async def ask_in_vain(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with asyncio.timeout(HANGS):
            await database.transact(ask)


def odbc_threads() -> int:
    return sum(thread.name == "odbc" for thread in threading.enumerate())


def opened_files() -> list[str]:
    return [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]


async def until_no_threads(before: int) -> None:
    async with asyncio.timeout(5):
        while odbc_threads() > before:  # noqa: ASYNC110 - a thread's end sets no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def pg(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[str]:
    """The name of a PostgreSQL database, for what only PostgreSQL can be made to do."""
    name = postgres.create(postgres_template)
    yield name
    postgres.drop(name)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that lets everybody in and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# Transactions.


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    assert await database.transact(lambda tx: add(tx, 100, "Fresh")) == 1
    assert "Fresh" in await database.transact(names)


async def test_an_exception_rolls_a_transaction_back(database: Database) -> None:
    def fail(tx: Transaction) -> None:
        add(tx, 100, "Fresh")
        raise Problem("name_taken")

    with pytest.raises(Problem, match="name_taken"):
        await database.transact(fail)
    assert "Fresh" not in await database.transact(names)


async def test_work_that_raises_what_no_future_can_hold_ends_all_the_same(
    database: Database,
) -> None:
    def fail(tx: Transaction) -> None:
        add(tx, 100, "Fresh")
        next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        async with asyncio.timeout(HANGS):
            await database.transact(fail)
    assert "Fresh" not in await database.transact(names)


async def test_a_unique_violation_is_a_conflict_and_undoes_the_transaction(
    database: Database,
) -> None:
    def add_twice(tx: Transaction) -> None:
        add(tx, 100, "Fresh")
        add(tx, 100, "Twice")

    with pytest.raises(WriteConflict):
        await database.transact(add_twice)
    assert "Fresh" not in await database.transact(names)


async def test_a_failure_that_was_hushed_up_still_undoes_the_transaction(
    database: Database,
) -> None:
    def hush(tx: Transaction) -> None:
        add(tx, 100, "Fresh")
        with suppress(pyodbc.Error):
            tx.execute("INSERT INTO no_such_table (a) VALUES (1)")

    with pytest.raises(pyodbc.Error):
        await database.transact(hush)
    assert "Fresh" not in await database.transact(names)


async def test_a_missing_value_is_an_error_not_a_conflict(database: Database) -> None:
    nameless = "INSERT INTO computer_group (group_id, name) VALUES (100, NULL)"
    with pytest.raises(pyodbc.Error):
        await database.transact(lambda tx: tx.execute(nameless))


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
async def test_many_rows_are_inserted_in_order(database: Database, count: int) -> None:
    rows = [(9000 + n, None if n % 2 else 1, f"job {n}") for n in range(count)]
    await database.transact(lambda tx: tx.insert("event", ("event_id", "folder_id", "name"), rows))
    found = await database.transact(
        lambda tx: tx.fetch(
            "SELECT event_id, folder_id, name FROM event WHERE event_id BETWEEN 9000 AND 20000"
            " ORDER BY event_id"
        )
    )
    assert [tuple(row) for row in found] == rows


async def test_texts_come_back_as_they_went(database: Database) -> None:
    text = "Grüße, 'Straße' – 研究室 🖥"
    await database.transact(lambda tx: add(tx, 100, text))
    assert text in await database.transact(names)


async def test_columns_are_described(database: Database) -> None:
    async def columns(table: str) -> dict[str, Column]:
        described = await database.transact(lambda tx: tx.columns(table))
        return {column.name: column for column in described}

    schedule, folder = await columns("event_schedule"), await columns("event_folder")
    assert await columns("event_") == {}
    assert await columns("nothing") == {}
    assert list(schedule) == ["schedule_id", "event_id", "computer_id", "start_time", "status_code"]
    assert schedule["schedule_id"].generated
    assert not schedule["schedule_id"].required
    assert schedule["event_id"].required
    assert schedule["status_code"].nullable
    assert folder["name"].size == 64
    assert folder["name"].required
    assert not folder["folder_id"].generated


async def test_work_sees_what_its_caller_has_bound(database: Database) -> None:
    bound: ContextVar[str] = ContextVar("bound")

    async def work_as(name: str) -> list[str]:
        bound.set(name)
        return [await database.transact(lambda _tx: bound.get()) for _ in range(3)]

    one, two = await asyncio.gather(work_as("one"), work_as("two"))
    assert one == ["one"] * 3
    assert two == ["two"] * 3


# Left before it has ended.


@pytest.mark.parametrize("more", [False, True])
async def test_what_is_left_between_statements_goes_no_further_and_is_not_committed(
    database: Database, more: bool
) -> None:
    before = odbc_threads()
    went_on: list[str] = []

    def one_more(tx: Transaction) -> None:
        add(tx, 101, "Late")
        went_on.append("carried out")

    leaving = Held()
    task = asyncio.create_task(database.transact(leaving.work))
    await leaving.do(lambda tx: add(tx, 100, "Fresh"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(HANGS):
            await task
    if more:
        with pytest.raises(DatabaseUnavailable):
            await leaving.do(one_more)
    leaving.end()
    await until_no_threads(before)
    assert not went_on
    assert not {"Fresh", "Late"} & set(await database.transact(names))


async def test_who_hushes_up_that_a_transaction_was_left_commits_nothing(
    database: Database,
) -> None:
    before = odbc_threads()

    def hush(tx: Transaction) -> None:
        with suppress(Exception):
            add(tx, 101, "Late")

    leaving = Held()
    task = asyncio.create_task(database.transact(leaving.work))
    await leaving.do(lambda tx: add(tx, 100, "Fresh"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await leaving.do(hush)
    leaving.end()
    await until_no_threads(before)
    assert not {"Fresh", "Late"} & set(await database.transact(names))


async def test_who_comes_next_does_not_wait_for_work_that_was_left(database: Database) -> None:
    leaving = Held()
    task = asyncio.create_task(database.transact(leaving.work))
    await leaving.do(ask)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(HANGS):
        await together(database, 4, ask)
    leaving.end()


# The observer.


class Observed:
    """What an observer was told: each step, and whether it went well."""

    def __init__(self) -> None:
        self.steps: list[tuple[Step, bool]] = []

    def __call__(self, step: Step, seconds: float, well: bool) -> None:
        assert seconds >= 0
        self.steps.append((step, well))


async def test_each_statement_is_told_of_once_and_so_is_the_commit(dsn: str) -> None:
    observed = Observed()
    database = Database(dsn, observe=observed)

    def work(tx: Transaction) -> None:
        names(tx)
        add(tx, 100, "Fresh")

    await database.transact(work)
    assert observed.steps == [("connection", True), *[("statement", True)] * 3]
    await database.close()


async def test_a_statement_that_is_refused_is_told_of_as_a_failure_and_a_conflict_is_not(
    dsn: str,
) -> None:
    observed = Observed()
    database = Database(dsn, observe=observed)
    with pytest.raises(pyodbc.Error):
        await database.transact(lambda tx: tx.fetch("SELECT a FROM no_such_table"))
    rolled_back = ("statement", True)
    assert observed.steps == [("connection", True), ("statement", False), rolled_back]
    observed.steps.clear()

    def add_twice(tx: Transaction) -> None:
        add(tx, 100, "Fresh")
        add(tx, 100, "Twice")

    with pytest.raises(WriteConflict):
        await database.transact(add_twice)
    added, in_the_way = ("statement", True), ("statement", True)
    assert observed.steps == [("connection", True), added, in_the_way, rolled_back]
    await database.close()


async def test_a_statement_that_nobody_waited_for_is_told_of_once_and_as_a_failure(
    postgres: PostgresServer, pg: str
) -> None:
    before = odbc_threads()
    observed = Observed()
    database = Database(postgres.dsn(pg), observe=observed, statement_timeout=0.3)
    transactions: list[Transaction] = []

    def work(tx: Transaction) -> None:
        transactions.append(tx)
        sleep(tx)

    with pytest.raises(DatabaseUnavailable):
        await database.transact(work)
    await until_no_threads(before)
    added, given_up = ("statement", True), ("statement", False)
    assert observed.steps == [("connection", True), added, given_up]
    # Its end, whenever that comes, is no second one.
    assert [well for _, well in transactions[0].steps] == [True, False]
    await database.close()


async def test_what_is_left_between_statements_is_told_of_as_far_as_it_went(dsn: str) -> None:
    before = odbc_threads()
    observed = Observed()
    database = Database(dsn, observe=observed)
    leaving = Held()
    task = asyncio.create_task(database.transact(leaving.work))
    await leaving.do(ask)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(DatabaseUnavailable):
        await leaving.do(ask)
    await until_no_threads(before)
    assert observed.steps == [("connection", True), ("statement", True)]
    await database.close()


async def test_a_connection_that_is_not_to_be_had_is_told_of_as_a_failure(tmp_path: Path) -> None:
    observed = Observed()
    database = Database(sqlite_dsn(tmp_path / "missing.db"), observe=observed)
    with pytest.raises(DatabaseUnavailable):
        await database.transact(ask)
    assert observed.steps == [("connection", False)]
    await database.close()


# The pool.


async def test_connections_are_used_again(database: Database) -> None:
    def whose(tx: Transaction) -> threading.Thread:
        ask(tx)
        return threading.current_thread()

    # Each connection has a thread of its own.
    assert len({await database.transact(whose) for _ in range(5)}) == 1


async def test_a_caller_waits_no_longer_than_told_for_a_connection(dsn: str) -> None:
    database = Database(dsn, size=2, wait_timeout=0.2)
    async with held(database), held(database):
        with pytest.raises(DatabaseUnavailable, match="does not answer") as caught:
            async with asyncio.timeout(HANGS):
                await database.transact(ask)
        assert "busy" in caught.value.reason
    await database.transact(ask)
    await database.close()


async def test_callers_beyond_the_size_take_turns(dsn: str) -> None:
    database = Database(dsn, size=2)
    counting = threading.Lock()
    inside = most = 0

    def one(tx: Transaction) -> None:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        tx.fetch("SELECT 1")
        with counting:
            inside -= 1

    await asyncio.gather(*(database.transact(one) for _ in range(40)))
    assert most <= 2
    await database.close()


async def test_closing_ends_every_thread(dsn: str) -> None:
    before = odbc_threads()
    database = Database(dsn)
    await together(database, 2, ask)
    await database.close()
    await until_no_threads(before)
    with pytest.raises(DatabaseUnavailable):
        await database.transact(ask)


async def test_closing_leaves_no_file_of_sqlite_open(tmp_path: Path) -> None:
    file = tmp_path / "any.db"
    database = Database(sqlite_dsn(file), create=True)
    await database.transact(lambda tx: tx.execute("CREATE TABLE any_table (number INTEGER)"))
    await together(database, 3, ask)
    assert any(str(file) in each for each in opened_files())
    await database.close()
    assert not any(str(file) in each for each in opened_files())


async def test_a_cancelled_caller_leaves_the_pool_whole(dsn: str) -> None:
    before = odbc_threads()
    database = Database(dsn, size=2)

    def work(tx: Transaction, number: int) -> None:
        tx.fetch("SELECT COUNT(*) FROM event")
        tx.execute("INSERT INTO ii_lock (lock_key) VALUES (?)", f"key {number}")
        tx.fetch("SELECT COUNT(*) FROM event")
        raise Problem("forbidden")

    for number in range(60):
        task = asyncio.create_task(database.transact(partial(work, number=number)))
        for _ in range(number):
            await asyncio.sleep(0)
        await asyncio.sleep(number % 7 / 2000)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, Problem, WriteConflict)):
            await task
    locks = "SELECT COUNT(*) FROM ii_lock"
    assert await together(database, 2, lambda tx: tx.fetch(locks)[0][0]) == [0, 0]
    await database.close()
    await until_no_threads(before)


# SQLite.


async def test_statements_of_sqlite_survive_that_their_callers_are_cancelled(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "express.db"
    shutil.copy(sqlite_template, path)
    database = Database(sqlite_dsn(path), size=3)
    many = "SELECT a.event_id, a.name, b.name FROM event a, event b"

    def ask_on(tx: Transaction) -> None:
        while True:
            tx.fetch(many)

    for number in range(300):
        asking = [asyncio.create_task(database.transact(ask_on)) for _ in range(3)]
        await asyncio.sleep(0.002 + number % 10 / 2000)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    async with asyncio.timeout(HANGS):
        assert len(await database.transact(lambda tx: tx.fetch(many))) == 42 * 42
    await database.close()


async def test_a_sqlite_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    database = Database(sqlite_dsn(tmp_path / "missing.db"))
    with pytest.raises(DatabaseUnavailable):
        await database.transact(ask)
    await database.close()
    assert not (tmp_path / "missing.db").exists()


def test_a_path_that_would_end_the_connection_string_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without"):
        sqlite_dsn(tmp_path / "a;b.db")


async def test_a_path_with_blanks_and_letters_of_any_kind_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "Büro 1" / "express.db"
    path.parent.mkdir()
    database = Database(sqlite_dsn(path), create=True)
    await database.transact(lambda tx: tx.execute("CREATE TABLE t (a int)"))
    await database.close()
    assert path.exists()


async def test_a_lock_that_is_held_too_long_is_a_conflict_on_sqlite(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "express.db"
    shutil.copy(sqlite_template, path)
    database = Database(sqlite_dsn(path).replace("Timeout=5000", "Timeout=100"))
    async with held(database) as holder:
        await holder.do(lambda tx: add(tx, 100, "One"))
        with pytest.raises(WriteConflict):
            await database.transact(lambda tx: add(tx, 101, "Two"))
    await database.close()


# A database that is away, hangs, dies or comes back.


async def test_nobody_there_is_said_at_once_and_without_the_password() -> None:
    database = Database(
        f"Driver=PostgreSQL Unicode;Server=127.0.0.1;Port={free_port()};Database=x;"
        "UID=someone;PWD={very secret}"
    )
    with pytest.raises(DatabaseUnavailable) as caught:
        async with asyncio.timeout(HANGS):
            await database.transact(ask)
    assert caught.value.message == "The deployment server does not answer at the moment."
    assert "refused" in caught.value.reason
    assert caught.value.__cause__ is None
    for text in (caught.value.reason, repr(caught.value), repr(database)):
        assert "secret" not in text
    await database.close()


async def test_a_driver_that_is_not_there_is_told() -> None:
    database = Database("Driver=No Such Driver;Server=127.0.0.1;PWD=x")
    with pytest.raises(DatabaseUnavailable) as caught:
        await database.transact(ask)
    assert caught.value.reason
    await database.close()


async def test_a_server_that_never_answers_costs_no_more_than_the_time_out(
    silent_server: int,
) -> None:
    before = odbc_threads()
    database = Database(
        f"Driver=PostgreSQL Unicode;Server=127.0.0.1;Port={silent_server};Database=x;UID=x",
        size=2,
        connect_timeout=0.3,
        wait_timeout=0.3,
    )

    for _ in range(3):
        await asyncio.gather(*(ask_in_vain(database) for _ in range(10)))
        # Those that hang, twice the size at most, and one or two on their way out.
        assert odbc_threads() <= before + 2 * 2 + 2
    await database.close()
    await until_no_threads(before)


async def test_a_connection_that_does_not_come_holds_up_nobody(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, connect_timeout=1)

    async with held(database) as standing:
        with own_server.frozen(for_all=False):
            connecting = [asyncio.create_task(database.transact(ask)) for _ in range(2)]
            for _ in range(20):
                await standing.do(ask)
            assert not any(task.done() for task in connecting)
            results = await asyncio.gather(*connecting, return_exceptions=True)
    assert [type(result) for result in results] == [DatabaseUnavailable] * 2
    await database.transact(ask)
    await database.close()


def sleep(tx: Transaction) -> None:
    """Writes something, and then keeps the server busy for longer than anybody waits."""
    add(tx, 100, "Asleep")
    tx.fetch("SELECT pg_sleep(?)", 60)


async def test_a_statement_that_takes_too_long_is_given_up(
    postgres: PostgresServer, pg: str
) -> None:
    database = Database(postgres.dsn(pg), statement_timeout=0.3)
    with pytest.raises(DatabaseUnavailable):
        async with asyncio.timeout(HANGS):
            await database.transact(sleep)
    assert "Asleep" not in await database.transact(names)
    await database.close()


async def test_a_row_that_somebody_else_keeps_locked_is_waited_for_no_longer_than_told(
    postgres: PostgresServer, pg: str
) -> None:
    database = Database(postgres.dsn(pg), statement_timeout=0.3)
    async with held(database) as holder:
        await holder.do(lambda tx: add(tx, 100, "One"))
        with pytest.raises(DatabaseUnavailable):
            await database.transact(lambda tx: add(tx, 100, "Two"))
    await database.close()


async def test_the_statement_of_a_cancelled_caller_ends_on_the_server(
    postgres: PostgresServer, pg: str
) -> None:
    before = odbc_threads()
    database = Database(postgres.dsn(pg), size=1, statement_timeout=60)
    task = asyncio.create_task(database.transact(sleep))
    admin = postgres.admin()
    query = (
        f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{pg}'"
        " AND query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    )

    async def until_running(number: int) -> None:
        async with asyncio.timeout(5):
            while admin.execute(query).fetchone()[0] != number:  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.01)

    await until_running(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_running(0)
    assert "Asleep" not in await database.transact(names)
    admin.close()
    await database.close()
    await until_no_threads(before)


async def test_a_server_that_is_killed_and_comes_back_is_used_again(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, connect_timeout=2)
    await database.transact(lambda tx: tx.execute("CREATE TABLE t (a int)"))
    await together(database, 2, ask)

    def lose(tx: Transaction) -> None:
        tx.execute("INSERT INTO t (a) VALUES (1)")
        own_server.stop()
        tx.execute("INSERT INTO t (a) VALUES (2)")

    with pytest.raises(DatabaseUnavailable) as lost:
        await database.transact(lose)
    assert lost.value.reason
    with pytest.raises(DatabaseUnavailable):
        await database.transact(ask)
    await asyncio.to_thread(own_server.start)
    found = await database.transact(lambda tx: tx.fetch("SELECT COUNT(*) FROM t"))
    assert found[0][0] == 0
    await database.close()


async def test_idle_connections_that_died_are_found_before_use(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, trusted_idle=0)
    await together(database, 3, ask)
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    await together(database, 3, ask)
    await database.close()


async def test_a_server_that_freezes_exhausts_nothing_and_is_used_again_when_it_thaws(
    own_server: PostgresServer,
) -> None:
    before = odbc_threads()
    size = 2
    database = Database(
        own_server.dsn(),
        size=size,
        connect_timeout=0.3,
        statement_timeout=0.3,
        wait_timeout=0.3,
        trusted_idle=0,
    )

    await together(database, size, ask)
    with own_server.frozen():
        for _ in range(8):
            await asyncio.gather(*(ask_in_vain(database) for _ in range(6)))
        # As many connections again as may be in use, each with the thread that cancels it.
        assert odbc_threads() - before <= 4 * size
    async with asyncio.timeout(10):
        while True:
            try:
                await database.transact(ask)
                break
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)
    await database.close()
    await until_no_threads(before)


async def test_closing_does_not_wait_for_a_connection_that_hangs(
    own_server: PostgresServer,
) -> None:
    before = odbc_threads()
    database = Database(own_server.dsn(), size=2, statement_timeout=0.2)

    rows = await database.transact(lambda tx: tx.fetch("SELECT pg_backend_pid()"))
    backend = int(rows[0][0])
    os.kill(backend, signal.SIGSTOP)
    with pytest.raises(DatabaseUnavailable):
        await database.transact(ask)
    async with asyncio.timeout(HANGS):
        await database.close()
    os.kill(backend, signal.SIGCONT)
    await until_no_threads(before)


async def test_two_transactions_that_wait_for_each_other_are_told_apart(
    kind: Dialect, database: Database
) -> None:
    if kind == "sqlite":  # It has one writer, so there is nothing to wait for each other with.
        return
    met = threading.Barrier(2, timeout=HANGS)

    def work(tx: Transaction, first: int, second: int) -> None:
        sql = "UPDATE computer_group SET parent_id = NULL WHERE group_id = ?"
        tx.execute(sql, first)
        met.wait()
        tx.execute(sql, second)

    results = await asyncio.gather(
        database.transact(partial(work, first=3, second=4)),
        database.transact(partial(work, first=4, second=3)),
        return_exceptions=True,
    )
    assert [type(r) for r in results if r] == [WriteConflict]


@pytest.mark.parametrize(
    ("dsn", "more"),
    [
        ("Driver=PostgreSQL Unicode;Server=x", ";UseServerSidePrepare=0;Protocol=7.4-0"),
        ("driver={psqlodbcw.so};Server=x;", ";UseServerSidePrepare=0;Protocol=7.4-0"),
        ("Driver=PostgreSQL;USESERVERSIDEPREPARE=1;Server=x", ";Protocol=7.4-0"),
        ("Driver=PostgreSQL;Protocol=7.4-2;UseServerSidePrepare=1", ""),
        ("Driver=SQLite3;Database=/postgres.db", ";SyncPragma=FULL"),
        ("Driver=SQLite3;Database=/x.db;syncpragma=OFF", ""),
        ("DSN=express", ""),
    ],
)
def test_a_driver_is_told_what_it_needs_where_nothing_else_is_said(dsn: str, more: str) -> None:
    assert tuned(dsn) == dsn.rstrip(";" if more else "") + more


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_what_sqlite_has_committed_is_on_disk(database: Database) -> None:
    full = 2
    rows = await database.transact(lambda tx: tx.fetch("PRAGMA synchronous"))
    assert [row[0] for row in rows] == [full]
