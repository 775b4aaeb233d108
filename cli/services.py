"""`imageinvoker menu|auth|scheduler`: one copy of a service, until SIGINT or SIGTERM."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.fail import WrongUseError
from cli.target import Address, Target, database, find
from services.metrics import AddressError
from services.running import Program, run

DatabaseFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the ODBC connection string of the deployment server's database. "
        "Else IMAGEINVOKER_DATABASE, else the embedded site's."
    ),
]


Metrics = Annotated[
    str | None,
    Parameter(help="HOST:PORT where Prometheus reads what the service counts; else nowhere."),
]


def menu(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    metrics: Metrics = None,
) -> int:
    """Run a copy of the menu service: it greets machines and shows what can be deployed on them.

    Example: IMAGEINVOKER_DATABASE='Driver=...' imageinvoker menu --server nats://bus:4222
    """
    from services.menu.program import program  # noqa: PLC0415 (each service needs other packages)

    address = find(target)
    dsn = database(database_file, address.server)
    return _run("menu", address, program(dsn), metrics)


def auth(*, target: Target | None = None, metrics: Metrics = None) -> int:
    """Run a copy of the auth service: it lets technicians in.

    Example: imageinvoker auth --server nats://bus:4222 --site london
    """
    from services.auth.program import program  # noqa: PLC0415

    return _run("auth", find(target), program, metrics)


def scheduler(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    metrics: Metrics = None,
) -> int:
    """Run a copy of the scheduler: it turns accepted requests into scheduled jobs, exactly once.

    Example: imageinvoker scheduler --database-file /etc/imageinvoker/database
    """
    from services.scheduler.program import program  # noqa: PLC0415

    address = find(target)
    dsn = database(database_file, address.server)
    return _run("scheduler", address, program(dsn), metrics)


def _run(name: str, address: Address, program: Program, metrics: str | None) -> int:
    try:
        run(name, address.server, address.site, program, metrics)
    except AddressError as error:
        raise WrongUseError(str(error)) from error
    return 0
