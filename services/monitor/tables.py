"""The tables of the history database, and how they are made."""

from typing import Final

import pyodbc

from express.database import Database, Transaction
from express.dialects import DDL

TABLES: Final = {
    "ii_monitor": (
        """
        CREATE TABLE ii_monitor (
            site {varchar}(32) NOT NULL PRIMARY KEY,
            stream {varchar}(40) NOT NULL,
            position bigint NOT NULL,
            told bigint NOT NULL,
            holder {varchar}(36) NOT NULL,
            beat bigint NOT NULL
        )
        """,
    ),
    "ii_heard": (
        """
        CREATE TABLE ii_heard (
            event_key bigint NOT NULL PRIMARY KEY,
            site {varchar}(32) NOT NULL,
            day {varchar}(10) NOT NULL
        )
        """,
        "CREATE INDEX ii_heard_day ON ii_heard (site, day)",
    ),
    "ii_opening": (
        """
        CREATE TABLE ii_opening (
            site {varchar}(32) NOT NULL,
            machine {varchar}(128) NOT NULL,
            opened_at bigint NOT NULL
        )
        """,
        "CREATE INDEX ii_opening_machine ON ii_opening (site, machine)",
    ),
    "ii_deployment": (
        """
        CREATE TABLE ii_deployment (
            site {varchar}(32) NOT NULL,
            request_id {varchar}(36) NOT NULL,
            day {varchar}(10) NOT NULL,
            machine {varchar}(128) NOT NULL,
            item {varchar}(128) NOT NULL,
            technician {varchar}(256) NOT NULL,
            computer {varchar}(128) NOT NULL,
            problem {varchar}(128) NOT NULL,
            outcome {varchar}(16) NOT NULL,
            jobs integer NOT NULL,
            ending {varchar}(128) NOT NULL,
            portal_at bigint,
            accepted_at bigint,
            scheduled_at bigint,
            rejected_at bigint,
            finished_at bigint,
            PRIMARY KEY (site, request_id)
        )
        """,
        "CREATE INDEX ii_deployment_day ON ii_deployment (site, day)",
    ),
    "ii_item": (
        """
        CREATE TABLE ii_item (
            site {varchar}(32) NOT NULL,
            item {varchar}(32) NOT NULL,
            title {varchar}(256) NOT NULL,
            PRIMARY KEY (site, item)
        )
        """,
    ),
    "ii_rollup": (
        """
        CREATE TABLE ii_rollup (
            rollup_key bigint NOT NULL PRIMARY KEY,
            site {varchar}(32) NOT NULL,
            day {varchar}(10) NOT NULL,
            item {varchar}(128) NOT NULL,
            technician {varchar}(256) NOT NULL,
            bucket integer NOT NULL,
            accepted integer NOT NULL,
            scheduled integer NOT NULL,
            rejected integer NOT NULL,
            finished integer NOT NULL,
            failed integer NOT NULL,
            withdrawn integer NOT NULL
        )
        """,
        "CREATE INDEX ii_rollup_day ON ii_rollup (site, day)",
    ),
    "ii_total": (
        """
        CREATE TABLE ii_total (
            site {varchar}(32) NOT NULL,
            family {varchar}(16) NOT NULL,
            name {varchar}(32) NOT NULL,
            total bigint NOT NULL,
            PRIMARY KEY (site, family, name)
        )
        """,
    ),
}
"""The statements that make each table.

``ii_monitor``     how far each site's events are applied (``position``), of which stream, and which
                   copy of the monitor does it; ``told`` is 0 and stands for nothing: databases that
                   an earlier version has made have the column too
``ii_heard``       the events that have been counted, by a hash of their ids
``ii_opening``     the last openings of each machine's portal that no deployment has begun with
``ii_deployment``  single deployments; times are milliseconds since 1970, UTC
``ii_item``        what each item was called when it was picked last
``ii_rollup``      deployments by day, item, technician and duration; the key is a hash of these, so
                   that no server's idea of equal texts matters
``ii_total``       all events by kind, all deployments by outcome
"""


async def create_tables(database: Database) -> None:
    """Makes every table of the history that is not there yet.

    Raises:
        DatabaseUnavailable: the database does not answer.
        pyodbc.Error: the user may not create tables.
    """
    for table, making in TABLES.items():
        try:
            await _create(database, table, making)
        except pyodbc.Error:
            # Another copy of the monitor, started in the same moment, may have made it.
            if not await _exists(database, table):
                raise


async def _create(database: Database, table: str, making: tuple[str, ...]) -> None:
    def create(tx: Transaction) -> None:
        if not tx.columns(table):
            for statement in making:
                tx.execute(statement.format_map(DDL[tx.dialect]))

    await database.transact(create)


async def _exists(database: Database, table: str) -> bool:
    return bool(await database.transact(lambda tx: tx.columns(table)))
