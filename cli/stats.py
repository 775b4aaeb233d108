"""`imageinvoker stats`: how many deployments there were, how they ended, how long they took."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

import pyodbc
from cyclopts import Parameter

from bus.events import one_line
from bus.messages import encode
from bus.subjects import DEFAULT_SITE, valid_site
from cli.embedded import running_site
from cli.fail import DONE, CommandError, NoServerError, WrongUseError
from cli.moments import moment
from cli.monitor import HistoryFile
from cli.target import history
from express.connection import DatabaseUnavailable
from express.database import Database
from services.monitor.statistics import By, Statistic, statistics

_HEADERS: Final = (
    "ACCEPTED", "SCHEDULED", "REJECTED", "FINISHED", "FAILED", "WITHDRAWN", "SUCCESS", "MEDIAN",
    "P95",
)  # fmt: skip
_DAY: Final = timedelta(days=1)


def stats(
    *,
    by: By = "day",
    since: str = "30d",
    until: str | None = None,
    site: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SITE")] = None,
    history_file: HistoryFile = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show how many deployments there were, how they ended, and how long people waited.

    A deployment counts for the day (UTC) on which it was accepted.

    SUCCESS is the share of those scheduled or rejected that have not failed.

    WITHDRAWN are those whose jobs somebody removed; SUCCESS leaves them out.

    MEDIAN and P95 go from the opened portal to the scheduled jobs, to 5 %.

    Examples:

        imageinvoker stats

        imageinvoker stats --by item --since 1w

        imageinvoker stats --by site --since 2026-11-01 --until 2026-12-01 --json

    Parameters
    ----------
    by
        A line for each day, item, technician or site.
    since
        From the day of that moment on: 30d, 1w, 2026-11-01.
    until
        Up to, and without, that day; else today is the last.
    site
        The site. Else IMAGEINVOKER_SITE, else the embedded one, else "main";
        by site, all sites of the history.
    json
        For programs: a line for each, as JSON; times are seconds.
    """
    now = datetime.now(UTC)
    first = _day("--since", since, now)
    last = _day("--until", until, now) if until is not None else now.date() + _DAY
    if last <= first:
        raise WrongUseError("--until must be later than --since.")
    dsn = history(history_file)
    wanted = site if by == "site" else site or _usual_site()
    if wanted is not None and not valid_site(wanted):
        raise WrongUseError(f"{wanted!r} is no site: 1 to 32 of a-z, 0-9 and -")
    found = asyncio.run(_ask(dsn, by, first, last, wanted))
    try:
        _show(found, by, as_json=json)
    except BrokenPipeError:
        # Whoever read has seen enough; what is left must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not found:
        sys.stderr.write(f"Nothing was deployed from {first} on.\n")
    return DONE


async def _ask(dsn: str, by: By, since: date, until: date, site: str | None) -> list[Statistic]:
    database = Database(dsn, size=1, statement_timeout=60)
    try:
        return await database.transact(lambda tx: statistics(tx, by, since, until, site))
    except DatabaseUnavailable as error:
        raise NoServerError(f"The history does not answer: {error.reason}") from error
    except pyodbc.Error as error:
        raise CommandError(
            "The history cannot be read. Has a monitor been started on this database?"
        ) from error
    finally:
        await database.close()


def _usual_site() -> str:
    running = running_site()
    return running.site if running else DEFAULT_SITE


def _day(option: str, text: str, now: datetime) -> date:
    try:
        return moment(text, now).date()
    except ValueError as error:
        raise WrongUseError(f"{option}: {error}.") from error


def _show(found: Sequence[Statistic], by: By, *, as_json: bool) -> None:
    if as_json:
        for each in found:
            sys.stdout.write(encode(each).decode() + "\n")
        return
    titles = Counter(each.title for each in found)
    told = [_cells(each, twin=titles[each.title] > 1) for each in found]
    rows = [(by.upper(), *_HEADERS), *told] if found else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:], strict=True)]
        sys.stdout.write("  ".join([f"{name:<{widths[0]}}", *cells]) + "\n")


def _cells(each: Statistic, *, twin: bool) -> tuple[str, ...]:
    """A statistic as a row; items of one title, twins, are told apart by their ids."""
    name = each.title or each.name
    if each.title and twin:
        name = f"{each.title} ({each.name})"
    counts = (
        each.accepted, each.scheduled, each.rejected, each.finished, each.failed, each.withdrawn,
    )  # fmt: skip
    return (
        # Somebody may have written events by hand.
        one_line(name) or "-",
        *map(str, counts),
        "-" if each.success_rate is None else f"{each.success_rate:.1%}",
        _duration(each.median),
        _duration(each.p95),
    )


def _duration(seconds: float | None) -> str:
    """A duration as people read it: ``42 s``, ``3.5 min``, ``2.0 h``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
