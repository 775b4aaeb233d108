"""The course of a storm: journeys at rest, the storm, the reckoning, and what came of it."""

import asyncio
import contextlib
import os
import platform
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import nats.errors
import pyodbc
from msgspec import Struct

from bus.__about__ import __version__
from bus.messages import ItemEntry, Protection, Welcome
from bus.option_store import read_layers
from bus.options import Options, assemble, in_force
from bus.problems import Problem
from cli.fail import CommandError, NoServerError, WrongUseError
from cli.reaching import reach
from cli.storm.arrivals import arrivals
from cli.storm.journeys import Errand, Passage
from cli.storm.ledger import Ledger
from cli.storm.machines import Fleet, RequestIds
from cli.storm.playing import Storm
from cli.storm.probing import Probe, probing
from cli.storm.progress import shown as progress_shown
from cli.storm.reckoning import Before, Verdict, as_told, before, jobs_of, reckon, settled
from cli.storm.results import (
    Asked,
    Generator,
    Place,
    Result,
    median_times,
    moments_of,
    times_of,
)
from cli.storm.tally import Tally
from cli.storm.watching import Watched, watched, watching
from cli.target import Address
from client.journey import Journey
from client.settings import shown
from express.connection import DatabaseUnavailable
from express.database import Database, WriteConflict

AT_REST: Final = 7
"""Lone journeys before the storm."""
_PATIENCE: Final = 10.0
"""Seconds that the site has to greet the first machine."""
_LONGEST_STATEMENT: Final = 60.0


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done."""

    address: Address
    machines: int
    within: float
    at_once: int
    give_up: float
    fleet: Fleet
    known: bool
    item: str | None
    username: str | None
    metrics: tuple[str, ...]
    database: str | None
    """An ODBC connection string; None for a reckoning by what the machines were told alone."""
    probe: bool
    command: str


async def greet(plan: Plan) -> Protection:
    """How the site is protected, as it tells the first machine.

    Raises:
        NoServerError: nobody answers, or lets us in.
        WrongUseError: the machine is known, or is not, and should not or should be.
        CommandError: the site will not serve it.
    """
    machine = plan.fleet.machine(1)
    address = plan.address
    await (await reach(address, "storm")).close()
    journey = Journey(address.server, address.site, machine, lambda _notice: None, address.door)
    try:
        async with asyncio.timeout(_PATIENCE):
            welcome = await journey.welcome()
    except TimeoutError as error:
        raise NoServerError(
            f"Site {plan.address.site!r} does not answer at {shown(plan.address.server)}. "
            "Is the bus up, and does a menu service of the site run?"
        ) from error
    except Problem as problem:
        raise CommandError(
            f"The site does not serve these machines: {problem.message}"
        ) from problem
    finally:
        await journey.close()
    _require_expected(plan, welcome)
    return welcome.protection


def _require_expected(plan: Plan, welcome: Welcome) -> None:
    seed = plan.fleet.seed
    if plan.known and welcome.computer is None:
        raise WrongUseError(
            f"No machine of --seed {seed} is known at this site; leave --known out, or give the "
            "seed of an earlier storm."
        )
    if not plan.known and welcome.computer is not None:
        raise WrongUseError(
            f"The machines of --seed {seed} are known at this site, from an earlier storm: say "
            "--known to use them again, or take another seed."
        )


async def run(plan: Plan, protection: Protection, password: str) -> Result:
    """All of it; an operator's SIGINT or SIGTERM ends the storm, and the rest is still done.

    Raises:
        CommandError: it cannot begin: the first journeys fail, or the database cannot be read.
    """
    copies = await watched(plan.metrics)
    if plan.database is None:
        return await _run(plan, protection, password, copies, None)
    database = Database(plan.database, statement_timeout=_LONGEST_STATEMENT)
    try:
        return await _run(plan, protection, password, copies, database)
    except DatabaseUnavailable as error:
        raise CommandError(f"The database cannot be read: {error.reason}") from error
    finally:
        await database.close()


async def _run(
    plan: Plan,
    protection: Protection,
    password: str,
    copies: Sequence[Watched],
    database: Database | None,
) -> Result:
    started_at = datetime.now(UTC)
    errand = Errand(
        server=plan.address.server,
        site=plan.address.site,
        door=plan.address.door,
        item=plan.item,
        username=plan.username,
        password=password,
    )
    ids = RequestIds.new()
    ledger = Ledger(AT_REST + plan.machines)
    tally = Tally()
    storm = Storm(errand, plan.fleet, ids, ledger, tally)
    books = await _opened(plan, database, ledger.machines) if database else None
    item, at_rest = await _at_rest(storm, plan.give_up)
    if books:
        await books.choose(item.id)

    probe: Probe | None = None
    async with contextlib.AsyncExitStack() as stack:
        if plan.probe and books:
            probing_ = probing(books.database, errand, plan.fleet.machine(0), books.options)
            probe = await stack.enter_async_context(probing_)
        await stack.enter_async_context(watching(copies))
        await stack.enter_async_context(progress_shown(storm, plan.machines))
        told = stack.enter_context(_told_to_end())
        used = time.process_time()
        ended = await storm.play(
            AT_REST + 1,
            arrivals(plan.machines, plan.within, plan.fleet.seed),
            at_once=plan.at_once,
            give_up=plan.give_up,
            told=told,
        )
        used = time.process_time() - used
    verdict = await books.verdict(plan, ledger, ids) if books else as_told(ledger)
    return Result(
        place=_place(plan, protection, started_at),
        asked=_asked(plan, item, ids),
        ended=ended,
        seconds=tally.last_end,
        arrived=tally.arrived,
        scheduled=tally.scheduled,
        rejected=tally.rejected,
        failed=tally.failed,
        not_arrived=plan.machines - tally.arrived,
        throughput=tally.scheduled / tally.last_end if tally.last_end else 0.0,
        errors=tally.rejected + tally.failed,
        errors_by_code=dict(tally.errors.most_common()),
        retries=tally.retries.total(),
        retries_by_code=dict(tally.retries.most_common()),
        held_back=tally.held_back,
        longest_hold=tally.longest_hold,
        lost=verdict.lost,
        doubled=verdict.doubled,
        reckoning=verdict,
        steps=times_of(tally, median_times(at_rest)),
        generator=Generator(
            processor_seconds=used,
            processor_per_journey=used / max(1, tally.ended),
            latest=tally.latest,
            resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        ),
        probe=probe.probed() if probe else None,
        services=tuple(copy.served() for copy in copies if copy.usage),
        window=float(tally.width),
        moments=moments_of(tally),
    )


class _Books:
    """The deployment server's database, and how it was before the storm."""

    def __init__(self, database: Database, options: Options, then: Before) -> None:
        self.database = database
        self.options = options
        self._then = then
        self._jobs: list[int] = []

    async def choose(self, item_id: str) -> None:
        """Reads the jobs of the item.

        Raises:
            CommandError: this database knows no such item.
        """
        self._jobs = await self.database.transact(lambda tx: jobs_of(tx, self.options, item_id))
        if not self._jobs:
            raise CommandError(
                f"The database holds no item {item_id}, which the site's menu shows: is it another "
                "site's? Name the right one with --database-file."
            )

    async def verdict(self, plan: Plan, ledger: Ledger, ids: RequestIds) -> Verdict:
        """What it says of the storm; what was told, where it does not answer."""
        try:
            await settled(self.database, ledger, ids)
            return await reckon(
                self.database, ledger, plan.fleet, ids, self._then, self._jobs, known=plan.known
            )
        except (DatabaseUnavailable, WriteConflict, pyodbc.Error) as error:
            # The figures are there, and nobody wants to make the storm again for them.
            return msgspec.structs.replace(as_told(ledger), unread=str(error))


