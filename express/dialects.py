"""What differs between the three kinds of database server. Pure."""

import re
from typing import Final, Literal

from msgspec import Struct

Dialect = Literal["sqlite", "postgres", "mssql"]
Meaning = Literal["conflict", "unavailable", "error"]


def _bare(column: str, separators: str) -> str:
    """SQL for a column's value in lower case, without separators."""
    for separator in separators:
        column = f"REPLACE({column}, '{separator}', '')"
    return f"LOWER({column})"


def _trimmed(column: str) -> str:
    """SQL for a column's value in lower case, without blanks around it."""
    return f"LOWER(LTRIM(RTRIM({column})))"


KEYS: Final = {
    "mac_addr": _bare("mac_addr", ":-. "),
    "uuid": _bare("CAST(uuid AS varchar(64))", "-{} "),
    "serial_num": _trimmed("serial_num"),
    "asset_tag": _trimmed("asset_tag"),
    "name": "LOWER(name)",
}
"""SQL for what each identifying column is compared by, since inventories write it in many forms."""

DDL: Final[dict[Dialect, dict[str, str]]] = {
    "sqlite": {
        "generated_key": "integer PRIMARY KEY AUTOINCREMENT",
        "varchar": "varchar",
        "text": "text",
        "datetime": "timestamp",
        **{f"{column}_key": key for column, key in KEYS.items()},
    },
    "postgres": {
        "generated_key": "serial PRIMARY KEY",
        "varchar": "varchar",
        "text": "text",
        "datetime": "timestamp",
        **{f"{column}_key": key for column, key in KEYS.items()},
    },
    "mssql": {
        "generated_key": "int IDENTITY(1, 1) PRIMARY KEY",
        "varchar": "nvarchar",
        "text": "nvarchar(max)",
        "datetime": "datetime",
        # An index of SQL Server has columns, not expressions.
        **{f"{column}_key": column for column in KEYS},
    },
}
"""What stands for each name in braces in the files of ``sql/``."""


class Column(Struct, frozen=True):
    """A column as ODBC's catalogue describes it; names and types in lower case.

    ``generated`` says that the database makes the value, ``required`` that an insert must give one.
    """

    name: str
    type: str
    size: int | None
    nullable: bool
    generated: bool
    required: bool


def dialect_of(dbms_name: str) -> Dialect | None:
    """The dialect of what a driver calls its database (SQL_DBMS_NAME), None for a strange one."""
    name = dbms_name.lower()
    if "sqlite" in name:
        return "sqlite"
    if "postgres" in name:
        return "postgres"
    return "mssql" if "sql server" in name else None


def column(
    dialect: Dialect,
    name: str,
    type_name: str,
    size: int | None,
    nullable: bool,
    default: str | None,
    only_key: bool,
) -> Column:
    """A column from what the catalogue says; ``only_key`` when it is the whole primary key."""
    kind = type_name.lower()
    has_default = default is not None and default.upper() != "NULL"
    if dialect == "sqlite":
        # A sole primary key of exactly this type is the row's number, made when none is given.
        generated = only_key and kind == "integer"
    elif dialect == "postgres":
        generated = has_default and str(default).lower().startswith("nextval(")
    else:
        generated = "identity" in kind or kind in {"timestamp", "rowversion"}
    return Column(
        name=name.lower(),
        type=kind,
        size=size,
        nullable=nullable,
        generated=generated,
        required=not (nullable or has_default or generated),
    )


_CONFLICT_STATES: Final = frozenset({"40001", "40P01", "40002", "23505", "55P03"})
# Deadlock, snapshot conflict and the two unique violations, by SQL Server's own numbers.
_MSSQL_CONFLICT: Final = re.compile(r"\((1205|2601|2627|3960)\)")
_SQLITE_CONFLICT: Final = re.compile(r"is locked \(\d+\)|UNIQUE constraint failed")
# Input or output error, disk full, cannot open.
_SQLITE_UNAVAILABLE: Final = re.compile(r"\((10|13|14)\)")
_UNAVAILABLE_STATES: Final = re.compile(r"08|53|57|HYT0")
_LOST: Final = re.compile(
    r"connection (has been lost|dead|is dead|is closed)|closed the connection"
    r"|no connection to the server|could not (send|receive) |connection has been closed"
    r"|connection is broken|terminating connection|communication link",
    re.IGNORECASE,
)


def meaning(state: str, text: str) -> Meaning:
    """What a driver's error means for the transaction: try again, come later, or a plain error."""
    sqlite = "[SQLite]" in text
    if state in _CONFLICT_STATES or (sqlite and _SQLITE_CONFLICT.search(text)):
        return "conflict"
    if state in {"23000", "42000", "HY000"} and not sqlite and _MSSQL_CONFLICT.search(text):
        return "conflict"
    if _UNAVAILABLE_STATES.match(state) or _LOST.search(text):
        return "unavailable"
    if sqlite and _SQLITE_UNAVAILABLE.search(text):
        return "unavailable"
    return "error"
