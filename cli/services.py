"""`imageinvoker menu|auth|scheduler`: one copy of a service, until SIGINT or SIGTERM."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.target import Target, database, find
from services.running import run

DatabaseFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the ODBC connection string of the deployment server's database. "
        "Else IMAGEINVOKER_DATABASE, else the embedded site's."
    ),
]


def menu(*, target: Target | None = None, database_file: DatabaseFile = None) -> int:
    """Run a copy of the menu service: it greets machines and shows what can be deployed on them.

    Example: IMAGEINVOKER_DATABASE='Driver=...' imageinvoker menu --server nats://bus:4222
    """
    from services.menu.program import program  # noqa: PLC0415 (each service needs other packages)

    address = find(target)
    run("menu", address.server, address.site, program(database(database_file)))
    return 0


def auth(*, target: Target | None = None) -> int:
    """Run a copy of the auth service: it lets technicians in.

    Example: imageinvoker auth --server nats://bus:4222 --site london
    """
    from services.auth.program import program  # noqa: PLC0415

    address = find(target)
    run("auth", address.server, address.site, program)
    return 0


def scheduler(*, target: Target | None = None, database_file: DatabaseFile = None) -> int:
    """Run a copy of the scheduler: it turns accepted requests into scheduled jobs, exactly once.

    Example: imageinvoker scheduler --database-file /etc/imageinvoker/database
    """
    from services.scheduler.program import program  # noqa: PLC0415

    address = find(target)
    run("scheduler", address.server, address.site, program(database(database_file)))
    return 0
