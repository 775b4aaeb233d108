"""Deployment servers for the contract of engines, as an operator of each sees and changes them.

An engine of another package passes the same tests with a `Ground` of its own: say how its
deployment server is made, and add it to the fixture `ground` in conftest.py.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec
import pyodbc

from bus.machines import identity, machine_key
from bus.messages import Machine
from express.connection import SQLITE_GATE
from express.database import Database
from express.dialects import dialect_of
from express.schedules import locking
from express.schema import create_embedded
from tests.databases import PostgresServer
from tests.site import stopped


class Ground(Protocol):
    """A deployment server without jobs and computers, and what its operators do to it."""

    address: str
    """As services are told it: the engine's name stands before it."""

    def add_folder(self, id_: int, parent: int | None, name: str) -> None: ...
    def add_job(self, id_: int, folder: int | None, name: str, about: str = "") -> None: ...
    def rename_job(self, id_: int, name: str) -> None: ...
    def remove_job(self, id_: int) -> None: ...
    def add_computer(self, name: str, machine: Machine) -> int: ...
    def names(self) -> dict[int, str]:
        """The computers."""
        ...

    def add_row(self, computer: int, job: int, status: int | None) -> None:
        """Schedules a job, as somebody else's console would."""
        ...

    def set_status(self, row: int, status: int) -> None: ...
    def remove_row(self, row: int) -> None: ...
    def pending(self, computer: int) -> list[int]:
        """The jobs that have not started, in their order."""
        ...

    def starts_in(self, computer: int) -> set[timedelta]:
        """From now on, how long until those jobs start; to the minute."""
        ...

    def away(self) -> AbstractContextManager[object]:
        """Until the end the deployment server is away; entered while nobody is connected."""
        ...

    def busy(self, machine: Machine) -> AbstractContextManager[object]:
        """Somebody else holds what an order of this machine needs, until the end."""
        ...


def _minutes(start: datetime, now: datetime) -> timedelta:
    return timedelta(minutes=round((start - now) / timedelta(minutes=1)))


@contextmanager
def _moved(file: Path) -> Iterator[None]:
    """A file that is not where it should be."""
    away = file.rename(file.with_suffix(".away"))
    try:
        yield
    finally:
        away.rename(file)


