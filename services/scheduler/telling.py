"""Tells those who follow events what becomes of a request.

The scheduler carries a request out, tells of it, and only then lets go of the request in the
stream. Whoever dies in between is followed by a copy that finds the request done and tells the same
events again, which the bus keeps once, since their ids come from the request's.
"""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime

from bus.events import Detail, EventLog, Kind
from bus.machines import machine_key
from bus.messages import ComputerRef, Outcome, Request


async def tell_accepted(events: EventLog, request: Request) -> None:
    """The request is on disk.

    Raises:
        NotKeptError: the bus does not keep the event.
    """
    details: dict[str, Detail] = {"item": request.item_id, "name": request.computer_name}
    if request.start_at:
        details["start_at"] = request.start_at.isoformat()
    await _tell(events, request, "request_accepted", details, at=request.accepted_at)


async def tell_ended(events: EventLog, request: Request, outcome: Outcome) -> None:
    """The request has its outcome.

    Raises:
        NotKeptError: the bus does not keep one of the events.
    """
    done = outcome.computer
    computer = ComputerRef(id=done.id, name=done.name) if done else None
    # Sent one after the other, and so kept in this order, but acknowledged together.
    told = await asyncio.gather(
        *(
            _tell(events, request, kind, details, computer)
            for kind, details in _happened(request, outcome)
        ),
        return_exceptions=True,
    )
    for each in told:
        if each is not None:
            raise each


def _happened(request: Request, outcome: Outcome) -> Iterator[tuple[Kind, dict[str, Detail]]]:
    done = outcome.computer
    if outcome.problem:
        yield (
            "request_rejected",
            {
                "item": request.item_id,
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
    scheduled: dict[str, Detail] = {"item": request.item_id, "jobs": len(outcome.jobs)}
    if outcome.rows:
        # By these the monitor follows the jobs, and no others, to their end.
        scheduled["first_row"], scheduled["last_row"] = outcome.rows
    yield "jobs_scheduled", scheduled


async def _tell(
    events: EventLog,
    request: Request,
    kind: Kind,
    details: Mapping[str, Detail],
    computer: ComputerRef | None = None,
    at: datetime | None = None,
) -> None:
    await events.record(
        kind,
        machine=machine_key(request.machine),
        of=request.request_id,
        at=at,
        computer=computer,
        technician=request.technician,
        details={"request": request.request_id, **details},
    )
