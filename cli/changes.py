"""Every change an operator makes at the command line is an event: who changed what, and when."""

import getpass
import socket

from bus.connection import Connection
from bus.events import Detail, EventLog, Kind, NotKeptError
from cli.fail import CommandError


async def record(connection: Connection, site: str, kind: Kind, **details: Detail) -> None:
    """Keeps the event of a change that has been made.

    Raises:
        CommandError: the bus did not keep it.
    """
    try:
        await EventLog(connection, site).record(kind, operator=operator(), details=details)
    except NotKeptError as error:
        raise CommandError(
            "The change is made, but the bus did not keep the event that tells of it."
        ) from error


def operator() -> str:
    """Who works at this command line, as ``user@host``; as good as this machine's accounts are."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
