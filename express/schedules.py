"""Scheduling: locks, pending jobs, and the record of what was done for which request."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from engine.orders import Record
from express.database import Transaction, markers
from express.dialects import Dialect

_UNLOCK: Final = "DELETE FROM ii_lock WHERE lock_key IN"
_PENDING: Final = (
    "SELECT computer_id, COUNT(*) FROM event_schedule WHERE status_code IS NULL AND computer_id IN"
)
_DELETE_PENDING: Final = "DELETE FROM event_schedule WHERE status_code IS NULL AND computer_id IN"
_NOW: Final = "SELECT CURRENT_TIMESTAMP"
_RECORDED: Final = (
    "SELECT request_id, site, machine, digest, state, outcome, technician, item_id, created_at"
    " FROM ii_request WHERE request_id IN"
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


class Wanted(Struct, frozen=True):
    """The jobs that a computer is to have pending, in order, and from when on.

    ``start`` is naive, in the database's own clock, as `in_database_clock` makes it.
    """

    computer_id: int
    job_ids: Sequence[int]
    start: datetime


def lock(tx: Transaction, keys: Collection[str]) -> None:
    """Waits until no other transaction holds one of ``keys``, and holds them until this one ends.

    What the holder before committed can be read after this. Where a database has one writer only,
    this is what makes a transaction the writer, so it must come before any read.

    Raises:
        WriteConflict, DatabaseUnavailable: the wait was too long, or would never have ended.
    """
    if keys:
        tx.execute(locking(tx.dialect, len(keys)), *sorted(keys))


def locking(dialect: Dialect, count: int) -> str:
    """The statement that waits for so many keys and holds them to the end of its transaction."""
    match dialect:
        case "sqlite":
            # Whoever writes is the only writer, also where there is nothing to delete.
            return f"{_UNLOCK} ({markers(count)})"
        case "postgres":
            return "SELECT " + ", ".join(["pg_advisory_xact_lock(hashtextextended(?, 0))"] * count)
        case "mssql":
            # Not sp_getapplock: that it has failed is no error there, and goes unheard.
            rows = ", ".join(["(?)"] * count)
            return f"INSERT INTO ii_lock (lock_key) VALUES {rows}"


def unlock(tx: Transaction, keys: Collection[str]) -> None:
    """Takes the rows of locks away again where they are rows, as the last thing before the commit.

    Others still wait until it has committed: nobody sees a row go before that.
    """
    if keys and tx.dialect == "mssql":
        tx.execute(f"{_UNLOCK} ({markers(len(keys))})", *sorted(keys))


def replace_pending(tx: Transaction, wanted: Sequence[Wanted]) -> dict[int, int]:
    """Deletes computers' pending jobs and schedules others; returns how many went, by computer."""
    ids = [each.computer_id for each in wanted]
    marks = markers(len(ids))
    found = tx.fetch(f"{_PENDING} ({marks}) GROUP BY computer_id", *ids) if ids else []
    replaced = {int(id_): int(count) for id_, count in found}
    if replaced:
        tx.execute(f"{_DELETE_PENDING} ({marks})", *ids)
    tx.insert(
        "event_schedule",
        ("event_id", "computer_id", "start_time"),
        [(job_id, each.computer_id, each.start) for each in wanted for job_id in each.job_ids],
    )
    return replaced


def clock(tx: Transaction) -> datetime:
    """What the database's own clock shows, naive."""
    return _naive(tx.fetch(_NOW)[0][0])


def in_database_clock(start_at: datetime | None, database_now: datetime, now: datetime) -> datetime:
    """``start_at`` as a database whose clock shows ``database_now`` at ``now`` would write it.

    It is naive, in whole seconds; None means now. The clock's distance from UTC is what it is now:
    a start beyond a change to or from summer time is off by that change.
    """
    if start_at is None:
        return database_now.replace(microsecond=0)
    distance = database_now - now.astimezone(UTC).replace(tzinfo=None)
    offset = round(distance / _ZONE_STEP) * _ZONE_STEP
    return (start_at.astimezone(UTC).replace(tzinfo=None) + offset).replace(microsecond=0)


def _naive(value: object) -> datetime:
    """A moment as a driver gives it: SQLite's comes as text."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=None)


def recorded(tx: Transaction, request_ids: Collection[str]) -> dict[str, Record]:
    """What was done for requests, by their ids; nothing for those for which nothing was yet."""
    if not request_ids:
        return {}
    found: dict[str, Record] = {}
    for row in tx.fetch(f"{_RECORDED} ({markers(len(request_ids))})", *request_ids):
        values = dict(zip(_RECORD_COLUMNS, row, strict=True))
        values["created_at"] = _naive(values["created_at"]).replace(tzinfo=UTC)
        record = Record(**values)
        found[record.request_id] = record
    return found


def record(tx: Transaction, done: Sequence[Record]) -> None:
    """Records what was done for requests.

    Raises:
        WriteConflict: something is recorded for one of them already.
    """
    rows = [
        (
            *(getattr(each, name) for name in _RECORD_COLUMNS[:-1]),
            each.created_at.astimezone(UTC).replace(tzinfo=None, microsecond=0),
        )
        for each in done
    ]
    tx.insert("ii_request", _RECORD_COLUMNS, rows)


def forget_records(tx: Transaction, site: str, before: datetime, part: timedelta) -> int:
    """Deletes a site's oldest records from before a moment, those of ``part``; returns how many.

    Call it in one transaction after the other until it returns 0: none holds many locks then.
    """
    limit = before.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    oldest = (tx.fetch(_OLDEST_RECORD, site, limit))[0][0]
    if oldest is None:
        return 0
    return tx.execute(_FORGET, site, min(limit, _naive(oldest) + part))