class TinyGround:
    """The SQLite file of the engine `tiny`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "tiny.db"
        self.address = f"tiny:{self._file}"
        # Only here: the package must have been installed.
        from tiny_engine.engine import SCHEMA  # noqa: PLC0415

        with closing(sqlite3.connect(self._file)) as db:
            db.executescript(SCHEMA)

    def add_folder(self, id_: int, parent: int | None, name: str) -> None:
        self._sql("INSERT INTO folder VALUES (?, ?, ?)", id_, parent, name)

    def add_job(self, id_: int, folder: int | None, name: str, about: str = "") -> None:
        self._sql("INSERT INTO job VALUES (?, ?, ?, ?)", id_, folder, name, about)

    def rename_job(self, id_: int, name: str) -> None:
        self._sql("UPDATE job SET name = ? WHERE id = ?", name, id_)

    def remove_job(self, id_: int) -> None:
        self._sql("DELETE FROM job WHERE id = ?", id_)

    def add_computer(self, name: str, machine: Machine) -> int:
        known = msgspec.json.encode(machine).decode()
        self._sql("INSERT INTO computer (name, machine) VALUES (?, ?)", name, known)
        return max(self.names())

    def names(self) -> dict[int, str]:
        return {
            int(str(id_)): str(name) for id_, name in self._sql("SELECT id, name FROM computer")
        }

    def add_row(self, computer: int, job: int, status: int | None) -> None:
        statement = "INSERT INTO scheduled (computer, job, status) VALUES (?, ?, ?)"
        self._sql(statement, computer, job, status)

    def set_status(self, row: int, status: int) -> None:
        self._sql("UPDATE scheduled SET status = ? WHERE id = ?", status, row)

    def remove_row(self, row: int) -> None:
        self._sql("DELETE FROM scheduled WHERE id = ?", row)

    def pending(self, computer: int) -> list[int]:
        statement = "SELECT job FROM scheduled WHERE computer = ? AND status IS NULL ORDER BY id"
        return [int(str(job)) for (job,) in self._sql(statement, computer)]

    def starts_in(self, computer: int) -> set[timedelta]:
        now = datetime.now(UTC)
        statement = "SELECT start_at FROM scheduled WHERE computer = ? AND status IS NULL"
        return {
            _minutes(datetime.fromisoformat(str(at)) if at else now, now)
            for (at,) in self._sql(statement, computer)
        }

    def away(self) -> AbstractContextManager[object]:
        return _moved(self._file)

    @contextmanager
    def busy(self, machine: Machine) -> Iterator[None]:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield

    def _sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._file)) as db, db:
            return db.execute(statement, values).fetchall()


class ExpressGround:
    """An eXpress database, of whichever server."""

    def __init__(self, dsn: str, away: AbstractContextManager[object]) -> None:
        self.address = f"express:{dsn}"
        self._dsn = dsn
        self._away = away

    async def create(self) -> None:
        """Makes the database, without the sample."""
        database = Database(self._dsn, create=True)
        await create_embedded(database, sample=False)
        await database.close()

    def add_folder(self, id_: int, parent: int | None, name: str) -> None:
        columns = "(folder_id, parent_id, name)"
        self._sql(f"INSERT INTO event_folder {columns} VALUES (?, ?, ?)", id_, parent, name)

    def add_job(self, id_: int, folder: int | None, name: str, about: str = "") -> None:
        columns = "(event_id, folder_id, name, description)"
        self._sql(f"INSERT INTO event {columns} VALUES (?, ?, ?, ?)", id_, folder, name, about)

    def rename_job(self, id_: int, name: str) -> None:
        self._sql("UPDATE event SET name = ? WHERE event_id = ?", name, id_)

    def remove_job(self, id_: int) -> None:
        self._sql("DELETE FROM event WHERE event_id = ?", id_)

    def add_computer(self, name: str, machine: Machine) -> int:
        known = identity(machine)
        group = "SELECT MIN(group_id) FROM computer_group"
        self._sql(f"INSERT INTO computer (name, group_id) VALUES (?, ({group}))", name)
        id_ = max(self.names())
        columns = "(computer_id, uuid, serial_num, asset_tag)"
        self._sql(
            f"INSERT INTO hardware {columns} VALUES (?, ?, ?, ?)",
            id_, machine.uuid, known.serial, known.asset_tag,
        )  # fmt: skip
        for mac in known.macs:
            self._sql("INSERT INTO nics (computer_id, mac_addr) VALUES (?, ?)", id_, mac)
        return id_

    def names(self) -> dict[int, str]:
        rows = self._sql("SELECT computer_id, name FROM computer WHERE group_id IS NOT NULL")
        return {int(str(id_)): str(name) for id_, name in rows}

    def add_row(self, computer: int, job: int, status: int | None) -> None:
        self._sql(
            "INSERT INTO event_schedule (event_id, computer_id, start_time, status_code)"
            " VALUES (?, ?, CURRENT_TIMESTAMP, ?)",
            job, computer, status,
        )  # fmt: skip

    def set_status(self, row: int, status: int) -> None:
        self._sql("UPDATE event_schedule SET status_code = ? WHERE schedule_id = ?", status, row)

    def remove_row(self, row: int) -> None:
        self._sql("DELETE FROM event_schedule WHERE schedule_id = ?", row)

    def pending(self, computer: int) -> list[int]:
        rows = self._sql(
            "SELECT event_id FROM event_schedule WHERE computer_id = ? AND status_code IS NULL"
            " ORDER BY schedule_id",
            computer,
        )
        return [int(str(job)) for (job,) in rows]

    def starts_in(self, computer: int) -> set[timedelta]:
        rows = self._sql(
            "SELECT start_time, CURRENT_TIMESTAMP FROM event_schedule"
            " WHERE computer_id = ? AND status_code IS NULL",
            computer,
        )
        return {_minutes(_moment(start), _moment(now)) for start, now in rows}

    def away(self) -> AbstractContextManager[object]:
        return self._away

    @contextmanager
    def busy(self, machine: Machine) -> Iterator[None]:
        with SQLITE_GATE:
            connection = pyodbc.connect(self._dsn, autocommit=False, timeout=5)
        try:
            dialect = dialect_of(connection.getinfo(pyodbc.SQL_DBMS_NAME))
            assert dialect
            with closing(
                connection.execute(locking(dialect, 1), f"machine:{machine_key(machine)}")
            ):
                yield
        finally:
            connection.rollback()
            with SQLITE_GATE:
                connection.close()

    def _sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with SQLITE_GATE:
            connection = pyodbc.connect(self._dsn, autocommit=True, timeout=5)
        try:
            # SQLite's driver keeps the files of a connection open whose cursor still is.
            with closing(connection.execute(statement, *values)) as cursor:
                return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            with SQLITE_GATE:
                connection.close()


def _moment(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=None)


def express_on_sqlite(dsn: str, file: Path) -> ExpressGround:
    """An eXpress database in a file."""
    return ExpressGround(dsn, _moved(file))


def express_on_postgres(dsn: str, server: PostgresServer) -> ExpressGround:
    """An eXpress database of a server of this test run."""
    return ExpressGround(dsn, stopped(server))
