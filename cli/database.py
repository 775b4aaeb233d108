"""`imageinvoker database`: what ImageInvoker needs in an eXpress database.

Other engines than `express` see to what they need by themselves; for those this refuses.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyodbc
from cyclopts import App

from bus.problems import Problem
from cli.engines import express_database
from cli.fail import CommandError
from express.connection import DatabaseUnavailable
from express.database import Database
from express.schema import create_embedded, install_own_tables

app = App(name="database", help="Prepare the deployment server's database.")


@app.command
def install(*, database_file: Path | None = None) -> int:
    """Add ImageInvoker's own two tables (ii_request, ii_lock) to a deployment server's database.

    Nothing else is touched; what is there already stays as it is.

    Example: imageinvoker database install --database-file /etc/imageinvoker/database

    Parameters
    ----------
    database_file
        A file with the ODBC connection string. Else IMAGEINVOKER_DATABASE.
    """
    asyncio.run(_install(express_database(database_file)))
    sys.stdout.write("ImageInvoker's own tables are there\n")
    return 0


@app.command
def create(*, database_file: Path | None = None, sample: bool = False) -> int:
    """Create a whole job database of the embedded kind, on SQLite, PostgreSQL or SQL Server.

    For sites without a deployment server of their own, and for trials.

    Example: IMAGEINVOKER_DATABASE='Driver=PostgreSQL Unicode;...' imageinvoker database create

    Parameters
    ----------
    database_file
        A file with the ODBC connection string. Else IMAGEINVOKER_DATABASE.
    sample
        Fill it with a sample job tree, if it has none.
    """
    asyncio.run(_create(express_database(database_file), sample))
    sys.stdout.write("the job database is there\n")
    return 0


async def _install(dsn: str) -> None:
    await _do(Database(dsn, size=1), install_own_tables)


async def _create(dsn: str, sample: bool) -> None:
    async def make(connected: Database) -> None:
        await create_embedded(connected, sample=sample)

    await _do(Database(dsn, size=1, create=True), make)


async def _do(connected: Database, work: Callable[[Database], Awaitable[None]]) -> None:
    try:
        await work(connected)
    except DatabaseUnavailable as error:
        raise CommandError(f"The database cannot be reached: {error.reason}") from error
    except (Problem, pyodbc.Error) as error:
        raise CommandError(f"The database refuses: {error}") from error
    finally:
        await connected.close()
