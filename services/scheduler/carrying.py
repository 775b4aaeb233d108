"""Carries one accepted request out: all of it, or nothing, and only once."""

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from bus.access import Rights
from bus.machines import machine_key
from bus.messages import ComputerRef, JobRef, Outcome, Request, ScheduledComputer, decoder, encode
from bus.options import Options
from bus.problems import Problem
from express import computers, schedules
from express.database import Database, Transaction
from express.progress import rows_of
from express.schedules import Record
from express.schema import Layout
from services.scheduler.plan import NewComputer, Plan, make_plan, require_free_name

_outcome = decoder(Outcome)


class Order(Struct, frozen=True):
    """A request, and the options and rights by which it is to be carried out."""

    request: Request
    options: Options
    rights: Rights


def carry_out(tx: Transaction, layout: Layout, order: Order) -> Outcome:
    """What has become of the request; if it was carried out before, what became of it then.

    Raises:
        Problem: why the request cannot be carried out.
        WriteConflict: another transaction was in the way.
    """
    request = order.request
    machine = machine_key(request.machine)
    schedules.lock(tx, f"machine:{machine}")
    record = schedules.recorded(tx, request.request_id)
    if record:
        outcome = outcome_of(record)
    else:
        plan = make_plan(tx, layout, request, order.options, request.site, order.rights)
        outcome = _write(tx, layout, plan, request)
        _record(tx, request, machine, "scheduled", outcome)
    schedules.unlock(tx, f"machine:{machine}")
    return outcome


async def reject(database: Database, request: Request, problem: Problem) -> Outcome:
    """Records that a request cannot be carried out, unless it has been."""
    machine = machine_key(request.machine)
    rejected = Outcome(
        request_id=request.request_id,
        state="rejected",
        start_at=request.start_at,
        problem=problem.body(),
    )

    def do(transaction: Transaction) -> Outcome:
        schedules.lock(transaction, f"machine:{machine}")
        record = schedules.recorded(transaction, request.request_id)
        if record is None:
            _record(transaction, request, machine, "rejected", rejected)
        schedules.unlock(transaction, f"machine:{machine}")
        return outcome_of(record) if record else rejected

    return await database.transact(do)


def outcome_of(record: Record) -> Outcome:
    """What the record of a request says has become of it."""
    return _outcome.decode(record.outcome)


def _write(transaction: Transaction, layout: Layout, plan: Plan, request: Request) -> Outcome:
    name_lock = f"name:{plan.name.lower()}"
    if plan.new_name:
        # Two machines may want one name at once: whoever comes second sees that it is taken.
        schedules.lock(transaction, name_lock)
        require_free_name(transaction, plan)
    match plan.target:
        case NewComputer(group=group):
            computer_id = computers.create(
                transaction, layout, request.machine, plan.identity, plan.name, group
            )
        case ComputerRef(id=computer_id):
            if plan.new_name:
                computers.rename(transaction, computer_id, plan.name)
    if plan.new_name:
        schedules.unlock(transaction, name_lock)
    # A machine that is known by two keys, as by its UUID and by its serial number, has two locks.
    if plan.computer:
        schedules.lock(transaction, f"computer:{computer_id}")
    job_ids = [job.id for job in plan.jobs]
    replaced = schedules.replace_pending(
        transaction,
        layout,
        computer_id,
        job_ids,
        schedules.start_time(transaction, request.start_at),
    )
    rows = rows_of(transaction, layout, computer_id, job_ids)
    if plan.computer:
        schedules.unlock(transaction, f"computer:{computer_id}")
    old_name = plan.computer.name if plan.computer else None
    return Outcome(
        request_id=request.request_id,
        state="scheduled",
        computer=ScheduledComputer(
            id=computer_id,
            name=plan.name,
            created=plan.computer is None,
            renamed_from=old_name if old_name != plan.name else None,
        ),
        jobs=tuple(JobRef(id=job.id, name=job.name) for job in plan.jobs),
        replaced=replaced,
        start_at=request.start_at,
        rows=rows,
    )


def _record(
    transaction: Transaction,
    request: Request,
    machine: str,
    state: Literal["scheduled", "rejected"],
    outcome: Outcome,
) -> None:
    schedules.record(
        transaction,
        Record(
            request_id=request.request_id,
            site=request.site,
            machine=machine,
            digest=request.digest,
            state=state,
            outcome=encode(outcome).decode(),
            technician=request.technician,
            item_id=request.item_id,
            created_at=datetime.now(UTC).replace(tzinfo=None),
        ),
    )
