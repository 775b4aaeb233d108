"""What the database must offer, found out and explained; and the embedded default, made."""

import re
from collections.abc import AsyncIterator, Iterable

import pytest

from engine.tree import Job
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction
from express.dialects import Column, Dialect, column, meaning
from express.jobs import read_folders
from express.schema import (
    Finding,
    create_embedded,
    examine,
    install_own_tables,
    layout_of,
    read_layout,
)

pytestmark = pytest.mark.express


async def tables_of(database: Database, *tables: str) -> list[str]:
    return await database.transact(lambda tx: [table for table in tables if tx.columns(table)])


def run(tx: Transaction, statements: Iterable[str]) -> None:
    for statement in statements:
        tx.execute(statement)


def every_job(tx: Transaction) -> list[Job]:
    rows = tx.fetch("SELECT event_id, folder_id, name, description FROM event")
    return sorted(Job(*row) for row in rows)


async def test_the_embedded_default_is_made_in_an_empty_database(empty_dsn: str) -> None:
    database = Database(empty_dsn, create=True)
    await create_embedded(database, sample=False)
    layout = await database.transact(read_layout)
    assert not layout.cannot_create
    assert not layout.cannot_schedule
    assert await database.transact(every_job) == []
    states = {finding.check: finding.state for finding in await database.transact(examine)}
    assert states.pop("jobs") == "warn"
    assert set(states.values()) == {"ok"}
    await database.close()


async def test_the_sample_is_a_believable_job_tree(database: Database) -> None:
    jobs, folders = await database.transact(lambda tx: (every_job(tx), read_folders(tx)))
    computers = await database.transact(lambda tx: tx.fetch("SELECT COUNT(*) FROM computer"))
    assert computers[0][0] == 5
    assert {finding.state for finding in await database.transact(examine)} == {"ok"}
    by_id = {folder.id: folder for folder in folders}
    assert all(folder.parent_id is None or folder.parent_id in by_id for folder in folders)
    assert all(job.folder_id in by_id for job in jobs)
    tagged = [f for f in folders if "(MI)" in f.name]
    items = [j for j in jobs if "(MI)" in j.name and j.name.strip() != "(MI)"]
    assert len(tagged) + len(items) == 12
    assert len(items) < len(jobs) / 2


async def test_making_it_again_changes_nothing(empty_dsn: str) -> None:
    database = Database(empty_dsn, create=True)
    await create_embedded(database, sample=True)
    *before, last = await database.transact(every_job)
    await database.transact(lambda tx: tx.execute("DELETE FROM event WHERE event_id = ?", last.id))
    await create_embedded(database, sample=True)
    assert await database.transact(every_job) == before
    await database.close()


async def test_a_failure_leaves_no_half_of_it(empty_dsn: str) -> None:
    database = Database(empty_dsn, create=True)
    await database.transact(
        lambda tx: tx.execute("CREATE TABLE event_folder (folder_id int NOT NULL PRIMARY KEY)")
    )
    with pytest.raises(Exception, match=r"parent_id|name"):
        await create_embedded(database, sample=True)
    assert await tables_of(database, "event_folder", "event", "ii_lock") == ["event_folder"]
    await database.close()


REAL = [
    "CREATE TABLE event_folder (folder_id int NOT NULL PRIMARY KEY, parent_id int,"
    " name varchar(64))",
    "CREATE TABLE event (event_id int NOT NULL PRIMARY KEY, folder_id int, name varchar(128),"
    " description varchar(254))",
    "CREATE TABLE computer_group (group_id int NOT NULL PRIMARY KEY, name varchar(64))",
    "CREATE TABLE computer (computer_id int NOT NULL PRIMARY KEY, group_id int, name varchar(64),"
    " serial_num varchar(64), asset_tag varchar(64), uuid varchar(64))",
    "CREATE TABLE event_schedule (schedule_id int NOT NULL PRIMARY KEY, event_id int,"
    " computer_id int, start_time varchar(30), status_code int)",
]


@pytest.fixture
async def real(empty_dsn: str) -> AsyncIterator[Database]:
    """A database as a deployment server may have it: no key of its own making, no hardware."""
    database = Database(empty_dsn, create=True)

    group = "INSERT INTO computer_group (group_id, name) VALUES (1, 'Other')"
    await database.transact(lambda tx: run(tx, [*REAL, group]))
    yield database
    await database.close()


async def test_only_own_tables_are_added_to_a_deployment_server(real: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="lacks ii_request, ii_lock"):
        await real.transact(read_layout)
    await install_own_tables(real)
    await install_own_tables(real)
    assert await tables_of(real, "ii_request", "ii_lock", "nics", "hardware") == [
        "ii_request",
        "ii_lock",
    ]
    layout = await real.transact(read_layout)
    assert layout.owners == {"uuid": "computer", "serial_num": "computer", "asset_tag": "computer"}
    assert (layout.hardware, layout.nics) == (False, False)


async def test_doctor_says_what_a_deployment_server_lacks_and_what_helps(real: Database) -> None:
    def after(tx: Transaction, statement: str) -> dict[str, Finding]:
        tx.execute(statement)
        return {f.check: f for f in examine(tx, "New Computers")}

    before = await real.transact(lambda tx: after(tx, "DROP TABLE event"))
    assert before["tables"].state == "fail"
    assert "event" in before["tables"].text
    assert before["own tables"].state == "fail"
    findings = await real.transact(lambda tx: after(tx, REAL[1]))
    assert findings["tables"].state == "ok"
    assert findings["group"].state == "fail"
    assert findings["identity"].state == "warn"
    assert findings["scheduling"].state == "fail"
    assert "event_schedule.schedule_id" in findings["scheduling"].text
    assert all(f.cure for f in findings.values() if f.state == "fail")
    assert all(re.search(r"\w[.]\Z|\d\Z", f.text) for f in findings.values())


