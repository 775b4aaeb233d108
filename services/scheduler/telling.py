"""Tells those who follow events what becomes of a request.

The scheduler carries a request out, tells of it, and only then lets go of the request in the
stream. Whoever dies in between is followed by a copy that finds the request done and tells the same
events again. The bus keeps them once: within an hour since their ids come from the request's, and
after it since the last event of a kind is looked at before a machine is told of by it again.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

import nats.js.errors
from nats.js import JetStreamContext

from bus import subjects
from bus.connection import Connection
from bus.events import Detail, EventLog, Kind, event_decoder
from bus.machines import machine_key
from bus.messages import ComputerRef, Outcome, Request
from bus.waiting import all_of


class Teller:
    """Tells of a site's requests; ``again`` says that a request may have been told of before."""

    def __init__(self, connection: Connection, site: str, events: EventLog) -> None:
        self._stream = connection.jetstream()
        self._site = site
        self._events = events

    async def accepted(self, request: Request, *, again: bool) -> None:
        """The request is on disk.

        Raises:
            NotKeptError, nats.errors.Error, TimeoutError: the bus does not keep the event.
        """
        details: dict[str, Detail] = {
            "item": request.item_id,
            "title": request.item_title,
            "name": request.computer_name,
        }
        if request.start_at:
            details["start_at"] = request.start_at.isoformat()
        if not (again and await self._is_told(request, "request_accepted")):
            await self._tell(request, "request_accepted", details, at=request.accepted_at)

    async def ended(self, request: Request, outcome: Outcome, *, again: bool) -> None:
        """The request has its outcome.

        Raises:
            NotKeptError, nats.errors.Error, TimeoutError: the bus does not keep one of the events.
        """
        done = outcome.computer
        computer = ComputerRef(id=done.id, name=done.name) if done else None
        happened = [
            (kind, details)
            for kind, details in _happened(request, outcome)
            if not (again and await self._is_told(request, kind))
        ]
        # Sent one after the other, and so kept in this order, but acknowledged together.
        await all_of(self._tell(request, kind, details, computer) for kind, details in happened)

    async def _is_told(self, request: Request, kind: Kind) -> bool:
        """Whether the machine's last event of this kind is the request's.

        It is if there is one, for a machine's requests are carried out one after the other.
        """
        subject = subjects.event(self._site, machine_key(request.machine), kind)
        last = await last_kept(self._stream, subjects.EVENTS, subject)
        try:
            told = event_decoder.decode(last) if last else None
        except ValueError:
            # Somebody else has written it.
            return False
        return told is not None and told.details.get("request") == request.request_id

    async def _tell(
        self,
        request: Request,
        kind: Kind,
        details: Mapping[str, Detail],
        computer: ComputerRef | None = None,
        at: datetime | None = None,
    ) -> None:
        await self._events.record(
            kind,
            machine=machine_key(request.machine),
            of=request.request_id,
            at=at,
            computer=computer,
            technician=request.technician,
            details={"request": request.request_id, **details},
        )


async def last_kept(stream: JetStreamContext, name: str, subject: str) -> bytes | None:
    """What was kept last in a stream under a subject.

    Raises:
        nats.errors.Error, TimeoutError: the bus does not answer.
    """
    try:
        return (await stream.get_last_msg(name, subject)).data
    except nats.js.errors.NotFoundError:
        return None


def _happened(request: Request, outcome: Outcome) -> Iterator[tuple[Kind, dict[str, Detail]]]:
    done = outcome.computer
    if outcome.problem:
        yield (
            "request_rejected",
            {
                "item": request.item_id,
                "title": request.item_title,
                "name": request.computer_name,
                "problem": outcome.problem.code,
            },
        )
    if not done:
        return
    if done.created:
        yield "computer_created", {}
    if done.renamed_from:
        yield "computer_renamed", {"from": done.renamed_from}
    if outcome.replaced:
        yield "jobs_replaced", {"jobs": outcome.replaced}
    scheduled: dict[str, Detail] = {
        "item": request.item_id,
        "title": request.item_title,
        "jobs": len(outcome.jobs),
    }
    if outcome.rows:
        # By these the monitor follows the jobs, and no others, to their end.
        scheduled["first_row"], scheduled["last_row"] = outcome.rows
    yield "jobs_scheduled", scheduled
