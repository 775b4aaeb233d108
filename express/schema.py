"""What the database must offer: found out at start, explained by `doctor`, made where it is ours.

No public description of a deployment server's database is complete. Whatever is not certain about
it is decided here, from what the live database holds, so that nothing else has to guess.
"""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final, Literal

from msgspec import Struct

from express.connection import DatabaseUnavailable
from express.database import Database, Transaction
from express.dialects import DDL, Column, Dialect

Owner = Literal["hardware", "computer"]
Tables = Mapping[str, Mapping[str, Column]]
"""The columns of each table that exists, by their names in lower case."""

_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "event": ("event_id", "folder_id", "name", "description"),
    "event_folder": ("folder_id", "parent_id", "name"),
    "event_schedule": ("event_id", "computer_id", "start_time", "status_code"),
    "computer": ("computer_id", "group_id", "name"),
    "computer_group": ("group_id", "name"),
}
_OWN: Final[dict[str, tuple[str, ...]]] = {
    "ii_request": (
        "request_id",
        "site",
        "machine",
        "digest",
        "state",
        "outcome",
        "technician",
        "item_id",
        "created_at",
    ),
    "ii_lock": ("lock_key",),
}
_OPTIONAL: Final[dict[str, tuple[str, ...]]] = {
    "hardware": ("computer_id",),
    "nics": ("computer_id", "mac_addr"),
}
_ABOUT_MACHINES: Final = ("uuid", "serial_num", "asset_tag", "manuf", "prod_name")


class Layout(Struct, frozen=True, kw_only=True):
    """What was found in the database.

    ``owners`` names the table in which each column about machines stands, and ``sizes`` the
    longest text it takes; ``hardware`` and ``nics`` say whether there are such tables, ``numbered``
    whether the rows of ``event_schedule`` have ids, by which their progress can be followed.
    ``cannot_create`` and ``cannot_schedule`` are why no computer can be created or no job
    scheduled, or empty.
    """

    dialect: Dialect
    owners: dict[str, Owner]
    sizes: dict[str, int]
    hardware: bool
    nics: bool
    numbered: bool = False
    cannot_create: str = ""
    cannot_schedule: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at: its state, what was seen, and what to do about it."""

    check: str
    state: Literal["ok", "warn", "fail"]
    text: str
    cure: str = ""


def read_layout(tx: Transaction) -> Layout:
    """What this database holds.

    Raises:
        DatabaseUnavailable: a table or column that is needed is not there; the text names it.
    """
    tables = _read_tables(tx)
    missing = lacking(tables, _NEEDED) + lacking(tables, _OWN)
    if missing:
        text = f"The deployment server's database lacks {', '.join(missing)}."
        raise DatabaseUnavailable(text, text)
    return layout_of(tx.dialect, tables)


def lacking(tables: Tables, needed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The tables and ``table.column`` that are needed and not there."""
    missing: list[str] = []
    for table, columns in needed.items():
        if table not in tables:
            missing.append(table)
        else:
            missing += [f"{table}.{name}" for name in columns if name not in tables[table]]
    return missing


def layout_of(dialect: Dialect, tables: Tables) -> Layout:
    """The layout of a database that lacks nothing that is needed."""
    owners: dict[str, Owner] = {}
    sizes: dict[str, int] = {}
    hardware = not lacking(tables, {"hardware": _OPTIONAL["hardware"]})
    order: tuple[Owner, ...] = ("hardware", "computer") if hardware else ("computer",)
    for name in _ABOUT_MACHINES:
        for table in order:
            if name in tables[table]:
                owners[name] = table
                # Zero and less are how drivers say that there is no bound.
                size = tables[table][name].size
                sizes[name] = size if size is not None and size > 0 else 255
                break
    nics = not lacking(tables, {"nics": _OPTIONAL["nics"]})

    filled: dict[str, set[str]] = {
        "computer": {"name", "group_id"} | {n for n, table in owners.items() if table == "computer"}
    }
    if hardware:
        filled["hardware"] = {"computer_id"} | {n for n, t in owners.items() if t == "hardware"}
    if nics:
        filled["nics"] = {"computer_id", "mac_addr"}
    cannot_create = [_cannot_fill(table, tables[table], names) for table, names in filled.items()]
    if not tables["computer"]["computer_id"].generated:
        cannot_create.insert(0, "computer.computer_id is not numbered by the database")
    cannot_schedule = [
        _cannot_fill("event_schedule", tables["event_schedule"], set(_NEEDED["event_schedule"][:3]))
    ]
    return Layout(
        dialect=dialect,
        owners=owners,
        sizes=sizes,
        hardware=hardware,
        nics=nics,
        numbered="schedule_id" in tables["event_schedule"],
        cannot_create="; ".join(filter(None, cannot_create)),
        cannot_schedule="; ".join(filter(None, cannot_schedule)),
    )


