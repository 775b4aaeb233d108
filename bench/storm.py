"""A storm of 10,000 machines: whether each got its jobs exactly once, and how long they waited.

`imageinvoker storm` itself, against a site on PostgreSQL with one copy of each service and one
shared password (a hash). The machines are unknown ones that arrive within a minute; each deploys a
folder of ten jobs. The storm looks into the database afterwards, and its probe measures meanwhile
how long a change in the database takes until the menu shows it. All of it shares the cores of this
machine: the site, its bus and database, and the storm.

A storm of another number of machines arrives at the same rate; it is a trial and shows nothing of
what the figures are for, so its figures say so.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from argon2 import PasswordHasher

from bench.harness import Figure, MeasureError, Reach, Run, Say
from bench.processes import MEGABYTE
from bench.served import served
from bench.site import Site, protect
from bench.trees import insert
from bus.connection import connect
from bus.option_store import OptionStore
from bus.options import PASSWORD
from cli.storm.results import Result, Served, told
from engine.tree import Folder, Job

MACHINES: Final = 10_000
_WITHIN: Final = 60.0
_FOLDER: Final = 900
_JOBS: Final = 10
_SHARED: Final = "Sturmglas-2207"
_GIVE_UP: Final = 300.0
"""Seconds of the storm; whoever is still on the way then is an error."""
_ENDS_WITHIN: Final = 600.0
"""Seconds of all that the command does."""


def run(machines: int = MACHINES, report: Path | None = None) -> Run:
    """The storm of so many machines; its report goes to a file, or to a scratch folder."""
    within = _WITHIN * machines / MACHINES
    size = f"{machines:,} machines within {within:g} s"
    trial = "" if machines == MACHINES else size
    return Run(
        tuple(Figure(name, about.format(size=size), reach, trial) for name, about, reach in _MADE),
        partial(_measure, machines, within, report),
    )


def _measure(machines: int, within: float, report: Path | None, say: Say) -> Mapping[str, float]:
    file = report or Path(tempfile.mkdtemp(prefix="ii-storm-")) / "storm.html"
    say(f"the report goes to {file}")
    with served(prepare=_add_item) as (site, _):
        uvloop.run(_protect(site))
        result = _storm(site, machines, within, file)
    for line in told(result).splitlines():
        say(line)
    if result.reckoning.unread:
        raise MeasureError("nobody knows whether all machines got their jobs")
    return values(result)


def values(result: Result) -> dict[str, float]:
    """The figures of a storm; some of its steps, its services and its probe may tell nothing."""
    # The journey is no step, but all of them.
    steps = [times for step, times in result.steps.items() if step != "journey"]
    ratios = [each.p99_to_rest for each in steps]
    reckoned = result.reckoning
    found: dict[str, float] = {
        "storm_errors": result.errors + result.not_arrived,
        "storm_lost": result.lost,
        "storm_doubled": result.doubled,
        "storm_wrong": reckoned.unasked + reckoned.disordered + reckoned.contradicted,
    }
    if steps:
        found["storm_p99_seconds"] = max(each.p99 for each in steps)
        if known := [each for each in ratios if each is not None]:
            found["storm_p99"] = max(known)
    if result.services:
        found["storm_memory_mb"] = max(each.resident_max for each in result.services) / MEGABYTE
        found["storm_memory_growth"] = max(_growth(each) for each in result.services)
    if result.probe and result.probe.count and not result.probe.unseen:
        found["storm_menu_change"] = result.probe.max
    return found


def _growth(service: Served) -> float:
    """Its memory at the end, against what it was when half of the time was over."""
    half = (service.usage[0].at + service.usage[-1].at) / 2
    then = next(each for each in service.usage if each.at >= half)
    return service.resident_after / then.resident


def _add_item(dsn: str) -> None:
    """The folder that everybody deploys."""
    jobs = [Job(_FOLDER * 100 + n, _FOLDER, f"{n}. Step", "") for n in range(1, _JOBS + 1)]
    insert(dsn, jobs, [Folder(_FOLDER, 1, "Ten steps (MI)")])


async def _protect(site: Site) -> None:
    connection = await connect(site.url, "bench")
    try:
        store = await OptionStore.open(connection, site.name)
        await store.write(PASSWORD, PasswordHasher().hash(_SHARED).encode())
        await protect(connection, site, "hash")
    finally:
        await connection.close()


def _storm(site: Site, machines: int, within: float, report: Path) -> Result:
    """What `imageinvoker storm` tells.

    Raises:
        MeasureError: there was no storm.
    """
    command = [
        sys.executable, "-m", "cli", "storm",
        "--machines", str(machines), "--within", f"{within:g}",
        "--item", f"folder:{_FOLDER}", "--seed", "1", "--give-up", f"{_GIVE_UP:g}",
        # Nobody is held back, so the storm is no gentler than it says.
        "--at-once", str(machines),
        "--metrics", *site.metrics.values(), "--probe", "--yes", "--json", "--report", str(report),
    ]  # fmt: skip
    log = site.folder / "storm.log"
    with log.open("wb") as errors:
        try:
            ended = subprocess.run(
                command,
                env=site.environment,
                input=f"{_SHARED}\n".encode(),
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=_ENDS_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"the storm did not end within {_ENDS_WITHIN:g} s") from error
    try:
        return msgspec.json.decode(ended.stdout, type=Result)
    except ValueError as error:
        raise MeasureError(f"there was no storm:\n{log.read_text(encoding='utf-8')}") from error


_NONE: Final = Reach("<=", 0)
_MADE: Final[tuple[tuple[str, str, Reach], ...]] = (
    ("storm_errors", "storm of {size}: machines without scheduled jobs", _NONE),
    ("storm_lost", "the same: accepted requests without an end, jobs that are missing", _NONE),
    ("storm_doubled", "the same: jobs and computers that are there twice", _NONE),
    ("storm_wrong", "the same: unasked and disordered jobs, answers that are not so", _NONE),
    ("storm_p99", "the same: worst p99 of any step / its median at rest", Reach("<=", 20)),
    ("storm_p99_seconds", "the same: worst p99 of any step, in seconds", Reach("<", 2)),
    ("storm_memory_mb", "the same: most resident memory of any service, in MB", Reach("<=", 150)),
    (
        "storm_memory_growth",
        "the same: resident memory of a service in the end / half way through, the worst",
        Reach("<=", 1.1),
    ),
    (
        "storm_menu_change",
        "the same: longest time in seconds from a change in the database to a menu that shows it",
        Reach("<=", 1),
    ),
)
