"""`imageinvoker menu|auth|scheduler`: one copy of a service, until SIGINT or SIGTERM."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.fail import DONE, WrongUseError
from cli.target import Address, Target, database, find
from services.log_files import LogFolderError
from services.metrics import AddressError
from services.running import Program, run

DatabaseFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the ODBC connection string of the deployment server's database. "
        "Else IMAGEINVOKER_DATABASE, else the embedded site's."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Watch:
    """How a service is watched.

    Parameters
    ----------
    metrics
        HOST:PORT where Prometheus reads what the service counts, and where /healthz and /readyz
        tell how it is; else nowhere.
    log_folder
        A folder for the log: a file a day, JSON lines. Else it goes to standard error.
    """

    metrics: str | None = None
    log_folder: Annotated[Path | None, Parameter(env_var="IMAGEINVOKER_LOGS")] = None


def menu(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    watch: Watch | None = None,
) -> int:
    """Run a copy of the menu service: it greets machines and shows what can be deployed on them.

    Example: IMAGEINVOKER_DATABASE='Driver=...' imageinvoker menu --server nats://bus:4222
    """
    from services.menu.program import program  # noqa: PLC0415 (each service needs other packages)

    address = find(target)
    dsn = database(database_file, address.server)
    return serve("menu", address, program(dsn), watch)


def auth(*, target: Target | None = None, watch: Watch | None = None) -> int:
    """Run a copy of the auth service: it lets technicians in.

    Example: imageinvoker auth --server nats://bus:4222 --site london
    """
    from services.auth.program import program  # noqa: PLC0415

    return serve("auth", find(target), program, watch)


def scheduler(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    watch: Watch | None = None,
) -> int:
    """Run a copy of the scheduler: it turns accepted requests into scheduled jobs, exactly once.

    Example: imageinvoker scheduler --database-file /etc/imageinvoker/database
    """
    from services.scheduler.program import program  # noqa: PLC0415

    address = find(target)
    dsn = database(database_file, address.server)
    return serve("scheduler", address, program(dsn), watch)


def serve(name: str, address: Address, program: Program, watch: Watch | None) -> int:
    """Runs a service until it is told to stop; the exit status.

    Raises:
        WrongUseError: it cannot be watched as it should be.
    """
    watched = watch or Watch()
    try:
        run(name, address.server, address.site, program, watched.metrics, watched.log_folder)
    except (AddressError, LogFolderError) as error:
        raise WrongUseError(str(error)) from error
    return DONE
