"""A bus, a database of each kind and a site of its own for each test of the monitor."""

from tests.services.conftest import (
    client,
    dsn,
    empty_dsn,
    express,
    kind,
    name,
    postgres,
    postgres_template,
    shared_bus,
    site,
    sqlite_template,
    url,
)

__all__ = [
    "client",
    "dsn",
    "empty_dsn",
    "express",
    "kind",
    "name",
    "postgres",
    "postgres_template",
    "shared_bus",
    "site",
    "sqlite_template",
    "url",
]
