"""`imageinvoker monitor`: one copy of the monitor, until SIGINT or SIGTERM."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from cli.fail import WrongUseError
from cli.services import DatabaseFile, Watch, serve
from cli.target import Target, database, find, history
from services.monitor.credentials import Credentials, credentials

_GIVES_WAY: Final = 10
"""By how much it is nicer than the other services, as nice(2) counts."""

HistoryFile = Annotated[
    Path | None,
    Parameter(
        help="A file with the ODBC connection string of the history database. "
        "Else IMAGEINVOKER_HISTORY, else the embedded site's."
    ),
]

MailFile = Annotated[
    Path | None,
    Parameter(
        help="A file with two lines, the user and the password to sign in to the mail server with; "
        "without one, or with an empty one, nobody signs in there."
    ),
]


def monitor(
    *,
    target: Target | None = None,
    history_file: HistoryFile = None,
    database_file: DatabaseFile = None,
    mail_file: MailFile = None,
    watch: Watch | None = None,
) -> int:
    """Run a copy of the monitor: it turns events into history, metrics, a live view and mail.

    Several copies may run; one of them keeps the history, and another goes on when it dies. It
    gives way to the services that people at a PC wait for.

    Example: IMAGEINVOKER_HISTORY='Driver=...' imageinvoker monitor --server nats://bus:4222
    """
    from services.monitor.program import program  # noqa: PLC0415 (it needs packages of its own)

    address = find(target)
    serving = program(
        database(database_file, address.server),
        history(history_file, address.server),
        mail_credentials(mail_file),
    )
    # Where it is not allowed, whoever forbade it may have seen to it (the unit of systemd does).
    with contextlib.suppress(OSError):
        os.nice(_GIVES_WAY)
    return serve("monitor", address, serving, watch)


def mail_credentials(file: Path | None) -> Credentials | None:
    """Who signs in to the mail server; None for nobody.

    Raises:
        WrongUseError: the file cannot be read, or holds something else.
    """
    try:
        return credentials(file.read_text(encoding="utf-8")) if file else None
    except OSError as error:
        raise WrongUseError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        # Not chained: what is no UTF-8 would stand in the error.
        why = "it is no text" if isinstance(error, UnicodeError) else str(error)
        raise WrongUseError(f"{file} holds no credentials: {why}") from None
