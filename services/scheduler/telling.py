"""Tells those who follow events what becomes of a request.

The scheduler carries a request out, tells of it, and only then lets go of the request in the
stream. Whoever dies in between is followed by a copy that finds the request done and tells the same
events again, which the bus keeps once, since their ids come from the request's.
"""

from collections.abc import Mapping
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
    if outcome.problem:
        details: dict[str, Detail] = {
            "item": request.item_id,
            "name": request.computer_name,
            "problem": outcome.problem.code,
        }
        await _tell(events, request, "request_rejected", details)
    done = outcome.computer
    if not done:
        return
    computer = ComputerRef(id=done.id, name=done.name)
    if done.created:
        await _tell(events, request, "computer_created", {}, computer)
    if done.renamed_from:
        await _tell(events, request, "computer_renamed", {"from": done.renamed_from}, computer)
    if outcome.replaced:
        await _tell(events, request, "jobs_replaced", {"jobs": outcome.replaced}, computer)
    scheduled: dict[str, Detail] = {"item": request.item_id, "jobs": len(outcome.jobs)}
    if outcome.rows:
        # By these the monitor follows the jobs, and no others, to their end.
        scheduled["first_row"], scheduled["last_row"] = outcome.rows
    await _tell(events, request, "jobs_scheduled", scheduled, computer)


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
