"""How far scheduled jobs have come, as the deployment server's database says."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from bus.messages import JobRef, Outcome, ScheduledComputer, encode
from engine.orders import Record
from express.database import Database, Transaction
from express.progress import (
    JobRow,
    Scheduled,
    Standing,
    read_ranges,
    read_rows,
    read_scheduled,
    read_standings,
    rows_of,
)
from express.schedules import Wanted, record, replace_pending
from express.schema import examine, read_layout

pytestmark = pytest.mark.express

NOW = datetime(2026, 3, 1, 12, 30, 15)  # noqa: DTZ001 - as a database writes it
JOBS = [2000103, 2000101, 2000103]


def computers(tx: Transaction) -> list[int]:
    return [int(row[0]) for row in tx.fetch("SELECT computer_id FROM computer ORDER BY 1")]


def schedule(tx: Transaction, computer: int, jobs: list[int]) -> tuple[int, int]:
    replace_pending(tx, [Wanted(computer, jobs, NOW)])
    return rows_of(tx, read_layout(tx), {computer: jobs})[computer]


async def test_the_rows_of_what_was_just_scheduled_are_known(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, two, *_ = computers(tx)
        schedule(tx, one, [2000101])
        first, last = schedule(tx, two, JOBS)
        schedule(tx, one, JOBS)
        rows = read_rows(tx, [two], first)
        assert [row.job.id for row in rows] == JOBS
        assert (rows[0].id, rows[-1].id) == (first, last)
        assert {row.status for row in rows} == {None}
        assert all(row.job.name not in {"", str(row.job.id)} for row in rows)

    await database.transact(work)


async def test_what_ran_before_is_no_part_of_it(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, *_ = computers(tx)
        old, _ = schedule(tx, one, JOBS)
        tx.execute("UPDATE event_schedule SET status_code = 0 WHERE computer_id = ?", one)
        first, last = schedule(tx, one, JOBS)
        rows = read_rows(tx, [one], old)
        assert [row.status for row in rows] == [0, 0, 0, None, None, None]
        assert [row.id for row in rows[3:]] == sorted({first, rows[4].id, last})
        assert old < first

    await database.transact(work)


async def test_rows_among_which_somebody_elses_stand_are_nobodys(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, *_ = computers(tx)
        layout = read_layout(tx)
        replace_pending(tx, [Wanted(one, JOBS, NOW)])
        tx.insert("event_schedule", ("event_id", "computer_id"), [(2000104, one)])
        assert rows_of(tx, layout, {one: JOBS}) == {}
        assert one in rows_of(tx, layout, {one: [*JOBS, 2000104]})

    await database.transact(work)


async def test_the_rows_of_many_computers_are_known_together(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, two, three, four, *_ = computers(tx)
        jobs = {one: JOBS, two: [2000101], three: [2000104, 2000102]}
        tx.insert("event_schedule", ("event_id", "computer_id"), [(2000104, four)])
        replace_pending(tx, [Wanted(each, ids, NOW) for each, ids in jobs.items()])
        found = rows_of(tx, read_layout(tx), jobs)
        assert found.keys() == jobs.keys()
        for each, ids in jobs.items():
            first, last = found[each]
            rows = [row for row in read_rows(tx, [each], first) if row.id <= last]
            assert [row.job.id for row in rows] == ids
        # Somebody else's row on one of them spoils nothing for the others.
        tx.insert("event_schedule", ("event_id", "computer_id"), [(2000104, two)])
        assert rows_of(tx, read_layout(tx), jobs) == {one: found[one], three: found[three]}
        assert rows_of(tx, read_layout(tx), {}) == {}

    await database.transact(work)


async def test_where_rows_have_no_ids_none_are_known(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, *_ = computers(tx)
        tx.execute("DROP TABLE event_schedule")
        tx.execute(
            "CREATE TABLE event_schedule"
            " (event_id int, computer_id int, start_time varchar(32), status_code int)"
        )
        layout = read_layout(tx)
        findings = {finding.check: finding for finding in examine(tx)}
        assert not layout.numbered
        assert rows_of(tx, layout, {one: JOBS}) == {}
        assert findings["progress"].state == "warn"

    await database.transact(work)


async def test_status_codes_are_read_as_they_stand(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, *_ = computers(tx)
        first, last = schedule(tx, one, JOBS)
        for row, status in ((first, -1), (last, 5)):
            tx.execute(
                "UPDATE event_schedule SET status_code = ? WHERE schedule_id = ?", status, row
            )
        rows = read_rows(tx, [one], first)
        assert [row.status for row in rows] == [-1, None, 5]

    await database.transact(work)


async def test_thousands_of_computers_are_asked_for_at_once(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one, *_ = computers(tx)
        first, _ = schedule(tx, one, JOBS)
        rows = read_rows(tx, [one, *range(100_000, 102_500)], first)
        assert read_rows(tx, [], first) == []
        assert read_rows(tx, [one], first + 1_000) == []
        assert len(rows) == 3
        assert isinstance(rows[0], JobRow)

    await database.transact(work)


async def test_rows_that_start_end_come_or_go_stand_otherwise_and_nothing_else_does(
    database: Database,
) -> None:
    def work(tx: Transaction) -> None:
        one, two, *_ = computers(tx)
        schedule(tx, two, [2000101])
        first, last = schedule(tx, one, JOBS)
        seen: list[Standing] = []

        def look() -> None:
            # Thousands of others cost one of them nothing.
            found = read_standings(tx, [one, *range(100_000, 101_500)], first)
            assert read_standings(tx, [one], first) == found
            assert found.keys() == {one}
            # The rows of one computer are all that there are from here on.
            none = (last + 500, last + 900)
            assert read_ranges(tx, [(first, last + 100), none]) == [found[one], Standing()]
            seen.append(found[one])

        def set_status(row: int, status: int | None) -> None:
            tx.execute(
                "UPDATE event_schedule SET status_code = ? WHERE schedule_id = ?", status, row
            )

        look()
        assert (seen[0].rows, seen[0].started) == (3, 0)
        for row, status in ((first, -1), (first, 0), (last, 5), (first, -1), (first, None)):
            set_status(row, status)
            look()
        # One goes and another comes.
        set_status(first, 0)
        look()
        tx.execute("DELETE FROM event_schedule WHERE schedule_id = ?", first)
        look()
        tx.insert("event_schedule", ("event_id", "computer_id"), [(2000104, one)])
        look()
        assert all(before != after for before, after in pairwise(seen))
        # Another status of one that has ended is no news, and what is another computer's neither.
        set_status(last, 7)
        look()
        schedule(tx, two, JOBS)
        assert read_standings(tx, [one], first) == {one: seen[-1]}
        assert seen[-1] == seen[-2]
        assert read_standings(tx, [one], last + 1_000) == read_standings(tx, [], first) == {}

    await database.transact(work)


async def test_what_was_scheduled_since_a_moment_is_known_with_its_rows(
    database: Database,
) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def done(number: int, rows: tuple[int, int] | None) -> Record:
        request = f"00000000-0000-0000-0000-00000000000{number}"
        outcome = Outcome(
            request_id=request,
            state="scheduled",
            computer=ScheduledComputer(id=number, name="X", created=False),
            jobs=(JobRef(id=1, name="x"),),
            rows=rows,
        )
        return Record(
            request_id=request, site="s", machine="m", digest="d", state="scheduled",
            outcome=encode(outcome).decode(), technician=None, item_id="job:1",
            created_at=moment + timedelta(hours=number),
        )  # fmt: skip

    def work(tx: Transaction) -> None:
        record(tx, [done(1, (1, 2)), done(2, (3, 4)), done(3, None)])
        found = read_scheduled(tx, moment + timedelta(hours=2))
        assert found == [Scheduled("00000000-0000-0000-0000-000000000002", 2, (3, 4))]

    await database.transact(work)
