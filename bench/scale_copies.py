"""What copies of the services bring on one machine: the same storms against 1, 2, 4 and 8 of each.

Menu, auth and scheduler have so many copies each; bus, database, monitor and the storm itself stay
as they are, on the same cores. One storm comes slowly enough for one copy, and shows what a
technician waits; one comes at once, and shows how many journeys a second can be had.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pyodbc
from argon2 import PasswordHasher
from msgspec import Struct

from bench.harness import MeasureError, Say
from bench.processes import processor_time
from bench.scale_bus import pid_of
from bench.scale_load import PASSWORD
from bench.served import served
from bench.site import Site
from bus.connection import connect
from bus.option_store import OptionStore
from bus.options import PASSWORD as HASHED
from bus.options import parse
from cli.storm.results import Result
from cli.storm.tally import Step
from cli.up import SERVICES

COPIES: Final = (1, 2, 4, 8)
GENTLE: Final = (900, 15.0)
"""Machines, and the seconds in which they come: what one copy bears."""
AT_ONCE: Final = (1500, 2.0)
"""The same for a storm that wants more than there is."""

_ENDS_WITHIN: Final = 300.0
_result = msgspec.json.Decoder(Result)


class Stormed(Struct, frozen=True, kw_only=True):
    """One storm against so many copies."""

    copies: int
    result: Result
    connections: int
    """To the deployment server's database, at the end."""
    processor: Mapping[str, float]
    """Processor seconds of a journey, by part."""
    idle: float
    """The share of all processor time that nobody used, while the storm's command ran."""
    flushes: float
    """Flushes of the disk's cache for each journey."""


class Campus(Struct, frozen=True):
    """A site on PostgreSQL that answers."""

    environment: Mapping[str, str]
    dsn: str
    metrics: tuple[str, ...]
    bus: int
    """Its process."""
    database: int


def measured(copies: int, say: Say) -> tuple[Stormed, Stormed]:
    """A gentle storm, and one that comes at once.

    Raises:
        MeasureError: the site does not start, or a storm lost or doubled something.
    """
    with campus(copies) as site:
        gentle, at_once = (
            _storm(site, copies, seed, *size) for seed, size in ((1, GENTLE), (2, AT_ONCE))
        )
    for each in (gentle, at_once):
        result = each.result
        say(
            f"{copies} copies, {result.asked.machines} machines within {result.asked.within:g} s: "
            f"{result.throughput:.0f} journeys a second, p99 {result.steps['journey'].p99:.2f} s, "
            f"{1000 * sum(each.processor.values()):.1f} ms of processor a journey, "
            f"{100 * each.idle:.0f} % idle"
        )
        if not result.well:
            raise MeasureError(f"not every machine got its jobs once: {result.reckoning}")
    return gentle, at_once


def _storm(site: Campus, copies: int, seed: int, machines: int, within: float) -> Stormed:
    before, began = _spent(site), _system()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "cli", "storm", "--yes", "--json", "--seed", str(seed)),
            *("--machines", str(machines), "--within", str(within), "--prefix", f"C{seed}"),
            *("--metrics", *site.metrics),
        ],
        env=dict(site.environment),
        input=PASSWORD.encode(),
        capture_output=True,
        timeout=_ENDS_WITHIN,
        check=False,
    )
    if not ran.stdout:
        raise MeasureError(f"no storm:\n{ran.stderr.decode()[-2000:]}")
    result = _result.decode(ran.stdout)
    spent, ended = _spent(site), _system()
    journeys = max(1, result.scheduled)
    processor = {part: (spent[part] - before[part]) / journeys for part in spent}
    for each in result.services:
        processor[each.name] = processor.get(each.name, 0) + each.processor_seconds / journeys
    return Stormed(
        copies=copies,
        result=result,
        connections=_connections(site.dsn),
        processor=processor | {"storm": result.generator.processor_per_journey},
        idle=(ended.idle - began.idle) / (ended.all - began.all),
        flushes=(ended.flushes - began.flushes) / journeys,
    )


@contextmanager
def campus(copies: int) -> Iterator[Campus]:
    """A protected site with so many copies of menu, auth and scheduler; ended on leaving.

    Raises:
        MeasureError: it does not start.
    """
    with served(dict.fromkeys(SERVICES, copies) | {"monitor": 1}) as (site, dsn):
        asyncio.run(_protect(site))
        yield Campus(
            site.environment,
            dsn,
            tuple(site.metrics.values()),
            pid_of(site.folder / "nats.conf"),
            _server_of(dsn),
        )


async def _protect(site: Site) -> None:
    connection = await connect(site.url, "bench")
    try:
        store = await OptionStore.open(connection, site.name)
        await store.write(HASHED, PasswordHasher().hash(PASSWORD).encode())
        await store.write("protection", parse("protection", "hash"))
    finally:
        await connection.close()


def _server_of(dsn: str) -> int:
    """The process of a PostgreSQL server on this machine: the parent of those that serve it."""
    connection = pyodbc.connect(dsn, autocommit=True, timeout=5)
    try:
        backend = int(connection.execute("SELECT pg_backend_pid()").fetchval())
        stat = Path(f"/proc/{backend}/stat").read_text(encoding="utf-8")
    finally:
        connection.close()
    return int(stat.rpartition(")")[2].split()[1])


def _connections(dsn: str) -> int:
    connection = pyodbc.connect(dsn, autocommit=True, timeout=5)
    try:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchval()
    finally:
        connection.close()
    return int(found)


def _spent(site: Campus) -> dict[str, float]:
    """Processor seconds of bus and database so far."""
    children = Path(f"/proc/{site.database}/task/{site.database}/children").read_text()
    backends = [site.database, *map(int, children.split())]
    return {"bus": processor_time(site.bus), "database": sum(map(_time_of, backends))}


def _time_of(process: int) -> float:
    try:
        return processor_time(process)
    except OSError:
        return 0.0  # a worker of the database that has ended


class System(Struct, frozen=True):
    """What the machine has done so far."""

    idle: float
    """Processor time that nobody used, in the system's own unit, and all there was."""
    all: float
    flushes: int


def _system() -> System:
    return system_of(
        Path("/proc/stat").read_text(encoding="utf-8"),
        Path("/proc/diskstats").read_text(encoding="utf-8"),
    )


def system_of(stat: str, diskstats: str) -> System:
    """What the system's own counts say (proc(5)); time spent waiting for a disk is idle. Pure."""
    times = [int(each) for each in stat.splitlines()[0].split()[1:9]]
    disks = [line.split() for line in diskstats.splitlines()]
    return System(
        idle=float(times[3] + times[4]),
        all=float(sum(times)),
        # Field 18 counts flushes; parts of a disk have none of their own.
        flushes=sum(int(fields[18]) for fields in disks if len(fields) > 18),
    )


def p99(stormed: Stormed, step: Step) -> float | None:
    """The 99th percentile of a step, if it was made."""
    times = stormed.result.steps.get(step)
    return times.p99 if times else None