def _cannot_fill(table: str, columns: Mapping[str, Column], filled: set[str]) -> str:
    """Why no row can be added when only these columns are known how to fill, or nothing."""
    unknown = [name for name, column in columns.items() if column.required and name not in filled]
    return f"nothing is known to put into {table}.{f', {table}.'.join(unknown)}" if unknown else ""


def _read_tables(tx: Transaction) -> dict[str, dict[str, Column]]:
    tables: dict[str, dict[str, Column]] = {}
    for table in (*_NEEDED, *_OWN, *_OPTIONAL):
        columns = tx.columns(table)
        if columns:
            tables[table] = {column.name: column for column in columns}
    return tables


_COUNT_JOBS: Final = "SELECT COUNT(*) FROM event"
_COUNT_FOLDERS: Final = "SELECT COUNT(*) FROM event_folder"
_COUNT_COMPUTERS: Final = "SELECT COUNT(*) FROM computer WHERE group_id IS NOT NULL"
_COUNT_LEFTOVERS: Final = "SELECT COUNT(*) FROM computer WHERE group_id IS NULL"
_COUNT_PENDING: Final = "SELECT COUNT(*) FROM event_schedule WHERE status_code IS NULL"
_COUNT_GROUPS: Final = "SELECT COUNT(*) FROM computer_group WHERE LOWER(name) = LOWER(?)"
_COUNT_LOCKS: Final = "SELECT COUNT(*) FROM ii_lock"
_CASE: Final = "SELECT CASE WHEN 'a' = 'A' THEN 1 ELSE 0 END"


def examine(tx: Transaction, new_computer_group: str = "New Computers") -> list[Finding]:
    """Everything worth knowing about this database, each with the cure where it is not well."""
    tables = _read_tables(tx)
    findings = [Finding(check="server", state="ok", text=tx.version)]
    missing = lacking(tables, _NEEDED)
    findings.append(
        Finding(
            check="tables",
            state="fail",
            text=f"The database lacks {', '.join(missing)}.",
            cure="Check that the connection string names the eXpress database, and that its user "
            "may read these tables.",
        )
        if missing
        else Finding(check="tables", state="ok", text="Every table and column needed is there.")
    )
    own = lacking(tables, _OWN)
    findings.append(
        Finding(
            check="own tables",
            state="fail",
            text=f"ImageInvoker's own {', '.join(own)} is not there.",
            cure="Let ImageInvoker create its two tables, with a user that may create tables.",
        )
        if own
        else Finding(check="own tables", state="ok", text="ii_request and ii_lock are there.")
    )
    if not missing:
        findings += _examine_layout(layout_of(tx.dialect, tables))
        findings += _examine_content(tx, new_computer_group)
    if not own:
        findings += _examine_locks(tx)
    return findings


def _examine_layout(layout: Layout) -> list[Finding]:
    placed = [f"{name} in {table}" for name, table in layout.owners.items()]
    keys = {"uuid", "serial_num", "asset_tag"} & layout.owners.keys()
    findings = [
        Finding(
            check="identity",
            state="ok" if layout.nics and len(keys) == 3 else "warn" if keys else "fail",
            text=f"Found {', '.join(placed) or 'no column about machines'}; hardware addresses "
            f"{'in nics' if layout.nics else 'nowhere'}.",
            cure=""
            if layout.nics and len(keys) == 3
            else "Machines are matched by what is there; give the user the right to read "
            "hardware and nics.",
        )
    ]
    for check, reason in (
        ("creating computers", layout.cannot_create),
        ("scheduling", layout.cannot_schedule),
    ):
        findings.append(
            Finding(
                check=check,
                state="fail",
                text=f"Refused: {reason}.",
                cure="This deployment server is laid out in a way not known yet; report its "
                "version and this text. Known computers are not affected."
                if check == "creating computers"
                else "This deployment server is laid out in a way not known yet; report its "
                "version and this text.",
            )
            if reason
            else Finding(check=check, state="ok", text="The database numbers new rows itself.")
        )
    findings.append(
        Finding(
            check="progress",
            state="ok",
            text="Scheduled jobs have ids, by which deployments are followed to their end.",
        )
        if layout.numbered
        else Finding(
            check="progress",
            state="warn",
            text="event_schedule has no schedule_id, so nobody can tell how jobs go on.",
            cure="Jobs are scheduled all the same; look at the deployment console for how they "
            "go on.",
        )
    )
    return findings


