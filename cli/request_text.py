"""Requests as people read them: a table, a page for one, a line for a replay. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bus.events import one_line
from bus.problems import CATALOGUE
from bus.request_store import Entry
from cli.event_table import event_line
from cli.replaying import Replay
from cli.request_lookup import Known

_HEADER: Final = ("TIME", "STATE", "REQUEST", "WHO", "MACHINE", "ITEM", "DETAILS")


def table(shown: Sequence[Entry]) -> str:
    """Requests as a table, a line each."""
    rows = [_HEADER, *map(_cells, shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    """A request as a row; made printable once more, for anybody may have written an event."""
    return (
        _time(entry.at),
        entry.state,
        one_line(entry.request_id),
        one_line(entry.technician or "-"),
        one_line(_place(entry)),
        one_line(entry.item_title or entry.item_id),
        _details(entry),
    )


def _place(entry: Entry) -> str:
    return entry.computer.name if entry.computer else entry.computer_name or entry.machine


def _details(entry: Entry) -> str:
    told = [
        _jobs(entry.jobs) if entry.jobs is not None else "",
        entry.problem or "",
        f"starts {_time(entry.start_at)}" if entry.start_at else "",
        f"replay of {entry.replay_of}" if entry.replay_of else "",
        *(f"replayed as {new}" for new in entry.replayed_as),
    ]
    return ", ".join(map(one_line, filter(None, told)))


def page(known: Known) -> str:
    """All that is known of a request, for a person."""
    entry, outcome = known.entry, known.outcome
    machine = known.request.machine if known.request else None
    problem = outcome.problem.message if outcome and outcome.problem else _usual(entry.problem)
    computer = entry.computer
    facts = {
        "request": entry.request_id,
        "state": f"{entry.state}, since {_time(entry.at)}",
        "problem": f"{entry.problem}: {problem}" if entry.problem else None,
        "item": f"{entry.item_title} ({entry.item_id})" if entry.item_title else entry.item_id,
        "technician": entry.technician,
        "protection": entry.protection,
        "machine": entry.machine,
        "UUID": machine and machine.uuid,
        "serial": machine and machine.serial,
        "asset tag": machine and machine.asset_tag,
        "addresses": machine and ", ".join(machine.macs),
        "model": machine and " ".join(filter(None, (machine.manufacturer, machine.model))),
        "name asked": entry.computer_name,
        "computer": f"{computer.name} ({computer.id})" if computer else None,
        "accepted": entry.accepted_at and _time(entry.accepted_at),
        "starts": entry.start_at and _time(entry.start_at),
        "replay of": entry.replay_of,
        "replayed as": ", ".join(entry.replayed_as),
        "replaced": str(outcome.replaced) if outcome and outcome.replaced else None,
        "jobs": str(entry.jobs) if entry.jobs is not None else None,
    }
    lines = [f"{name:<12} {one_line(value)}" for name, value in facts.items() if value]
    lines += [
        f"{'':<12} {job.id}  {one_line(job.name)}" for job in (outcome.jobs if outcome else ())
    ]
    lines += ["", *map(event_line, known.events)]
    return "\n".join(lines) + "\n"


def _usual(code: str | None) -> str:
    return next((text for known, (_, text) in CATALOGUE.items() if known == code), "")


def said(done: Replay) -> str:
    """A replay and what has become of it, as one line."""
    outcome = done.outcome
    start = f"{done.request_id} replayed as {done.new_request_id}: "
    if outcome.problem:
        return f"{start}rejected, {outcome.problem.code}: {one_line(outcome.problem.message)}"
    if outcome.computer is None:
        return f"{start}accepted, and still to be carried out"
    return f"{start}scheduled, {_jobs(len(outcome.jobs))} on {one_line(outcome.computer.name)}"


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
