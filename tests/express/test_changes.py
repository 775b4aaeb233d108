"""Whether the job tree has changed is told by one query that does not read it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from express.changes import fingerprint
from express.database import Database, Transaction
from express.dialects import Dialect

pytestmark = pytest.mark.express

CHANGES = {
    "a job comes": "INSERT INTO event (event_id, folder_id, name) VALUES (9, 10, 'Nine')",
    "a job comes to the root": "INSERT INTO event (event_id, folder_id, name) VALUES (9, NULL, '')",
    "a job goes": "DELETE FROM event WHERE event_id = 2000194",
    "a job is renamed": "UPDATE event SET name = 'Memory task (MI)' WHERE event_id = 2000190",
    "a job's name changes its case": "UPDATE event SET name = UPPER(name) WHERE event_id = 2000190",
    "a job is moved": "UPDATE event SET folder_id = 1 WHERE event_id = 2000190",
    "a job is described": "UPDATE event SET description = 'Slow' WHERE event_id = 2000190",
    "a description goes": "UPDATE event SET description = NULL WHERE event_id = 2000191",
    "a folder comes": "INSERT INTO event_folder (folder_id, name) VALUES (99, 'New')",
    "a folder is renamed": "UPDATE event_folder SET name = 'Deplay' WHERE folder_id = 1",
    "a folder is moved": "UPDATE event_folder SET parent_id = 5 WHERE folder_id = 12",
    "two jobs exchange their names": "UPDATE event SET name = CASE event_id WHEN 2000101 THEN"
    " (SELECT name FROM event WHERE event_id = 2000102) ELSE (SELECT name FROM event WHERE event_id"
    " = 2000101) END WHERE event_id IN (2000101, 2000102)",
    "two jobs exchange their folders": "UPDATE event SET folder_id = CASE folder_id WHEN 10 THEN 11"
    " ELSE 10 END WHERE event_id IN (2000101, 2000120)",
}
ELSEWHERE = (
    "INSERT INTO event_schedule (event_id, computer_id) VALUES (2000190, 1)",
    "UPDATE computer SET name = 'OTHER-1' WHERE computer_id = 1",
    "DELETE FROM nics",
)


class Watched:
    """A database with a connection that only tells its fingerprint."""

    def __init__(self, dsn: str) -> None:
        self.database = Database(dsn)
        self.watcher = Database(dsn, size=1)

    async def mark(self) -> str:
        return await self.watcher.transact(fingerprint)

    async def sql(self, *statements: str) -> None:
        await self.database.transact(lambda tx: [tx.execute(each) for each in statements])


@pytest.fixture
async def watched(dsn: str) -> AsyncIterator[Watched]:
    found = Watched(dsn)
    yield found
    await found.watcher.close()
    await found.database.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_is_noticed(watched: Watched, change: str) -> None:
    before = await watched.mark()
    await watched.sql(CHANGES[change])

    assert await watched.mark() != before


async def test_without_a_change_it_stays_the_same(watched: Watched) -> None:
    before = await watched.mark()
    await watched.database.transact(lambda tx: tx.fetch("SELECT COUNT(*) FROM event"))

    assert {await watched.mark() for _ in range(5)} == {before}


async def test_an_empty_tree_has_one_too(watched: Watched) -> None:
    await watched.sql("DELETE FROM event_schedule", "DELETE FROM event")
    await watched.sql("UPDATE event_folder SET parent_id = NULL", "DELETE FROM event_folder")
    empty = await watched.mark()
    await watched.sql("INSERT INTO event_folder (folder_id, name) VALUES (1, 'One')")

    assert await watched.mark() != empty


async def test_what_is_written_elsewhere_is_no_change(watched: Watched, kind: Dialect) -> None:
    before = await watched.mark()
    await watched.sql(*ELSEWHERE)

    # SQLite knows only that somebody wrote something.
    assert (await watched.mark() == before) == (kind != "sqlite")


async def test_what_is_not_committed_is_no_change(watched: Watched) -> None:
    before = await watched.mark()

    def work(tx: Transaction) -> None:
        tx.execute(CHANGES["a job is renamed"])
        raise LookupError

    with pytest.raises(LookupError):
        await watched.database.transact(work)

    assert await watched.mark() == before


@pytest.mark.parametrize("kind", ["postgres"])
async def test_transactions_that_commit_in_another_order_than_they_began_are_both_noticed(
    watched: Watched,
) -> None:
    marks = [await watched.mark()]
    began, committed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def other() -> None:
        await began.wait()
        await watched.sql("UPDATE event SET name = 'late' WHERE event_id = 2000102")
        marks.append(await watched.mark())
        committed.set()

    def first(tx: Transaction) -> None:
        tx.execute("UPDATE event SET name = 'early' WHERE event_id = 2000101")
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(committed.wait(), loop).result(10)

    await asyncio.gather(watched.database.transact(first), other())
    marks.append(await watched.mark())

    assert len(set(marks)) == 3


async def test_connections_of_sqlite_are_never_taken_for_one_another(
    watched: Watched, dsn: str, kind: Dialect
) -> None:
    another = Database(dsn, size=1)
    mark = await another.transact(fingerprint)
    await another.close()

    assert (await watched.mark() == mark) == (kind != "sqlite")
