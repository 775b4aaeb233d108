"""What will expire soon of what lets commands and services on the bus."""

import time
from collections.abc import Iterator
from typing import Final

from bus.connection import Connection
from bus.door import UnusableError

_DAY: Final = 86_400
WARNED: Final = 14
"""Days before something expires on which it is told."""


def soon(what: str, ends: float | None, now: float) -> str | None:
    """Says when ``what`` expires, if that is soon; both times in seconds since 1970.

    None and 0 are for what does not expire.
    """
    if not ends or ends - now > WARNED * _DAY:
        return None
    left = ends - now
    if left <= 0:
        return f"{what} has expired"
    return f"{what} expires in " + (
        f"{left / _DAY:.0f} days" if left >= 2 * _DAY else f"{left / 3600:.0f} hours"
    )


def expiring(connection: Connection) -> Iterator[tuple[str, str]]:
    """What expires soon, each with its cure."""
    # Only here: without credentials nobody needs what reads them.
    from bus.credentials import read  # noqa: PLC0415

    now = time.time()
    if text := soon("the server's certificate", connection.certificate_ends, now):
        yield text, "Renew it (imageinvoker pki renew), and have the server read it: SIGHUP."
    file = connection.door.credentials
    if file is None:
        return
    try:
        ends = read(file).expires_at
    except UnusableError as error:
        yield error.cause, error.cure
    else:
        if text := soon(f"what lets us in, {file},", ends, now):
            yield text, "Issue new credentials (imageinvoker pki renew) and put them in its place."
