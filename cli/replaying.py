"""Puts rejected requests back as new ones, once each, and hears what becomes of them."""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import Connection
from bus.events import EventLog, NotKeptError
from bus.messages import Outcome, Request, Schedule, decoder
from bus.request_store import Kept, RequestStore
from cli.changes import operator
from cli.fail import CommandError
from services.scheduler.intake import digest_of

_PATIENCE: Final = 5.0
"""Seconds that outcomes are waited for, after the last request is on disk."""
_HEARS: Final = subjects.inbox("replay")
_REPLAYS: Final = uuid.UUID("0b0b4f3e-6f0f-5d0a-9a0e-5a4d7c1f2e61")
"""The namespace of the ids of replays."""

_outcome = decoder(Outcome)


class Replay(Struct, frozen=True, kw_only=True):
    """A rejected request, the new one it was put back as, and what has become of that."""

    request_id: str
    new_request_id: str
    outcome: Outcome


class Order(Struct, frozen=True):
    """A rejected request that is to be replayed, and how often it has been already."""

    kept: Kept
    times: int


def renewed(order: Order, now: datetime) -> Request:
    """A rejected request as a new one: the same wish, without a start that has passed.

    Its id comes from the old one's: two operators who replay the same request at the same time make
    one request of it.
    """
    old = order.kept.request
    start_at = old.start_at if old.start_at and old.start_at > now else None
    wish = Schedule(
        request_id=str(uuid.uuid5(_REPLAYS, f"{old.site}.{old.request_id}.{order.times}")),
        machine=old.machine,
        item_id=old.item_id,
        computer_name=old.computer_name,
        start_at=start_at,
    )
    return msgspec.structs.replace(
        old,
        request_id=wish.request_id,
        start_at=start_at,
        accepted_at=now,
        digest=digest_of(wish),
        outcome_to=None,
    )


async def replay(connection: Connection, site: str, orders: Sequence[Order]) -> list[Replay]:
    """Puts requests back in this order, and waits a few seconds for what becomes of them.

    Raises:
        nats.errors.Error, TimeoutError: the bus did not take one; those before it are replayed.
        CommandError: the bus did not keep the event that tells of one.
    """
    store = RequestStore(connection, site)
    events = EventLog(connection, site)
    heard: dict[str, Outcome] = {}
    all_heard = asyncio.Event()
    # Not the inbox of other answers: there, the scheduler may tell nobody anything unasked.
    inbox = f"{_HEARS}.{uuid.uuid4().hex}"

    async def hear(message: Msg) -> None:
        outcome = _outcome.decode(message.data)
        heard[outcome.request_id] = outcome
        if len(heard) == len(orders):
            all_heard.set()

    subscription = await connection.subscribe(f"{inbox}.*", cb=hear)
    try:
        await connection.flush()
        made = [await _put(store, events, order, inbox) for order in orders]
        # What has not been carried out by then is on disk, and will be.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await all_heard.wait()
    finally:
        await subscription.unsubscribe()
    return [
        Replay(
            request_id=order.kept.request.request_id,
            new_request_id=fresh.request_id,
            outcome=heard.get(fresh.request_id)
            or Outcome(request_id=fresh.request_id, state="accepted", start_at=fresh.start_at),
        )
        for order, fresh in zip(orders, made, strict=True)
    ]


async def _put(store: RequestStore, events: EventLog, order: Order, inbox: str) -> Request:
    fresh = renewed(order, datetime.now(UTC))
    fresh = msgspec.structs.replace(fresh, outcome_to=f"{inbox}.{fresh.request_id}")
    await store.put(fresh)
    await _tell(events, order, fresh)
    return fresh


async def _tell(events: EventLog, order: Order, fresh: Request) -> None:
    old = order.kept.request
    try:
        await events.record(
            "request_replayed",
            machine=order.kept.machine,
            of=fresh.request_id,
            operator=operator(),
            details={"request": old.request_id, "new_request": fresh.request_id},
        )
    except NotKeptError as error:
        raise CommandError(
            f"Request {old.request_id} is replayed as {fresh.request_id}, but the bus did not keep "
            "the event that tells of it."
        ) from error
