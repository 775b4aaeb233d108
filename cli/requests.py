"""`imageinvoker requests`: what technicians asked for, and what became of it."""

import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bus.connection import Connection
from bus.messages import encode
from bus.problems import CATALOGUE
from bus.request_store import Entry
from bus.technicians import folded
from cli.event_table import is_called, machines_of, told_moment, written_for_readers
from cli.fail import DONE, REFUSED, CommandError, WrongUseError
from cli.replaying import Replay, replay
from cli.request_lookup import all_orders, known_requests, look_up, named_orders
from cli.request_text import page, said, table
from cli.running import talk
from cli.target import Target, find

app = App(name="requests", help="See what was asked for, and replay what was rejected.")

AsJson = Annotated[bool, Parameter(negative="")]
Listed = Literal["waiting", "scheduled", "rejected"]


@app.command(name="list")
def list_(
    *,
    state: Annotated[
        tuple[Listed, ...],
        Parameter(negative="", show_default=False, consume_multiple=True),
    ] = (),
    machine: str | None = None,
    technician: str | None = None,
    since: str = "24h",
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    target: Target | None = None,
    json: AsJson = False,
) -> int:
    """List requests: what waits, what was scheduled and what was rejected; the newest last.

    Only the bus is asked, never the deployment server's database. What waits stands in the stream
    IMAGING_REQUESTS, what was rejected in IMAGING_REJECTED, and events tell what was scheduled.

    Examples:

        imageinvoker requests list

        imageinvoker requests list --state waiting rejected --since 7d

        imageinvoker requests list --machine LAB-01 --json

    Parameters
    ----------
    state
        Only requests in these states.
    machine
        Only those of this machine: its key or UUID, or its computer's name, which may also be the
        name that was asked for.
    technician
        Only those of this technician: a name, or DOMAIN\\name.
    since
        What was scheduled or rejected from then on: 2h, 3d, 2026-11-01 or 2026-11-01T08:00 (local
        time). What waits is shown however long it has waited.
    limit
        At most so many, the newest.
    json
        For programs: a request a line, as JSON.
    """
    start = told_moment("--since", since, datetime.now(UTC))
    address = find(target)

    async def look(connection: Connection) -> tuple[list[Entry], int, set[str]]:
        machines = await machines_of(connection, address.site, machine) if machine else set()
        known = await known_requests(connection, address, start)
        return list(known.entries), known.unreadable, machines

    found, unreadable, machines = talk(address, look)
    shown = [
        entry
        for entry in found
        if (entry.state == "waiting" or entry.at >= start)
        and (not state or entry.state in state)
        and (not machine or _is_at(entry, machine, machines))
        and (not technician or is_called(entry.technician or "", technician))
    ]
    newest = shown[-limit:]
    with written_for_readers():
        if json:
            sys.stdout.writelines(encode(entry).decode() + "\n" for entry in newest)
        elif newest:
            sys.stdout.write(table(newest))
    if not shown:
        sys.stderr.write("No such request is known.\n")
    if earlier := len(shown) - len(newest):
        sys.stderr.write(f"{earlier} earlier ones are not shown; --limit shows more.\n")
    if unreadable:
        sys.stderr.write(f"{unreadable} messages of the streams are no requests.\n")
    return DONE


@app.command
def show(
    request_id: str,
    *,
    target: Target | None = None,
    database_file: Path | None = None,
    json: AsJson = False,
) -> int:
    """Show all that is known of a request: what was asked, what became of it, and its events.

    The names of its jobs and the whole text of its problem stand in the deployment server's
    database; without one, all the rest is shown.

    Example: imageinvoker requests show 3b1f1c0e-5d53-4a53-9a9b-2b9e8e9c6a10

    Parameters
    ----------
    database_file
        A file with the ODBC connection string of the deployment server's database. Else
        IMAGEINVOKER_DATABASE, else the embedded site's.
    json
        For programs: an object.
    """
    wanted = request_id.strip().lower()
    address = find(target)
    known = talk(address, lambda connection: look_up(connection, address, wanted, database_file))
    if known is None:
        raise CommandError(f"Nothing is known of a request {wanted!r} at site {address.site!r}.")
    with written_for_readers():
        sys.stdout.write(encode(known).decode() + "\n" if json else page(known))
    return DONE


@app.command(name="replay")
def replay_(
    *request_id: str,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    since: str | None = None,
    problem: str | None = None,
    again: Annotated[bool, Parameter(negative="")] = False,
    target: Target | None = None,
    json: AsJson = False,
) -> int:
    """Put rejected requests back, as new ones, and show what becomes of them.

    Item, machine, name and technician stay as they were; a start that has passed is now. Whether
    the technician may deploy it is decided anew. With --all, requests whose machines have newer
    ones are left out, and so is what has been replayed already.

    The exit status is 3 if one of them is rejected again.

    Examples:

        imageinvoker requests replay 3b1f1c0e-5d53-4a53-9a9b-2b9e8e9c6a10

        imageinvoker requests replay --all --problem unknown_item --since 3d

    Parameters
    ----------
    request_id
        Rejected requests, as `imageinvoker requests list --state rejected` shows them.
    everything
        All that were rejected lately.
    since
        With --all: those that were rejected from then on (2h, 3d, 2026-11-01), else in the last
        24 hours.
    problem
        With --all: only those that were rejected for this problem, such as unknown_item.
    again
        Also those named ones that have been replayed already.
    json
        For programs: a replay a line, as JSON.
    """
    ids = tuple(dict.fromkeys(each.strip().lower() for each in request_id))
    if bool(ids) == everything:
        raise WrongUseError("Name rejected requests, or say --all.")
    if everything and again:
        raise WrongUseError("--again is for requests that are named.")
    if ids and (since is not None or problem is not None):
        raise WrongUseError("--since and --problem go with --all.")
    if problem is not None and problem not in CATALOGUE:
        raise WrongUseError(f"There is no problem {problem!r}: {', '.join(CATALOGUE)}.")
    start = told_moment("--since", since or "24h", datetime.now(UTC))
    address = find(target)

    async def work(connection: Connection) -> list[Replay]:
        if everything:
            orders = all_orders(await known_requests(connection, address, start), problem)
        else:
            orders = await named_orders(connection, address, ids, again=again)
        return await replay(connection, address.site, orders) if orders else []

    done = talk(address, work)
    with written_for_readers():
        for each in done:
            sys.stdout.write((encode(each).decode() if json else said(each)) + "\n")
    if not done:
        sys.stderr.write("There is nothing to replay.\n")
    return REFUSED if any(each.outcome.state == "rejected" for each in done) else DONE


def _is_at(entry: Entry, told: str, machines: Collection[str]) -> bool:
    names = [entry.computer.name if entry.computer else "", entry.computer_name or ""]
    return entry.machine in machines or folded(told) in map(folded, names)
