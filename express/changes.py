"""Tells cheaply whether the job tree may have changed, without reading it."""

import secrets
from typing import Final

from express.database import Transaction

# A row's xmin is the transaction that wrote it, so that no change leaves it as it was. The greatest
# of them would not tell of a transaction that began before another one and commits after it: the
# sums do. By two of them, one weighted with the ids, changes cannot cancel each other out.
_POSTGRES: Final = (
    "SELECT 'event', COUNT(*), SUM(writer), SUM(writer * id) FROM"
    " (SELECT CAST(CAST(xmin AS text) AS bigint) AS writer, event_id AS id FROM event) AS jobs"
    " UNION ALL SELECT 'event_folder', COUNT(*), SUM(writer), SUM(writer * id) FROM"
    " (SELECT CAST(CAST(xmin AS text) AS bigint) AS writer, folder_id AS id FROM event_folder)"
    " AS folders"
)

# Not BINARY_CHECKSUM: it is linear, so that two jobs which exchange their names or folders leave
# the aggregate as it was. The length of the name says where the description begins.
_MSSQL: Final = (
    "SELECT 'event', COUNT(*), SUM(CAST(CAST(SUBSTRING(HASHBYTES('MD5',"
    " CAST(event_id AS nvarchar(20)) + '/' + COALESCE(CAST(folder_id AS nvarchar(20)), '')"
    " + '/' + COALESCE(CAST(DATALENGTH(name) AS nvarchar(20)), '')"
    " + '/' + COALESCE(CAST(name AS nvarchar(max)), '')"
    " + COALESCE(CAST(description AS nvarchar(max)), '')"
    "), 1, 8) AS bigint) AS decimal(38, 0))) FROM event"
    " UNION ALL SELECT 'event_folder', COUNT(*), SUM(CAST(CAST(SUBSTRING(HASHBYTES('MD5',"
    " CAST(folder_id AS nvarchar(20)) + '/' + COALESCE(CAST(parent_id AS nvarchar(20)), '')"
    " + '/' + COALESCE(CAST(name AS nvarchar(max)), '')"
    "), 1, 8) AS bigint) AS decimal(38, 0))) FROM event_folder"
)


def fingerprint(tx: Transaction) -> str:
    """A text that is another one whenever the jobs or job folders of a database are.

    PostgreSQL and SQL Server tell it to everybody alike. SQLite tells whether anything at all was
    written, and each connection for itself: there ask by one that is used for nothing else.
    """
    match tx.dialect:
        case "sqlite":
            return _of_connection(tx)
        case "postgres":
            return _told(tx, _POSTGRES)
        case "mssql":
            return _told(tx, _MSSQL)


def _told(tx: Transaction, query: str) -> str:
    return " ".join(":".join(map(str, row)) for row in sorted(map(tuple, tx.fetch(query))))


def _of_connection(tx: Transaction) -> str:
    # A connection's own temporary database is a place for its name.
    ((name,),) = tx.fetch("PRAGMA temp.user_version")
    if not name:
        name = 1 + secrets.randbelow(2**31 - 1)
        tx.execute(f"PRAGMA temp.user_version = {name}")
    ((commits,),) = tx.fetch("PRAGMA main.data_version")
    return f"{name}:{commits}"
