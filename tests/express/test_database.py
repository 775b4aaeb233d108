"""Connections that are checked, bounded and timed, whatever the database does."""

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pyodbc
import pytest

from bus.problems import Problem
from express.connection import DatabaseUnavailable, sqlite_dsn
from express.database import Database, Transaction, WriteConflict
from express.dialects import Dialect
from tests.buses import free_port
from tests.databases import PostgresServer

HANGS = 10.0
"""Seconds after which a call that should have been given up is taken to hang."""

pytestmark = pytest.mark.express


def names(tx: Transaction) -> list[str]:
    return sorted(str(row[0]) for row in tx.fetch("SELECT name FROM computer_group"))


def add(tx: Transaction, number: int, name: str) -> int:
    return tx.execute("INSERT INTO computer_group (group_id, name) VALUES (?, ?)", number, name)


def odbc_threads() -> int:
    return sum(thread.name == "odbc" for thread in threading.enumerate())


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
    async with database.transaction() as tx:
        assert add(tx, 100, "Fresh") == 1
    async with database.transaction() as tx:
        assert "Fresh" in names(tx)


async def test_an_exception_rolls_a_transaction_back(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as tx:
            add(tx, 100, "Fresh")
            raise Problem("name_taken")

    with pytest.raises(Problem):
        await fail()
    async with database.transaction() as tx:
        assert "Fresh" not in names(tx)


async def test_a_unique_violation_is_a_conflict_and_undoes_the_transaction(
    database: Database,
) -> None:
    async def add_twice() -> None:
        async with database.transaction() as tx:
            add(tx, 100, "Fresh")
            add(tx, 100, "Twice")

    with pytest.raises(WriteConflict):
        await add_twice()
    async with database.transaction() as tx:
        assert "Fresh" not in names(tx)


async def test_a_failure_that_was_hushed_up_still_undoes_the_transaction(
    database: Database,
) -> None:
    async def hush() -> None:
        async with database.transaction() as tx:
            add(tx, 100, "Fresh")
            with suppress(pyodbc.Error):
                tx.execute("INSERT INTO no_such_table (a) VALUES (1)")

    with pytest.raises(pyodbc.Error):
        await hush()
    async with database.transaction() as tx:
        assert "Fresh" not in names(tx)


async def test_a_missing_value_is_an_error_not_a_conflict(database: Database) -> None:
    with pytest.raises(pyodbc.Error):
        async with database.transaction() as tx:
            tx.execute("INSERT INTO computer_group (group_id, name) VALUES (100, NULL)")


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
async def test_many_rows_are_inserted_in_order(database: Database, count: int) -> None:
    rows = [(9000 + n, None if n % 2 else 1, f"job {n}") for n in range(count)]
    async with database.transaction() as tx:
        tx.insert("event", ("event_id", "folder_id", "name"), rows)
    async with database.transaction() as tx:
        found = tx.fetch(
            "SELECT event_id, folder_id, name FROM event WHERE event_id BETWEEN 9000 AND 20000"
            " ORDER BY event_id"
        )
    assert [tuple(row) for row in found] == rows


async def test_texts_come_back_as_they_went(database: Database) -> None:
    text = "Grüße, 'Straße' – 研究室 🖥"
    async with database.transaction() as tx:
        add(tx, 100, text)
    async with database.transaction() as tx:
        assert text in names(tx)


async def test_columns_are_described(database: Database) -> None:
    async with database.transaction() as tx:
        schedule = {column.name: column for column in tx.columns("event_schedule")}
        folder = {column.name: column for column in tx.columns("event_folder")}
        assert tx.columns("event_") == ()
        assert tx.columns("nothing") == ()
    assert list(schedule) == ["schedule_id", "event_id", "computer_id", "start_time", "status_code"]
    assert schedule["schedule_id"].generated
    assert not schedule["schedule_id"].required
    assert schedule["event_id"].required
    assert schedule["status_code"].nullable
    assert folder["name"].size == 64
    assert folder["name"].required
    assert not folder["folder_id"].generated


# The pool.


async def test_connections_are_used_again(database: Database) -> None:
    before = odbc_threads()
    for _ in range(5):
        async with database.transaction() as tx:
            tx.fetch("SELECT 1")
    assert odbc_threads() == before + 1


async def test_a_caller_waits_no_longer_than_told_for_a_connection(dsn: str) -> None:
    database = Database(dsn, size=2, wait_timeout=0.2)
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(database.transaction())
        with pytest.raises(DatabaseUnavailable, match="does not answer") as caught:
            async with asyncio.timeout(HANGS):
                await held.enter_async_context(database.transaction())
        assert "busy" in caught.value.reason
    async with database.transaction() as tx:
        tx.fetch("SELECT 1")
    await database.close()


async def test_callers_beyond_the_size_take_turns(dsn: str) -> None:
    database = Database(dsn, size=2)
    inside = most = 0

    async def one() -> None:
        nonlocal inside, most
        async with database.transaction() as tx:
            inside += 1
            most = max(most, inside)
            tx.fetch("SELECT 1")
            inside -= 1

    await asyncio.gather(*(one() for _ in range(40)))
    assert most <= 2
    await database.close()


async def test_closing_ends_every_thread(dsn: str) -> None:
    before = odbc_threads()
    database = Database(dsn)
    async with database.transaction() as one, database.transaction() as two:
        one.fetch("SELECT 1")
        await two.fetch("SELECT 1")
    await database.close()
    await until_no_threads(before)
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction():
            pass


async def test_a_cancelled_caller_leaves_the_pool_whole(dsn: str) -> None:
    before = odbc_threads()
    database = Database(dsn, size=2)

    async def work(number: int) -> None:
        async with database.transaction() as tx:
            tx.fetch("SELECT COUNT(*) FROM event")
            tx.execute("INSERT INTO ii_lock (lock_key) VALUES (?)", f"key {number}")
            tx.fetch("SELECT COUNT(*) FROM event")
            raise Problem("forbidden")

    for number in range(60):
        task = asyncio.create_task(work(number))
        for _ in range(number):
            await asyncio.sleep(0)
        await asyncio.sleep(number % 7 / 2000)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, Problem, WriteConflict)):
            await task
    async with database.transaction() as one, database.transaction() as two:
        assert (one.fetch("SELECT COUNT(*) FROM ii_lock"))[0][0] == 0
        assert (await two.fetch("SELECT COUNT(*) FROM ii_lock"))[0][0] == 0
    await database.close()
    await until_no_threads(before)


