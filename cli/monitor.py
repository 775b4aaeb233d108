"""`imageinvoker monitor`: one copy of the monitor, until SIGINT or SIGTERM."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.services import DatabaseFile, Watch, serve
from cli.target import Target, database, find, history

HistoryFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the ODBC connection string of the history database. "
        "Else IMAGEINVOKER_HISTORY, else the embedded site's."
    ),
]


def monitor(
    *,
    target: Target | None = None,
    history_file: HistoryFile = None,
    database_file: DatabaseFile = None,
    watch: Watch | None = None,
) -> int:
    """Run a copy of the monitor: it turns events into history, metrics, a live view and mail.

    Several copies may run; one works, and another goes on when it dies.

    Example: IMAGEINVOKER_HISTORY='Driver=...' imageinvoker monitor --server nats://bus:4222
    """
    from services.monitor.program import program  # noqa: PLC0415 (it needs packages of its own)

    address = find(target)
    serving = program(
        database(database_file, address.server), history(history_file, address.server)
    )
    return serve("monitor", address, serving, watch)
