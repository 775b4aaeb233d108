"""Questions that come while others are under way share a transaction, and no fate."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from express.connection import DatabaseUnavailable, sqlite_dsn
from express.database import Database, Transaction, WriteConflict
from express.together import MOST, Together
from tests.echo import until

pytestmark = pytest.mark.express

HANGS = 10.0
"""Seconds after which what should have ended is taken to hang."""
Verdict = Callable[[int], object]
"""What a question comes to; an exception that it returns is the answer, one it raises is not."""

one_kind = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


class Work:
    """Answers each number with itself in text; what is negative holds its transaction up."""

    def __init__(self) -> None:
        self.together: list[list[int]] = []
        """What was asked together, in the order it was begun with."""
        self.verdict: Verdict = str
        self.go_on = threading.Event()

    def __call__(self, tx: Transaction, asked: Sequence[int]) -> list[str | Exception]:
        self.together.append(list(asked))
        if min(asked) < 0:
            assert self.go_on.wait(HANGS)
        tx.insert("ii_lock", ("lock_key",), [(str(number),) for number in asked])
        answers: list[str | Exception] = []
        for number in asked:
            found = self.verdict(number)
            answers.append(found if isinstance(found, Exception) else str(found))
        return answers


@pytest.fixture
def work() -> Iterator[Work]:
    found = Work()
    yield found
    found.go_on.set()


@pytest.fixture
async def line(database: Database, work: Work) -> AsyncIterator[Together[int, str]]:
    """A line with one turn."""
    found: Together[int, str] = Together(database, work, turns=1)
    yield found
    work.go_on.set()
    await found.close()


Asking = list[asyncio.Task[str]]


async def asking(line: Together[int, str], work: Work, numbers: Sequence[int]) -> Asking:
    """Asks one question that is held up, and others that wait for it, in this order."""
    tasks = [asyncio.create_task(line.ask(-1))]
    await until(lambda: [-1] in work.together)
    tasks += [asyncio.create_task(line.ask(number)) for number in numbers]
    # Each stands in the line once its task has run.
    await asyncio.sleep(0)
    return tasks


async def ends(tasks: Asking) -> list[str | BaseException]:
    async with asyncio.timeout(HANGS):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def written(database: Database) -> set[int]:
    rows = await database.transact(lambda tx: tx.fetch("SELECT lock_key FROM ii_lock"))
    return {int(row[0]) for row in rows}


async def test_who_finds_a_free_turn_waits_for_nobody(line: Together[int, str], work: Work) -> None:
    assert [await line.ask(number) for number in range(3)] == ["0", "1", "2"]
    assert work.together == [[0], [1], [2]]


async def test_who_waits_shares_the_next_transaction_with_those_who_came_with_him(
    line: Together[int, str], work: Work, database: Database
) -> None:
    count = 2 * MOST + 3
    tasks = await asking(line, work, range(count))
    work.go_on.set()
    assert await ends(tasks) == ["-1", *map(str, range(count))]
    assert work.together == [
        [-1], [*range(MOST)], [*range(MOST, 2 * MOST)], [*range(2 * MOST, count)],
    ]  # fmt: skip
    assert await written(database) == {-1, *range(count)}


@one_kind
async def test_who_comes_after_a_crowd_waits_a_moment_for_others(
    database: Database, work: Work
) -> None:
    line: Together[int, str] = Together(database, work, turns=2, gather=1.0)
    tasks = await asking(line, work, [0])
    work.go_on.set()
    await ends(tasks)
    later = []
    for number in (1, 2, 3):
        later.append(asyncio.create_task(line.ask(number)))
        await asyncio.sleep(0.01)
    assert await ends(later) == ["1", "2", "3"]
    assert work.together[-1] == [1, 2, 3]
    await line.close()


@one_kind
async def test_a_full_transaction_waits_for_nobody_and_closing_ends_the_waiting(
    database: Database, work: Work
) -> None:
    line: Together[int, str] = Together(database, work, turns=2, gather=2 * HANGS)
    work.go_on.set()
    crowd = [asyncio.create_task(line.ask(number)) for number in range(2 + MOST)]
    assert await ends(crowd) == [str(number) for number in range(2 + MOST)]
    late = asyncio.create_task(line.ask(99))
    await asyncio.sleep(0)
    await line.close()
    assert isinstance((await ends([late]))[0], DatabaseUnavailable)
    assert [99] not in work.together


async def test_no_more_transactions_than_turns_are_under_way(database: Database) -> None:
    met = threading.Barrier(2, timeout=HANGS)
    guard = threading.Lock()
    inside: list[int] = []
    most: list[int] = []

    def busy(tx: Transaction, asked: Sequence[int]) -> list[str]:
        with guard:
            inside.append(1)
            most.append(len(inside))
        # It takes two side by side to get past here.
        met.wait()
        tx.fetch("SELECT 1")
        with guard:
            inside.pop()
        return list(map(str, asked))

    line: Together[int, str] = Together(database, busy, turns=2)
    # Two go at once, and of those who wait for them each of the two takes as many as may.
    answers = await ends([asyncio.create_task(line.ask(n)) for n in range(2 + 2 * MOST)])
    await line.close()
    assert answers == [str(number) for number in range(2 + 2 * MOST)]
    assert len(most) == 4
    assert max(most) == 2


@one_kind
async def test_an_exception_that_is_an_answer_breaks_nothing(
    line: Together[int, str], work: Work, database: Database
) -> None:
    wrong = ValueError("no")
    work.verdict = lambda number: wrong if number == 2 else number
    tasks = await asking(line, work, [1, 2, 3])
    work.go_on.set()
    assert await ends(tasks) == ["-1", "1", wrong, "3"]
    assert work.together == [[-1], [1, 2, 3]]
    assert await written(database) == {-1, 1, 2, 3}


@pytest.mark.parametrize("error", [ValueError, WriteConflict])
async def test_one_that_breaks_the_transaction_of_all_fails_alone(
    line: Together[int, str], work: Work, database: Database, error: type[Exception]
) -> None:
    def breaking(number: int) -> int:
        if number == 2:
            raise error("it broke")
        return number

    work.verdict = breaking
    tasks = await asking(line, work, [1, 2, 3])
    work.go_on.set()
    held, first, second, third = await ends(tasks)
    assert (held, first, third) == ("-1", "1", "3")
    assert isinstance(second, error)
    assert work.together == [[-1], [1, 2, 3], [1], [2], [3]]
    # What was written together was undone, and written again.
    assert await written(database) == {-1, 1, 3}


async def test_a_statement_that_the_database_refuses_fails_alone(
    line: Together[int, str], work: Work, database: Database
) -> None:
    await database.transact(lambda tx: tx.insert("ii_lock", ("lock_key",), [("2",)]))
    tasks = await asking(line, work, [1, 2, 3])
    work.go_on.set()
    held, first, second, third = await ends(tasks)
    assert (held, first, third) == ("-1", "1", "3")
    assert isinstance(second, WriteConflict)
    assert await written(database) == {-1, 1, 2, 3}


@one_kind
async def test_that_the_database_does_not_answer_is_told_to_all_at_once(
    line: Together[int, str], work: Work
) -> None:
    def unavailable(number: int) -> int:
        if number == 2:
            raise DatabaseUnavailable("it is gone", "Come back later.")
        return number

    work.verdict = unavailable
    tasks = await asking(line, work, [1, 2, 3])
    work.go_on.set()
    held, *told = await ends(tasks)
    assert held == "-1"
    assert work.together == [[-1], [1, 2, 3]]
    # Each has an exception of his own: who raises it adds to its traceback.
    assert len(set(map(id, told))) == 3
    for each in told:
        assert isinstance(each, DatabaseUnavailable)
        assert (each.reason, each.message) == ("it is gone", "Come back later.")
    assert await line.ask(4) == "4"


async def test_a_database_that_is_not_there_is_told_to_all(tmp_path: Path, work: Work) -> None:
    missing = Database(sqlite_dsn(tmp_path / "missing.db"))
    line: Together[int, str] = Together(missing, work, turns=1)
    told = await ends([asyncio.create_task(line.ask(number)) for number in range(5)])
    await line.close()
    await missing.close()
    assert all(isinstance(each, DatabaseUnavailable) for each in told)
    assert work.together == []


@one_kind
async def test_of_who_gives_up_in_the_line_nothing_is_asked(
    line: Together[int, str], work: Work, database: Database
) -> None:
    tasks = await asking(line, work, [1, 2, 3, 4])
    for place in (1, 3):
        tasks[place].cancel()
    await asyncio.wait({tasks[1], tasks[3]})
    work.go_on.set()
    first, *others = await ends(tasks)
    assert first == "-1"
    assert [type(each) for each in others] == [asyncio.CancelledError, str] * 2
    assert work.together == [[-1], [2, 4]]
    assert await written(database) == {-1, 2, 4}


@one_kind
async def test_a_line_that_all_have_left_is_no_transaction(
    line: Together[int, str], work: Work
) -> None:
    tasks = await asking(line, work, [1, 2])
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    work.go_on.set()
    assert await ends(tasks[:1]) == ["-1"]
    assert await line.ask(3) == "3"
    assert work.together == [[-1], [3]]


async def test_who_gives_up_while_his_question_is_asked_takes_nobody_with_him(
    line: Together[int, str], work: Work, database: Database
) -> None:
    first = await asking(line, work, [1, -2, 3])
    work.go_on.set()
    await first[0]
    work.go_on.clear()
    await until(lambda: [1, -2, 3] in work.together)
    first[2].cancel()
    await asyncio.wait({first[2]})
    work.go_on.set()
    _, one, given_up, three = await ends(first)
    assert (one, three) == ("1", "3")
    assert isinstance(given_up, asyncio.CancelledError)
    assert await written(database) == {-1, 1, -2, 3}


async def test_what_is_broken_off_is_told_to_all_who_wait_and_nothing_of_it_is_written(
    line: Together[int, str], work: Work, database: Database
) -> None:
    tasks = await asking(line, work, range(MOST + 3))
    async with asyncio.timeout(HANGS):
        await line.close()
    told = await ends(tasks)
    for each in told:
        assert isinstance(each, DatabaseUnavailable)
        assert "broken off" in each.reason
    work.go_on.set()
    assert await written(database) == set()
    assert work.together == [[-1]]


@one_kind
async def test_what_is_broken_off_before_it_began_is_told_too(
    line: Together[int, str], work: Work
) -> None:
    task = asyncio.create_task(line.ask(1))
    # Now it is asked for, and the transaction's own task has not run yet.
    await asyncio.sleep(0)
    await line.close()
    (told,) = await ends([task])
    assert isinstance(told, DatabaseUnavailable)
    assert work.together == []


@one_kind
async def test_no_task_is_left(database: Database, work: Work) -> None:
    there = asyncio.all_tasks()
    line: Together[int, str] = Together(database, work, turns=2)
    tasks = await asking(line, work, range(3))
    work.go_on.set()
    await ends(tasks)
    await until(lambda: asyncio.all_tasks() == there)
    work.go_on.clear()
    tasks = [asyncio.create_task(line.ask(-2 - number)) for number in range(5)]
    await until(lambda: min(work.together[-1]) < 0)
    await line.close()
    await ends(tasks)
    with pytest.raises(DatabaseUnavailable):
        await line.ask(1)
    work.go_on.set()
    await database.close()
    assert asyncio.all_tasks() == there
