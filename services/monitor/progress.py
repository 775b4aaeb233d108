"""Follows scheduled jobs to their end: what changes in ``event_schedule`` becomes events.

Which deployments are under way, and what has been told of them, is read from the stream of events
itself. That needs no store of its own that could disagree with it, it survives any restart, and
every copy of the monitor knows what the others have told. An event's id names the request and the
row, so that two copies that see the same change tell it once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from bus.connection import Connection
from bus.event_stream import read
from bus.events import Event, EventLog
from express.database import Database
from express.progress import JobRow, read_rows, read_scheduled
from services.monitor.part import Loop, Part, take_each
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
_MARGIN: Final = timedelta(days=7)
"""How far the clocks of who records a request and who tells of it may differ."""


class Progress(Part):
    """Looks at the rows of all deployments that are under way, with one query each time."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        database: Database,
        events: EventLog,
        *,
        every: float = _EVERY,
    ) -> None:
        """Looks ``every`` so many seconds, and not at all while nothing is under way."""
        super().__init__(
            Loop("the following of jobs", site, self._look),
            Loop("the reading of events for the following of jobs", site, self._listen),
        )
        self._connection = connection
        self._site = site
        self._database = database
        self._events = events
        self._every = every
        self._underway = Underway()
        self._something = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._log = structlog.get_logger("monitor").bind(site=site)

    @property
    def following(self) -> int:
        """How many deployments are under way."""
        return len(self._underway.deployments)

    async def _listen(self) -> None:
        events = read(
            self._connection,
            self._site,
            kinds=KINDS,
            follow=True,
            caught_up=self._caught_up.set,
        )
        await take_each(events, self._take)

    def _take(self, event: Event) -> None:
        self._underway.heard(event)
        if self._underway.deployments:
            self._something.set()

    async def _look(self) -> None:
        # Before that, it is not known what has been told.
        await self._caught_up.wait()
        await self._something.wait()
        await self._poll()
        await asyncio.sleep(self._every)

    async def _poll(self) -> None:
        deployments = list(self._underway.deployments.values())
        if not deployments:
            self._something.clear()
            return
        # Told of meanwhile, deployments change: none of them goes into the thread of the database.
        found = await self._database.transact(
            partial(
                read_rows,
                computer_ids={each.computer.id for each in deployments},
                first_row=min(each.rows[0] for each in deployments),
            )
        )
        rows = _by_request(found, deployments)
        endings = await self._endings(deployments, rows)
        for each in deployments:
            await self._tell(each, rows[each.request], endings.get(each.request))

    async def _endings(
        self, deployments: Sequence[Deployment], rows: Mapping[str, Sequence[JobRow]]
    ) -> dict[str, Ending]:
        """What became of the deployments that are over and whose jobs have not all ended."""
        gone = [
            each
            for each in deployments
            if each.is_over(rows[each.request]) and each.missing(rows[each.request])
        ]
        if not gone:
            return {}
        since = min(each.scheduled_at for each in gone) - _MARGIN
        later = await self._database.transact(partial(read_scheduled, since=since))
        return {
            each.request: "replaced"
            if any(
                other.computer_id == each.computer.id and other.rows[0] > each.rows[1]
                for other in later
            )
            else "removed"
            for each in gone
        }

    async def _tell(
        self, deployment: Deployment, rows: Sequence[JobRow], ending: Ending | None
    ) -> None:
        """Tells what has changed, and takes each down once the bus has it on disk.

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
        undecided = ending is None and deployment.missing(rows)
        if undecided or not deployment.is_over(rows):
            # Another copy may have told meanwhile what was not known when the rows were read.
            return
        now = datetime.now(UTC)
        outcome: Ending = ending or ("failed" if deployment.failed else "succeeded")
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
