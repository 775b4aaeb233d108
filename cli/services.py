"""`imageinvoker menu|auth|scheduler`: one copy of a service, until SIGINT or SIGTERM."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from bus.buckets import prepare
from cli.engines import EngineName, deployment_server
from cli.fail import DONE, WrongUseError
from cli.target import Address, Target, find
from engine.finding import EngineError
from services.log_files import LogFolderError
from services.metrics import AddressError
from services.running import Prepare, Program, run

DatabaseFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the address of the deployment server: the ODBC connection string of its "
        "database, or ENGINE:ADDRESS. Else IMAGEINVOKER_DATABASE, else the embedded site's."
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


@Parameter(name="*")
@dataclass(frozen=True)
class Kept:
    """How the bus keeps what a site needs.

    Parameters
    ----------
    hub
        The JetStream domain of the estate's hub, if the site's bus is a leaf node of it.
    replicas
        How many servers of the bus keep each message: 3 where it is a cluster.
    """

    hub: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_HUB")] = None
    replicas: Annotated[
        int, Parameter(env_var="IMAGEINVOKER_REPLICAS", validator=validators.Number(gte=1, lte=5))
    ] = 1

    @property
    def prepare(self) -> Prepare:
        """What makes the streams and buckets of a site."""
        return partial(prepare, hub=self.hub, replicas=self.replicas)


def menu(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    engine: EngineName = None,
    watch: Watch | None = None,
    kept: Kept | None = None,
) -> int:
    """Run a copy of the menu service: it greets machines and shows what can be deployed on them.

    Example: IMAGEINVOKER_DATABASE='Driver=...' imageinvoker menu --server nats://bus:4222
    """
    from services.menu.program import program  # noqa: PLC0415 (each service needs other packages)

    address = find(target, "menu")
    found = deployment_server(database_file, address.server, engine)
    return serve("menu", address, program(found), watch, (kept or Kept()).prepare)


def auth(
    *,
    target: Target | None = None,
    callout_keys: Annotated[
        Path | None,
        Parameter(
            env_var="IMAGEINVOKER_CALLOUT_KEYS",
            help="The folder with the keys by which it decides who comes on the bus as a boot "
            "client: keys/ of the site's folder.",
        ),
    ] = None,
    watch: Watch | None = None,
    kept: Kept | None = None,
) -> int:
    """Run a copy of the auth service: it lets technicians in, and boot clients on the bus.

    Example: imageinvoker auth --server nats://bus:4222 --site london
    """
    from services.auth.callout_keys import CalloutKeysError, read_callout_keys  # noqa: PLC0415
    from services.auth.program import program, with_callout  # noqa: PLC0415

    address = find(target, "auth")
    if callout_keys is None:
        return serve("auth", address, program, watch, (kept or Kept()).prepare)
    try:
        keys = read_callout_keys(callout_keys)
    except CalloutKeysError as error:
        raise WrongUseError(str(error)) from error
    return serve(
        "auth", address, with_callout(keys, address.server), watch, (kept or Kept()).prepare
    )


def scheduler(
    *,
    target: Target | None = None,
    database_file: DatabaseFile = None,
    engine: EngineName = None,
    watch: Watch | None = None,
    kept: Kept | None = None,
) -> int:
    """Run a copy of the scheduler: it turns accepted requests into scheduled jobs, exactly once.

    Example: imageinvoker scheduler --database-file /etc/imageinvoker/database
    """
    from services.scheduler.program import program  # noqa: PLC0415

    address = find(target, "scheduler")
    found = deployment_server(database_file, address.server, engine)
    return serve("scheduler", address, program(found), watch, (kept or Kept()).prepare)


def serve(
    name: str, address: Address, program: Program, watch: Watch | None, prepare: Prepare
) -> int:
    """Runs a service until it is told to stop; the exit status.

    Raises:
        WrongUseError: it cannot be watched as it should be.
    """
    watched = watch or Watch()
    try:
        run(
            name,
            address.server,
            address.site,
            program,
            watched.metrics,
            watched.log_folder,
            address.door,
            prepare,
        )
    except (AddressError, LogFolderError, EngineError) as error:
        raise WrongUseError(str(error)) from error
    return DONE
