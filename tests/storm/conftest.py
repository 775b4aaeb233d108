"""The tests of the reckoning can have a database of each kind."""

from tests.databases import (
    database,
    dsn,
    empty_dsn,
    kind,
    postgres,
    postgres_template,
    sqlite_template,
)

__all__ = [
    "database",
    "dsn",
    "empty_dsn",
    "kind",
    "postgres",
    "postgres_template",
    "sqlite_template",
]
