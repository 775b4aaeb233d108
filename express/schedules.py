"""Scheduling: locks, pending jobs, and the record of what was done for which request."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from express.connection import DatabaseUnavailable
from express.database import Transaction
from express.dialects import Dialect
from express.schema import Layout

LOCKING: Final[dict[Dialect, str]] = {
    # Whoever writes is the only writer, also where there is nothing to delete.
    "sqlite": "DELETE FROM ii_lock WHERE lock_key = ?",
    "postgres": "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))",
    # Not sp_getapplock: that it has failed is no error there, and goes unheard.
    "mssql": "INSERT INTO ii_lock (lock_key) VALUES (?)",
}
"""The statement that waits for a key and holds it to the end of its transaction."""
_UNLOCK: Final = "DELETE FROM ii_lock WHERE lock_key = ?"
_DELETE_PENDING: Final = "DELETE FROM event_schedule WHERE computer_id = ? AND status_code IS NULL"
_NOW: Final = "SELECT CURRENT_TIMESTAMP"
_RECORDED: Final = (
    "SELECT request_id, site, machine, digest, state, outcome, technician, item_id, created_at"
    " FROM ii_request WHERE request_id = ?"
)
_OLDEST_RECORD: Final = "SELECT MIN(created_at) FROM ii_request WHERE site = ? AND created_at < ?"
_FORGET: Final = "DELETE FROM ii_request WHERE site = ? AND created_at < ?"
_RECORD_COLUMNS: Final = (
    "request_id",
    "site",
    "machine",
    "digest",
    "state",
    "outcome",
    "technician",
    "item_id",
    "created_at",
)
_ZONE_STEP: Final = timedelta(minutes=15)
"""Every zone's offset from UTC is a multiple of this; less is a clock that is wrong."""


class Record(Struct, frozen=True, kw_only=True):
    """What was done for a request; ``outcome`` is the wire form of its `Outcome`, as text."""

    request_id: str
    site: str
    machine: str
    digest: str
    state: Literal["scheduled", "rejected"]
    outcome: str
    technician: str | None
    item_id: str
    created_at: datetime


def lock(tx: Transaction, key: str) -> None:
    """Waits until no other transaction holds ``key``, and holds it until this one ends.

    What the holder before committed can be read after this. Where a database has one writer only,
    this is what makes a transaction the writer, so it must come before any read.

    Raises:
        WriteConflict, DatabaseUnavailable: the wait was too long, or would never have ended.
    """
    tx.execute(LOCKING[tx.dialect], key)


def unlock(tx: Transaction, key: str) -> None:
    """Takes a lock's row away again where it is one, as the last thing before the commit.

    Others still wait until it has committed: nobody sees the row go before that.
    """
    if tx.dialect == "mssql":
        tx.execute(_UNLOCK, key)


def replace_pending(
    tx: Transaction,
    layout: Layout,
    computer_id: int,
    job_ids: Sequence[int],
    start_time: datetime,
) -> int:
    """Deletes a computer's pending jobs and schedules these in order; returns how many went.

    Args:
        start_time: naive, in the database's own clock, as `start_time` makes it.

    Raises:
        DatabaseUnavailable: this database does not let jobs be scheduled; the text says why.
    """
    if layout.cannot_schedule:
        raise DatabaseUnavailable(
            layout.cannot_schedule,
            f"This deployment server does not let jobs be scheduled: {layout.cannot_schedule}.",
        )
    replaced = tx.execute(_DELETE_PENDING, computer_id)
    tx.insert(
        "event_schedule",
        ("event_id", "computer_id", "start_time"),
        [(job_id, computer_id, start_time) for job_id in job_ids],
    )
    return replaced


def start_time(tx: Transaction, start_at: datetime | None) -> datetime:
    """When to start, in the database's own clock: naive, in whole seconds; None means now.

    The clock's distance from UTC is what it is now: a start beyond a change to or from summer time
    is off by that change.
    """
    now = _naive((tx.fetch(_NOW))[0][0])
    return in_database_clock(start_at, now, datetime.now(UTC))


def in_database_clock(start_at: datetime | None, database_now: datetime, now: datetime) -> datetime:
    """``start_at`` as a database whose clock shows ``database_now`` at ``now`` would write it."""
    if start_at is None:
        return database_now.replace(microsecond=0)
    distance = database_now - now.astimezone(UTC).replace(tzinfo=None)
    offset = round(distance / _ZONE_STEP) * _ZONE_STEP
    return (start_at.astimezone(UTC).replace(tzinfo=None) + offset).replace(microsecond=0)


def _naive(value: object) -> datetime:
    """A moment as a driver gives it: SQLite's comes as text."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=None)


def recorded(tx: Transaction, request_id: str) -> Record | None:
    """What was done for a request, None when nothing was yet."""
    rows = tx.fetch(_RECORDED, request_id)
    if not rows:
        return None
    values = dict(zip(_RECORD_COLUMNS, rows[0], strict=True))
    values["created_at"] = _naive(values["created_at"]).replace(tzinfo=UTC)
    return Record(**values)


def record(tx: Transaction, done: Record) -> None:
    """Records what was done for a request.

    Raises:
        WriteConflict: something is recorded for this request already.
    """
    values = [getattr(done, name) for name in _RECORD_COLUMNS[:-1]]
    created_at = done.created_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    tx.insert("ii_request", _RECORD_COLUMNS, [(*values, created_at)])


def forget_records(tx: Transaction, site: str, before: datetime, part: timedelta) -> int:
    """Deletes a site's oldest records from before a moment, those of ``part``; returns how many.

    Call it in one transaction after the other until it returns 0: none holds many locks then.
    """
    limit = before.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    oldest = (tx.fetch(_OLDEST_RECORD, site, limit))[0][0]
    if oldest is None:
        return 0
    return tx.execute(_FORGET, site, min(limit, _naive(oldest) + part))
