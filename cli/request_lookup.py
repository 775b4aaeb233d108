"""What a site's bus and database know of requests, and which rejected ones are to be replayed."""

import contextlib
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from bus.connection import Connection
from bus.event_stream import read
from bus.events import Event, Kind
from bus.messages import Outcome, Request
from bus.request_store import (
    TOLD_BY,
    Entry,
    Kept,
    RequestStore,
    entries,
    newest_of_machines,
    text_of,
)
from cli.deployable import NoDatabaseError, Source, asked
from cli.fail import CommandError
from cli.replaying import Order
from cli.target import Address
from engine.orders import Record, outcome_of

_LISTED_BY: Final[tuple[Kind, ...]] = tuple(kind for kind in TOLD_BY if kind != "request_refused")
_REPLAYED: Final[tuple[Kind, ...]] = ("request_replayed",)


class Known(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that is known of one request.

    ``request`` is there as long as the bus keeps the request whole, ``outcome`` where the
    deployment server's database could be asked.
    """

    entry: Entry
    request: Request | None = None
    outcome: Outcome | None = None
    events: tuple[Event, ...] = ()


class SiteRequests(Struct, frozen=True):
    """What the bus knows of a site's requests."""

    entries: tuple[Entry, ...]
    rejected: dict[str, Kept]
    unreadable: int


async def known_requests(connection: Connection, address: Address, since: datetime) -> SiteRequests:
    """The requests that wait, and those that ended since then.

    Raises:
        nats.errors.Error, TimeoutError: the bus keeps none, or does not answer.
    """
    store = RequestStore(connection, address.site)
    waiting = await store.waiting()
    rejected = await store.rejected(since)
    events = await _events(connection, address, _LISTED_BY, since=since)
    return SiteRequests(
        tuple(entries(waiting.requests, rejected.requests, events)),
        {each.request.request_id: each for each in rejected.requests},
        waiting.unreadable + rejected.unreadable,
    )


async def _events(
    connection: Connection,
    address: Address,
    kinds: Collection[Kind] = (),
    *,
    since: datetime | None = None,
    machines: Collection[str] = (),
) -> list[Event]:
    reading_ = read(connection, address.site, since=since, kinds=kinds, machines=machines)
    async with contextlib.aclosing(reading_):
        return [event async for event in reading_]


async def look_up(
    connection: Connection, address: Address, wanted: str, database_file: Path | None
) -> Known | None:
    """Everything that is known of one request, None where nothing is.

    Raises:
        WrongUseError: the database's file cannot be read; any other trouble with it is only told.
        nats.errors.Error, TimeoutError: the bus keeps no requests, or does not answer.
    """
    store = RequestStore(connection, address.site)
    waiting = [each for each in (await store.waiting()).requests if _id(each) == wanted]
    rejected = [each for each in (await store.rejected()).requests if _id(each) == wanted]
    copy = next(iter(rejected + waiting), None)
    record = await _record_of(address, wanted, database_file)
    if copy or record:
        machines = {each.machine for each in (copy, record) if each}
    else:
        machines = await _machines_told(connection, address, wanted)
    if not machines:
        return None
    events = [
        event
        for event in await _events(connection, address, machines=machines)
        if wanted in {text_of(event, "request"), text_of(event, "new_request")}
    ]
    found = [each for each in entries(waiting, rejected, events) if each.request_id == wanted]
    if not found and record:
        found = [_of_record(record)]
    return Known(
        entry=found[0],
        request=copy.request if copy else None,
        outcome=outcome_of(record) if record else None,
        events=tuple(events),
    )


def _id(kept: Kept) -> str:
    return kept.request.request_id


async def _machines_told(connection: Connection, address: Address, wanted: str) -> set[str]:
    """The machine of a request that stands nowhere else, as its events tell."""
    kinds = tuple(kind for kind in TOLD_BY if kind != "request_replayed")
    told = await _events(connection, address, kinds)
    return {event.machine for event in told if text_of(event, "request") == wanted}


async def _record_of(address: Address, wanted: str, database_file: Path | None) -> Record | None:
    try:
        source = Source(database_file, address.server, address.site)
        record = await asked(source, lambda engine: engine.record(wanted))
    except NoDatabaseError as error:
        sys.stderr.write(f"What the database holds of it is not shown: {error}\n")
        return None
    return record if record and record.site == address.site else None


def _of_record(record: Record) -> Entry:
    """A request that the bus has forgotten: events and rejected requests are kept for a time."""
    return Entry(
        request_id=record.request_id,
        state=record.state,
        at=record.created_at,
        machine=record.machine,
        item_id=record.item_id,
        technician=record.technician,
    )


async def named_orders(
    connection: Connection, address: Address, ids: Sequence[str], *, again: bool
) -> list[Order]:
    """The requests that are named, each with how often it has been replayed.

    Raises:
        CommandError: one is not kept among the rejected ones, or has been replayed.
    """
    rejected = (await RequestStore(connection, address.site).rejected()).requests
    kept = {_id(each): each for each in rejected}
    replays: defaultdict[str, list[str]] = defaultdict(list)
    for event in await _events(connection, address, _REPLAYED):
        replays[text_of(event, "request") or ""].append(text_of(event, "new_request") or "")
    for each in ids:
        if each not in kept:
            raise CommandError(
                f"No rejected request {each!r} is kept; `imageinvoker requests list --state "
                "rejected --since 30d` shows those that are. Nothing is replayed."
            )
        if replays[each] and not again:
            raise CommandError(
                f"{each} has been replayed already, as {replays[each][-1]}; --again does it once "
                "more. Nothing is replayed."
            )
    return [Order(kept[each], len(replays[each])) for each in ids]


def all_orders(known: SiteRequests, problem: str | None) -> list[Order]:
    """All that may be replayed without undoing what was asked for later."""
    wanted = [
        entry
        for entry in known.entries
        if entry.request_id in known.rejected
        and not entry.replayed_as
        and (problem is None or entry.problem == problem)
    ]
    newest = newest_of_machines(known.entries)
    chosen = [entry for entry in wanted if entry.request_id in newest]
    if left := len(wanted) - len(chosen):
        sys.stderr.write(
            f"{left} left out, since their machines have newer requests; name them to replay them "
            "all the same.\n"
        )
    orders = [Order(known.rejected[entry.request_id], 0) for entry in chosen]
    return sorted(orders, key=lambda order: order.kept.request.accepted_at)