async def test_a_row_left_in_the_locks_is_told(database: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.execute("INSERT INTO ii_lock (lock_key) VALUES ('left')")
        findings = {f.check: f for f in examine(tx)}
        assert findings["locks"].state == "warn"
        assert findings["locks"].cure

    await database.transact(work)


# The layout, from what the catalogue says.


def plain(name: str, *, required: bool = False, generated: bool = False, size: int = 64) -> Column:
    return Column(name, "varchar", size, not required, generated, required)


def tables(**more: list[Column]) -> dict[str, dict[str, Column]]:
    found = {
        "event_schedule": [
            plain("schedule_id", generated=True),
            plain("event_id", required=True),
            plain("computer_id", required=True),
            plain("start_time"),
            plain("status_code"),
        ],
        "computer": [plain("computer_id", generated=True), plain("group_id"), plain("name")],
        "hardware": [plain("computer_id", required=True), plain("serial_num"), plain("uuid")],
        "nics": [plain("computer_id"), plain("mac_addr"), plain("nic_id", generated=True)],
    } | more
    return {table: {c.name: c for c in columns} for table, columns in found.items()}


def test_identity_is_looked_for_in_both_tables() -> None:
    computer = [*tables()["computer"].values(), plain("asset_tag", size=20), plain("uuid")]
    layout = layout_of("mssql", tables(computer=computer))
    assert layout.owners == {"uuid": "hardware", "serial_num": "hardware", "asset_tag": "computer"}
    assert layout.sizes["asset_tag"] == 20
    assert layout.cannot_create == ""


@pytest.mark.parametrize(
    ("table", "columns", "why"),
    [
        (
            "computer",
            [plain("computer_id", required=True), plain("group_id"), plain("name")],
            "computer.computer_id is not numbered by the database",
        ),
        (
            "computer",
            [
                plain("computer_id", generated=True),
                plain("group_id"),
                plain("name"),
                plain("a", required=True),
                plain("b", required=True),
            ],
            "nothing is known to put into computer.a, computer.b",
        ),
        (
            "nics",
            [plain("computer_id"), plain("mac_addr"), plain("nic_id", required=True)],
            "nothing is known to put into nics.nic_id",
        ),
    ],
)
def test_what_cannot_be_filled_is_never_guessed(
    table: str, columns: list[Column], why: str
) -> None:
    layout = layout_of("mssql", tables(**{table: columns}))
    assert why in layout.cannot_create
    assert layout.cannot_schedule == ""


def test_an_odd_schedule_forbids_scheduling_alone() -> None:
    schedule = [*tables()["event_schedule"].values(), plain("severity", required=True)]
    layout = layout_of("mssql", tables(event_schedule=schedule))
    assert layout.cannot_create == ""
    assert layout.cannot_schedule == "nothing is known to put into event_schedule.severity"


@pytest.mark.parametrize(
    ("dialect", "type_name", "default", "only_key", "generated"),
    [
        ("mssql", "int identity", None, True, True),
        ("mssql", "int", None, True, False),
        ("mssql", "timestamp", None, False, True),
        ("postgres", "int4", "nextval('computer_computer_id_seq'::regclass)", True, True),
        ("postgres", "int4", None, True, False),
        ("sqlite", "INTEGER", "NULL", True, True),
        ("sqlite", "INTEGER", "NULL", False, False),
        ("sqlite", "int", "NULL", True, False),
    ],
)
def test_keys_that_the_database_makes_are_known(
    dialect: Dialect, type_name: str, default: str | None, only_key: bool, generated: bool
) -> None:
    found = column(dialect, "ID", type_name, 10, False, default, only_key)
    assert found.name == "id"
    assert found.generated == generated
    assert found.required == (not generated)


@pytest.mark.parametrize(
    ("state", "text", "expected"),
    [
        (
            "40001",
            "[40001] [Microsoft]Transaction was deadlocked (1205)",
            "conflict",
        ),
        (
            "23000",
            "[23000] [Microsoft]Violation of PRIMARY KEY (2627)",
            "conflict",
        ),
        ("23000", "[23000] [Microsoft]Cannot insert duplicate key row (2601) (SQLEx)", "conflict"),
        ("23000", "[23000] [Microsoft]Cannot insert the value NULL (515) (SQLExec)", "error"),
        ("42S02", "[42S02] [Microsoft]Invalid object name 'x' (208) (SQLExecDirectW)", "error"),
        ("08S01", "[08S01] [Microsoft]Communication link failure (0)", "unavailable"),
        ("HYT00", "[HYT00] [Microsoft]Query timeout expired (0)", "unavailable"),
        ("HY000", "[HY000] [SQLite]database is locked (5) (5)", "conflict"),
        ("HY000", "[HY000] [SQLite]NOT NULL constraint failed: t.a (19) (19)", "error"),
        ("HY000", "[HY000] [SQLite]disk I/O error (10) (10)", "unavailable"),
        ("57P01", "[57P01] FATAL: terminating connection (35)", "unavailable"),
    ],
)
def test_what_a_drivers_error_means(state: str, text: str, expected: str) -> None:
    assert meaning(state, text) == expected
