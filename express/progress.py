"""How far scheduled jobs have come, as the deployment server writes it into ``event_schedule``.

A request's jobs are known by the ids of their rows, which the scheduler's own transaction reads
right after it has inserted them. So nothing has to be guessed later from jobs, times or computers.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bus.messages import JobRef, Outcome, decoder
from engine.progress import JobRow, Scheduled, Standing, scheduled_by
from express.database import MAX_ROWS, Transaction, markers
from express.schema import Layout

_PENDING: Final = (
    "SELECT computer_id, MIN(schedule_id), MAX(schedule_id), COUNT(*),"
    " SUM(CAST(event_id AS BIGINT))"
    " FROM event_schedule WHERE status_code IS NULL AND computer_id IN"
)
_STANDING: Final = (
    "COUNT(*), COUNT(status_code), SUM(CAST(schedule_id AS BIGINT)"
    " * CASE WHEN status_code IS NULL THEN 1 WHEN status_code < 0 THEN 2 ELSE 3 END)"
)
_CARRIED_OUT: Final = "SELECT outcome FROM ii_request WHERE state = 'scheduled' AND created_at >= ?"

_outcome = decoder(Outcome)


def rows_of(
    tx: Transaction, layout: Layout, scheduled: Mapping[int, Sequence[int]]
) -> dict[int, tuple[int, int]]:
    """The first and the last id of the rows of jobs that were scheduled in this transaction.

    Every pending row of these computers was deleted before, so these are all they have. A computer
    is left out where somebody scheduled something else on it in the same moment, and all are where
    rows have no ids.
    """
    if not layout.numbered or not scheduled:
        return {}
    statement = f"{_PENDING} ({markers(len(scheduled))}) GROUP BY computer_id"
    # The sum tells other jobs from these without reading thousands of rows.
    return {
        int(id_): (int(first), int(last))
        for id_, first, last, count, jobs in tx.fetch(statement, *scheduled)
        if (int(count), int(jobs)) == (len(scheduled[int(id_)]), sum(scheduled[int(id_)]))
    }


def read_ranges(tx: Transaction, ranges: Iterable[tuple[int, int]]) -> list[Standing]:
    """How all rows stand from a row to another one, for each of these ranges."""
    statement = f"SELECT {_STANDING} FROM event_schedule WHERE schedule_id BETWEEN ? AND ?"
    return [
        Standing(int(rows), int(started), int(ids or 0))
        for first, last in ranges
        for rows, started, ids in tx.fetch(statement, first, last)
    ]


def read_standings(
    tx: Transaction, computer_ids: Collection[int], first_row: int
) -> dict[int, Standing]:
    """How the rows of these computers stand, from a row on; computers without any are left out."""
    unique = sorted(set(computer_ids))
    found: dict[int, Standing] = {}
    for start in range(0, len(unique), MAX_ROWS):
        batch = unique[start : start + MAX_ROWS]
        statement = (
            f"SELECT computer_id, {_STANDING} FROM event_schedule"
            f" WHERE computer_id IN ({markers(len(batch))}) AND schedule_id >= ?"
            " GROUP BY computer_id"
        )
        for computer, rows, started, ids in tx.fetch(statement, *batch, first_row):
            found[int(computer)] = Standing(int(rows), int(started), int(ids))
    return found


def read_rows(tx: Transaction, computer_ids: Collection[int], first_row: int) -> list[JobRow]:
    """What stands in ``event_schedule`` for these computers from a row on, in the rows' order."""
    unique = sorted(set(computer_ids))
    rows: list[JobRow] = []
    for start in range(0, len(unique), MAX_ROWS):
        batch = unique[start : start + MAX_ROWS]
        statement = (
            "SELECT s.schedule_id, s.computer_id, s.event_id, e.name, s.status_code"
            " FROM event_schedule s LEFT JOIN event e ON e.event_id = s.event_id"
            f" WHERE s.computer_id IN ({markers(len(batch))}) AND s.schedule_id >= ?"
        )
        rows += [
            JobRow(
                int(id_),
                int(computer),
                JobRef(id=int(job), name=name or str(job)),
                None if status is None else int(status),
            )
            for id_, computer, job, name, status in tx.fetch(statement, *batch, first_row)
        ]
    return sorted(rows, key=lambda row: row.id)


def read_scheduled(tx: Transaction, since: datetime) -> list[Scheduled]:
    """What was scheduled for the requests that have been carried out since then.

    Read after the rows, in one transaction with them, it holds whatever took their place.
    """
    naive = since.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    return scheduled_by(_outcome.decode(text) for (text,) in tx.fetch(_CARRIED_OUT, naive))
