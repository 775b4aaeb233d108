"""`imageinvoker audit`: who did what, at which machine, and when."""

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from bus.events import Event
from cli.event_table import Asked, Page, Wanted, is_called, kinds_of, show, told_moment
from cli.fail import DONE, WrongUseError
from cli.target import Target, find


class Filter(Struct, frozen=True, kw_only=True):
    """What else is asked of events, beside what the bus filters by."""

    who: str | None
    until: datetime | None

    def lets_through(self, event: Event) -> bool:
        """Whether it is one of them."""
        if self.until is not None and event.at >= self.until:
            return False
        return self.who is None or any(
            is_called(name, self.who) for name in (event.technician, event.operator) if name
        )


def audit(
    *,
    who: str | None = None,
    machine: str | None = None,
    kind: Annotated[
        tuple[Wanted, ...],
        Parameter(negative="", show_default=False, consume_multiple=True),
    ] = (),
    since: str = "24h",
    until: str | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    follow: Annotated[bool, Parameter(negative="")] = False,
    target: Target | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show who did what, at which machine, and when; the newest last.

    Examples:

        imageinvoker audit

        imageinvoker audit --who alice --since 3d

        imageinvoker audit --kind logins changes --since 2026-11-01 --until 2026-11-08

        imageinvoker audit --machine LAB-01 --follow

    Parameters
    ----------
    who
        Only what this technician or operator did: a name, DOMAIN\\name, user@host.
    machine
        Only what happened at this machine: its key or UUID, or its computer's name.
    kind
        Only these kinds of events: names of kinds, or visits, logins, requests, jobs
        or changes; else logins, requests and changes.
    since
        From when on: 2h, 3d, 2026-11-01 or 2026-11-01T08:00 (local time).
    until
        Up to when, likewise.
    limit
        At most so many, the newest.
    follow
        Go on with what happens from now on, until Ctrl-C.
    json
        For programs: an event a line, as JSON.
    """
    now = datetime.now(UTC)
    asked = Asked(
        since=told_moment("--since", since, now),
        kinds=kinds_of(kind or ("logins", "requests", "changes")),
        machine=machine,
        follow=follow,
    )
    only = Filter(who=who, until=None if until is None else told_moment("--until", until, now))
    if only.until is not None and follow:
        raise WrongUseError("--follow goes on for ever; it has no --until.")
    if only.until is not None and only.until <= asked.since:
        raise WrongUseError("--until must be later than --since.")
    show(find(target), asked, Page(limit, as_json=json), only.lets_through)
    return DONE