def _examine_content(tx: Transaction, new_computer_group: str) -> list[Finding]:
    findings: list[Finding] = []
    groups = _count(tx, _COUNT_GROUPS, new_computer_group)
    findings.append(
        Finding(check="group", state="ok", text=f"New computers go to {new_computer_group!r}.")
        if groups
        else Finding(
            check="group",
            state="fail",
            text=f"There is no computer group {new_computer_group!r} for new computers.",
            cure="Create it in the deployment console, or name another in the option "
            "new_computer_group.",
        )
    )
    blind = _count(tx, _CASE)
    findings.append(
        Finding(
            check="letter case",
            state="ok",
            text=f"The database {'takes' if blind else 'does not take'} capital and small letters "
            "for equal; names are compared without regard to case either way.",
        )
    )
    jobs = _count(tx, _COUNT_JOBS)
    folders = _count(tx, _COUNT_FOLDERS)
    findings.append(
        Finding(
            check="jobs",
            state="ok" if jobs else "warn",
            text=f"{jobs} jobs in {folders} job folders.",
            cure="" if jobs else "Create jobs in the deployment console.",
        )
    )
    computers = _count(tx, _COUNT_COMPUTERS)
    leftovers = _count(tx, _COUNT_LEFTOVERS)
    pending = _count(tx, _COUNT_PENDING)
    findings.append(
        Finding(
            check="computers",
            state="ok",
            text=f"{computers} computers, {leftovers} leftovers without a group (never matched), "
            f"{pending} pending jobs.",
        )
    )
    return findings


def _examine_locks(tx: Transaction) -> list[Finding]:
    left = _count(tx, _COUNT_LOCKS)
    if not left:
        return []
    return [
        Finding(
            check="locks",
            state="warn",
            text=f"{left} rows stand in ii_lock, where none outlives its transaction.",
            cure="Empty the table ii_lock.",
        )
    ]


def _count(tx: Transaction, sql: str, *params: str) -> int:
    return int(tx.fetch(sql, *params)[0][0])


async def create_embedded(database: Database, sample: bool) -> None:
    """Creates what the embedded default needs and does not have yet, with the sample if wanted.

    The sample only goes into a database whose job tree is empty.
    """

    def complete(tx: Transaction) -> None:
        existing = _read_tables(tx)
        _create(tx, "embedded.sql", existing)
        _create(tx, "own.sql", existing)
        if "computer_group" not in existing:
            _run(tx, "groups.sql")
        if sample and not _count(tx, _COUNT_JOBS) + _count(tx, _COUNT_FOLDERS):
            _run(tx, "sample.sql")

    await database.transact(complete)


async def install_own_tables(database: Database) -> None:
    """Creates ImageInvoker's own tables in a deployment server's database, if they are not there.

    Raises:
        pyodbc.Error: the user may not create tables.
    """
    await database.transact(lambda tx: _create(tx, "own.sql", _read_tables(tx)))


def statements(file: str, dialect: Dialect) -> list[str]:
    """The statements of a file of ``sql/``, in the words of one dialect."""
    text = (resources.files("express") / "sql" / file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    parts = re.split(r";\s*(?:\n|\Z)", "\n".join(lines).format_map(DDL[dialect]))
    return [part.strip() for part in parts if part.strip()]


_ON_TABLE: Final = re.compile(r"(?:CREATE TABLE|CREATE INDEX \w+ ON) (\w+)")


def _create(tx: Transaction, file: str, existing: Tables) -> None:
    for statement in statements(file, tx.dialect):
        table = _ON_TABLE.match(statement)
        if table is not None and table[1] not in existing:
            tx.execute(statement)


def _run(tx: Transaction, file: str) -> None:
    for statement in statements(file, tx.dialect):
        tx.execute(statement)
