"""`imageinvoker events`: what happens, as it happens."""

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from cli.event_table import Asked, Page, Wanted, kinds_of, show, told_moment
from cli.fail import DONE
from cli.target import Target, find

app = App(name="events", help="Follow what happens at a site.")


@app.command
def tail(
    *,
    kind: Annotated[
        tuple[Wanted, ...],
        Parameter(negative="", show_default=False, consume_multiple=True),
    ] = (),
    machine: str | None = None,
    since: str = "1h",
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=Number(gte=1))] = 10,
    target: Target | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the last events of every kind, then each as it comes, until Ctrl-C.

    `imageinvoker audit` looks back, and asks by who it was.

    Examples:

        imageinvoker events tail

        imageinvoker events tail --kind requests jobs --machine LAB-01

        imageinvoker events tail --since 1d -n 1000 --json

    Parameters
    ----------
    kind
        Only these kinds of events: names of kinds, or visits, logins, requests, jobs
        or changes.
    machine
        Only what happens at this machine: its key or UUID, or its computer's name.
    since
        From when on the last ones are looked for: 2h, 3d, 2026-11-01 or 2026-11-01T08:00
        (local time).
    limit
        At first at most so many, the newest.
    json
        For programs: an event a line, as JSON.
    """
    asked = Asked(
        since=told_moment("--since", since, datetime.now(UTC)),
        kinds=kinds_of(kind),
        machine=machine,
        follow=True,
    )
    show(find(target), asked, Page(limit, as_json=json, counts_earlier=False))
    return DONE