# SQLite.


async def test_statements_of_sqlite_survive_that_their_callers_are_cancelled(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = shutil.copy(sqlite_template, tmp_path / "express.db")
    database = Database(sqlite_dsn(path), size=3)
    many = "SELECT a.event_id, a.name, b.name FROM event a, event b"

    async def ask() -> None:
        async with database.transaction() as tx:
            while True:
                tx.fetch(many)

    for number in range(300):
        asking = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.sleep(0.002 + number % 10 / 2000)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    async with asyncio.timeout(HANGS), database.transaction() as tx:
        assert len(tx.fetch(many)) == 42 * 42
    await database.close()


async def test_a_sqlite_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    database = Database(sqlite_dsn(tmp_path / "missing.db"))
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction():
            pass
    await database.close()
    assert not (tmp_path / "missing.db").exists()


def test_a_path_that_would_end_the_connection_string_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without"):
        sqlite_dsn(tmp_path / "a;b.db")


async def test_a_path_with_blanks_and_letters_of_any_kind_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "Büro 1" / "express.db"
    path.parent.mkdir()
    database = Database(sqlite_dsn(path), create=True)
    async with database.transaction() as tx:
        tx.execute("CREATE TABLE t (a int)")
    await database.close()
    assert path.exists()


async def test_a_lock_that_is_held_too_long_is_a_conflict_on_sqlite(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "express.db"
    shutil.copy(sqlite_template, path)
    database = Database(sqlite_dsn(path).replace("Timeout=5000", "Timeout=100"))
    async with database.transaction() as holder:
        await add(holder, 100, "One")
        with pytest.raises(WriteConflict):
            async with database.transaction() as tx:
                add(tx, 101, "Two")
    await database.close()


# A database that is away, hangs, dies or comes back.


async def test_nobody_there_is_said_at_once_and_without_the_password() -> None:
    database = Database(
        f"Driver=PostgreSQL Unicode;Server=127.0.0.1;Port={free_port()};Database=x;"
        "UID=someone;PWD={very secret}"
    )
    with pytest.raises(DatabaseUnavailable) as caught:
        async with asyncio.timeout(HANGS), database.transaction():
            pass
    assert caught.value.message == "The deployment server does not answer at the moment."
    assert "refused" in caught.value.reason
    assert caught.value.__cause__ is None
    for text in (caught.value.reason, repr(caught.value), repr(database)):
        assert "secret" not in text
    await database.close()


async def test_a_driver_that_is_not_there_is_told() -> None:
    database = Database("Driver=No Such Driver;Server=127.0.0.1;PWD=x")
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.transaction():
            pass
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

    async def ask() -> None:
        with pytest.raises(DatabaseUnavailable):
            async with asyncio.timeout(HANGS), database.transaction():
                pass

    for _ in range(3):
        await asyncio.gather(*(ask() for _ in range(10)))
        # Those that hang, twice the size at most, and one or two on their way out.
        assert odbc_threads() <= before + 2 * 2 + 2
    await database.close()
    await until_no_threads(before)


async def test_a_connection_that_does_not_come_holds_up_nobody(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, connect_timeout=1)

    async def connect() -> None:
        async with database.transaction() as tx:
            tx.fetch("SELECT 1")

    async with database.transaction() as tx:
        with own_server.frozen(for_all=False):
            connecting = [asyncio.create_task(connect()) for _ in range(2)]
            for _ in range(20):
                tx.fetch("SELECT 1")
            assert not any(task.done() for task in connecting)
            results = await asyncio.gather(*connecting, return_exceptions=True)
    assert [type(result) for result in results] == [DatabaseUnavailable] * 2
    await connect()
    await database.close()


async def sleep_in(database: Database, seconds: float) -> None:
    async with database.transaction() as tx:
        add(tx, 100, "Asleep")
        tx.fetch("SELECT pg_sleep(?)", seconds)


async def test_a_statement_that_takes_too_long_is_given_up(
    postgres: PostgresServer, pg: str
) -> None:
    database = Database(postgres.dsn(pg), statement_timeout=0.3)
    with pytest.raises(DatabaseUnavailable):
        async with asyncio.timeout(HANGS):
            await sleep_in(database, 30)
    async with database.transaction() as tx:
        assert "Asleep" not in names(tx)
    await database.close()


async def test_a_row_that_somebody_else_keeps_locked_is_waited_for_no_longer_than_told(
    postgres: PostgresServer, pg: str
) -> None:
    database = Database(postgres.dsn(pg), statement_timeout=0.3)
    async with database.transaction() as holder:
        await add(holder, 100, "One")
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as tx:
                add(tx, 100, "Two")
    await database.close()


async def test_the_statement_of_a_cancelled_caller_ends_on_the_server(
    postgres: PostgresServer, pg: str
) -> None:
    before = odbc_threads()
    database = Database(postgres.dsn(pg), size=1, statement_timeout=60)
    task = asyncio.create_task(sleep_in(database, 60))
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
    async with database.transaction() as tx:
        assert "Asleep" not in names(tx)
    admin.close()
    await database.close()
    await until_no_threads(before)


async def test_a_server_that_is_killed_and_comes_back_is_used_again(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, connect_timeout=2)
    async with database.transaction() as one, database.transaction() as two:
        one.execute("CREATE TABLE t (a int)")
        await two.fetch("SELECT 1")

    async def lose() -> None:
        async with database.transaction() as tx:
            tx.execute("INSERT INTO t (a) VALUES (1)")
            await asyncio.to_thread(own_server.stop)
            tx.execute("INSERT INTO t (a) VALUES (2)")

    with pytest.raises(DatabaseUnavailable) as lost:
        await lose()
    assert lost.value.reason
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as tx:
            tx.fetch("SELECT 1")
    await asyncio.to_thread(own_server.start)
    async with database.transaction() as tx:
        assert (tx.fetch("SELECT COUNT(*) FROM t"))[0][0] == 0
    await database.close()


async def test_idle_connections_that_died_are_found_before_use(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.dsn(), size=3, trusted_idle=0)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            tx = await stack.enter_async_context(database.transaction())
            tx.fetch("SELECT 1")
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            tx = await stack.enter_async_context(database.transaction())
            tx.fetch("SELECT 1")
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

    async def ask() -> None:
        with pytest.raises(DatabaseUnavailable):
            async with asyncio.timeout(HANGS), database.transaction() as tx:
                tx.fetch("SELECT 1")

    async with database.transaction() as one, database.transaction() as two:
        one.fetch("SELECT 1")
        await two.fetch("SELECT 1")
    with own_server.frozen():
        for _ in range(8):
            await asyncio.gather(*(ask() for _ in range(6)))
        # As many connections again as may be in use, each with the thread that cancels it.
        assert odbc_threads() - before <= 4 * size
    async with asyncio.timeout(10):
        while True:
            try:
                async with database.transaction() as tx:
                    tx.fetch("SELECT 1")
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

    async with database.transaction() as tx:
        backend = int((tx.fetch("SELECT pg_backend_pid()"))[0][0])
    os.kill(backend, signal.SIGSTOP)
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as tx:
            tx.fetch("SELECT 1")
    async with asyncio.timeout(HANGS):
        await database.close()
    os.kill(backend, signal.SIGCONT)
    await until_no_threads(before)


async def test_two_transactions_that_wait_for_each_other_are_told_apart(
    kind: Dialect, database: Database
) -> None:
    if kind == "sqlite":  # It has one writer, so there is nothing to wait for each other with.
        return
    met = asyncio.Barrier(2)

    async def work(first: int, second: int) -> None:
        async with database.transaction() as tx:
            sql = "UPDATE computer_group SET parent_id = NULL WHERE group_id = ?"
            tx.execute(sql, first)
            await met.wait()
            tx.execute(sql, second)

    results = await asyncio.gather(work(3, 4), work(4, 3), return_exceptions=True)
    assert [type(r) for r in results if r] == [WriteConflict]
