"""Follows scheduled jobs to their end: what changes in ``event_schedule`` becomes events.

Which deployments are under way, and what has been told of them, is read from the stream of events
itself. That needs no store of its own that could disagree with it, it survives any restart, and
every copy of the monitor knows what the others have told. An event's id names the request and the
row, so that two copies that see the same change tell it once.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from bus.event_stream import Placed
from bus.events import EventLog
from engine.progress import JobRow
from engine.protocol import JobRows
from services.monitor.part import Loop, Part
from services.monitor.underway import (
    KINDS,
    Deployment,
    Ending,
    Underway,
    changes,
    end_details,
    job_details,
)

_EVERY: Final = 2.0
_SHARE: Final = 0.1
"""Of the time, at most, in which it asks the database how the rows stand."""
_LONGEST: Final = 30.0
"""Seconds between two looks, at most."""
_JOBS: Final = 2_000
"""Jobs whose rows are read together, unless one deployment has more."""
_COMPUTERS: Final = 1_000
"""Computers whose rows are read together, at most."""
_MARGIN: Final = timedelta(days=7)
"""How far the clocks of who records a request and who tells of it may differ."""


class Progress(Part):
    """Asks how the rows of the deployments under way stand, and reads those that have changed.

    Of each cohort the database counts, then of each computer in those that stand otherwise, and
    what is read are the rows of the computers that do: thousands that wait cost next to nothing.
    """

    def __init__(
        self,
        site: str,
        engine: JobRows,
        events: EventLog,
        *,
        every: float = _EVERY,
    ) -> None:
        """Looks ``every`` so many seconds, and not at all while nothing is under way."""
        super().__init__(Loop("the following of jobs", site, self._look))
        self.kinds = frozenset(KINDS)
        self._engine = engine
        self._events = events
        self._every = every
        self._seen: dict[int, int] = {}
        """How the rows of each cohort stood when nothing was left to be told of them."""
        self._took = 0.0
        """Seconds that the last look took."""
        self._underway = Underway()
        self._something = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._log = structlog.get_logger("monitor").bind(site=site)

    @property
    def following(self) -> int:
        """How many deployments are under way."""
        return len(self._underway.deployments)

    def hear(self, placed: Placed) -> None:
        """Takes an event in; one that was heard before changes nothing."""
        self._underway.heard(placed.event)
        if self._underway.deployments:
            self._something.set()

    def caught_up(self) -> None:
        """From now on it looks: before, it is not known what has been told."""
        self._caught_up.set()

    async def _look(self) -> None:
        await self._caught_up.wait()
        await self._something.wait()
        await self._poll()
        await asyncio.sleep(max(self._every, min(self._took / _SHARE, _LONGEST)))

    async def _poll(self) -> None:
        deployments = list(self._underway.deployments.values())
        if not deployments:
            self._something.clear()
            return
        cohorts = defaultdict[int, list[Deployment]](list)
        for each in deployments:
            cohorts[each.cohort].append(each)
        ranges = [_range(cohort) for cohort in cohorts.values()]
        began = time.monotonic()
        # Told of meanwhile, deployments change: none of them is given to the engine.
        standings = await self._engine.ranges(ranges)
        self._took = time.monotonic() - began
        before, self._seen = self._seen, {}
        vanished: list[Deployment] = []
        for number, rows, standing in zip(cohorts, ranges, standings, strict=True):
            cohort, seen = cohorts[number], hash((rows, standing))
            if before.get(number) != seen or any(each.seen is None for each in cohort):
                vanished += await self._look_at(cohort)
            self._seen[number] = seen
        if vanished:
            await self._tell_vanished(vanished)

    async def _look_at(self, cohort: Sequence[Deployment]) -> list[Deployment]:
        """Tells what has changed; returns those that are over and whose end is not told yet."""
        standings = await self._engine.standings(
            {each.computer.id for each in cohort}, min(each.first_row for each in cohort)
        )
        seen = {each.request: hash(standings.get(each.computer.id)) for each in cohort}
        vanished: list[Deployment] = []
        for part in _parts(each for each in cohort if each.seen != seen[each.request]):
            rows = await self._rows(part)
            vanished += [
                each
                for each in part
                if await self._tell(each, rows[each.request], seen[each.request])
            ]
        return vanished

    async def _rows(self, deployments: Sequence[Deployment]) -> dict[str, list[JobRow]]:
        """The rows that there still are of each deployment."""
        found = await self._engine.rows(
            {each.computer.id for each in deployments}, min(each.first_row for each in deployments)
        )
        return _by_request(found, deployments)

    async def _tell(self, deployment: Deployment, rows: Sequence[JobRow], seen: int) -> bool:
        """Tells what has changed, and takes each down once the bus has it on disk.

        Returns whether it is over without that all of its jobs have ended, which is not told yet.

        Raises:
            NotKeptError: the bus does not keep an event; it is told at the next look.
        """
        for change in changes(deployment, rows):
            now = datetime.now(UTC)
            await self._events.record(
                change.kind,
                machine=deployment.machine,
                of=f"{deployment.request}.{change.row.id}",
                at=now,
                computer=deployment.computer,
                technician=deployment.technician,
                details=job_details(deployment, change),
            )
            deployment.note(change.kind, change.row.id, change.status, now)
        if not deployment.is_over(rows):
            # Rows that changed between the two queries stand otherwise at the next look.
            deployment.seen = seen
            return False
        deployment.seen = None
        if deployment.missing(rows):
            return True
        await self._tell_end(deployment, "failed" if deployment.failed else "succeeded")
        return False

    async def _tell_vanished(self, deployments: Sequence[Deployment]) -> None:
        """Tells what became of those whose jobs have gone: asked after their rows were read."""
        since = min(each.scheduled_at for each in deployments) - _MARGIN
        later = await self._engine.scheduled(since)
        last_rows: defaultdict[int, int] = defaultdict(int)
        for other in later:
            last_rows[other.computer_id] = max(last_rows[other.computer_id], other.rows[0])
        for each in deployments:
            replaced = last_rows[each.computer.id] > each.last_row
            await self._tell_end(each, "replaced" if replaced else "removed")

    async def _tell_end(self, deployment: Deployment, outcome: Ending) -> None:
        now = datetime.now(UTC)
        await self._events.record(
            "deployment_finished",
            machine=deployment.machine,
            of=deployment.request,
            at=now,
            computer=deployment.computer,
            technician=deployment.technician,
            details=end_details(deployment, outcome, now),
        )
        self._underway.finish(deployment.request)
        self._log.info("a deployment has ended", request=deployment.request, outcome=outcome)


def _range(deployments: Sequence[Deployment]) -> tuple[int, int]:
    """From the first to the last of their rows; some between them may be those of others."""
    return min(each.first_row for each in deployments), max(each.last_row for each in deployments)


def _parts(deployments: Iterable[Deployment]) -> Iterator[list[Deployment]]:
    """So many at a time that their rows are few, however many of them are pending."""
    part: list[Deployment] = []
    jobs = 0
    for each in deployments:
        if part and (jobs + each.jobs > _JOBS or len(part) == _COMPUTERS):
            yield part
            part, jobs = [], 0
        part.append(each)
        jobs += each.jobs
    if part:
        yield part


def _by_request(
    found: Iterable[JobRow], deployments: Sequence[Deployment]
) -> dict[str, list[JobRow]]:
    """The rows that there still are of each deployment."""
    of_computer: defaultdict[int, list[JobRow]] = defaultdict(list)
    for row in found:
        of_computer[row.computer_id].append(row)
    return {
        each.request: list(filter(each.has, of_computer[each.computer.id])) for each in deployments
    }