async def _opened(plan: Plan, database: Database, machines: int) -> _Books:
    options = await _options(plan.address)
    return _Books(database, options, await before(database, plan.fleet, machines))


async def _at_rest(storm: Storm, give_up: float) -> tuple[ItemEntry, list[Passage]]:
    """Lone journeys, one after the other; the first chooses the item for all.

    Raises:
        CommandError: one does not end with scheduled jobs.
    """
    passages: list[Passage] = []
    try:
        async with asyncio.timeout(give_up):
            for number in range(1, AT_REST + 1):
                passage = await storm.travel_alone(number)
                item = _item_of(passage)
                storm.errand = msgspec.structs.replace(storm.errand, item=item.id)
                passages.append(passage)
    except TimeoutError as error:
        raise CommandError(
            f"Not even {AT_REST} lone journeys end within {give_up:g} s, so there is no storm."
        ) from error
    return item, passages


def _item_of(passage: Passage) -> ItemEntry:
    """What a lone machine has had scheduled.

    Raises:
        CommandError: nothing; the text says why.
    """
    outcome = passage.outcome
    if passage.item and outcome and outcome.state == "scheduled":
        return passage.item
    problem = outcome.problem if outcome else None
    code, text = (problem.code, problem.message) if problem else (passage.error, passage.message)
    cure = (
        " Perhaps an earlier storm made it: take another --prefix, or its machines, by --known and "
        "its --seed."
        if code == "name_taken"
        else ""
    )
    raise CommandError(f"A lone machine fails, so there is no storm: {text or code}{cure}")


async def _options(address: Address) -> Options:
    connection = await reach(address, "storm")
    try:
        return assemble(in_force(*await read_layers(connection, address.site)))[0]
    except (nats.errors.Error, TimeoutError) as error:
        raise CommandError("The options of the site cannot be read.") from error
    finally:
        await connection.close()


@contextlib.contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """An event that is set when an operator ends the storm."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, told.set)
    try:
        yield told
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


def _asked(plan: Plan, item: ItemEntry, ids: RequestIds) -> Asked:
    return Asked(
        machines=plan.machines,
        within=plan.within,
        at_once=plan.at_once,
        give_up=plan.give_up,
        seed=plan.fleet.seed,
        prefix=plan.fleet.prefix,
        known=plan.known,
        item_id=item.id,
        item_title=item.title,
        at_rest=AT_REST,
        requests_like=ids.pattern,
    )


def _place(plan: Plan, protection: Protection, started_at: datetime) -> Place:
    return Place(
        command=plan.command,
        server=shown(plan.address.server),
        site=plan.address.site,
        protection=protection,
        started_at=started_at,
        version=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        cores=len(os.sched_getaffinity(0)),
    )
