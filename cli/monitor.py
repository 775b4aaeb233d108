"""`imageinvoker monitor`: one copy of the monitor, until SIGINT or SIGTERM."""

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from bus import subjects
from bus.buckets import prepare_hub
from cli.engines import EngineName, deployment_server
from cli.fail import WrongUseError
from cli.services import DatabaseFile, Kept, Watch, serve
from cli.target import Target, find, history
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
    engine: EngineName = None,
    mail_file: MailFile = None,
    estate: Annotated[bool, Parameter(negative="")] = False,
    watch: Watch | None = None,
    kept: Kept | None = None,
) -> int:
    """Run a copy of the monitor: it turns events into history, metrics, a live view and mail.

    Several copies may run; one of them keeps the history, and another goes on when it dies. It
    gives way to the services that people at a PC wait for.

    Examples:

        IMAGEINVOKER_HISTORY='Driver=...' imageinvoker monitor --server nats://bus:4222

        imageinvoker monitor --estate --server tls://hub:4222 --history-file history --replicas 3

    Parameters
    ----------
    estate
        At the hub of an estate: collect what happens at all its sites, and show that. No
        deployment server is asked, and no mail is sent; the monitors of the sites do that.
    """
    address = find(target, "monitor")
    keeping = kept or Kept()
    prepare = keeping.prepare
    if estate:
        from services.monitor import estate as of_estate  # noqa: PLC0415

        address = replace(address, site=subjects.ESTATE)
        prepare = partial(prepare_hub, replicas=keeping.replicas)
        serving = of_estate.program(history(history_file, address.server), keeping.replicas)
    else:
        from services.monitor.program import program  # noqa: PLC0415 (it needs its own packages)

        serving = program(
            deployment_server(database_file, address.server, engine),
            history(history_file, address.server),
            mail_credentials(mail_file),
        )
    # Where it is not allowed, whoever forbade it may have seen to it (the unit of systemd does).
    with contextlib.suppress(OSError):
        os.nice(_GIVES_WAY)
    return serve("monitor", address, serving, watch, prepare)


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
