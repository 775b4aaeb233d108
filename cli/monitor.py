"""`imageinvoker monitor`: one copy of the monitor, until SIGINT or SIGTERM."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.embedded import running_site
from cli.fail import WrongUseError
from cli.services import DatabaseFile, Watch, serve
from cli.target import Target, database, find

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


def history(file: Path | None, server: str | None = None) -> str:
    """The ODBC connection string of the history: in a file, else in IMAGEINVOKER_HISTORY.

    Else the embedded site's, unless ``server`` is another bus than its own.

    Raises:
        WrongUseError: there is none.
    """
    if file:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise WrongUseError(f"{file} cannot be read: {error.strerror}") from error
    else:
        text = os.environ.get("IMAGEINVOKER_HISTORY", "").strip()
        running = running_site()
        if not text and running and server in {None, running.nats_url}:
            text = running.history
    if not text:
        raise WrongUseError(
            "Which history? Set IMAGEINVOKER_HISTORY to an ODBC connection string, or give "
            "--history-file with a file that holds it. (It may hold a password, so it is never "
            "an argument.)"
        )
    return text
