"""Requests as the bus keeps them: those that wait, the rejected ones, and what became of all.

A request waits in ``IMAGING_REQUESTS``, a rejected one stands whole in ``IMAGING_REJECTED``, and
what became of each is told by events. Read in this order they miss nothing: a request leaves its
stream only after its events have been kept.
"""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec
import nats.js.errors
from msgspec import Struct

from bus import subjects
from bus.connection import Connection
from bus.events import Event, Kind
from bus.keeping import WrongSequenceError, keep
from bus.machines import machine_key
from bus.messages import ComputerRef, Protection, Request, Time, decoder, encode
from bus.problems import Problem
from bus.pulling import pulled

RequestState = Literal["waiting", "scheduled", "rejected", "refused"]

TOLD_BY: Final[tuple[Kind, ...]] = (
    "request_accepted",
    "request_refused",
    "jobs_scheduled",
    "request_rejected",
    "request_replayed",
)
"""The kinds of events that say what became of a request."""

FIRST: Final = "Imaging-First"
"""The header of a request that found no other of its machine in the stream."""

_TIMEOUT: Final = 2.0
"""Seconds that the bus has to take a request."""
_BATCH: Final = 500
"""Messages that are taken at a time, at most."""

_request = decoder(Request)


class Kept(Struct, frozen=True):
    """A request in a stream, and when the stream took it."""

    request: Request
    machine: str
    at: datetime


class Stands(Struct, frozen=True):
    """Where a request stands in the stream, and whether it has just been put there."""

    sequence: int
    new: bool


class Found(Struct, frozen=True):
    """What a stream holds of a site: each request once, the oldest first, and how much is none."""

    requests: tuple[Kept, ...]
    unreadable: int


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a request; ``at`` is since when it is in its state.

    ``item_title`` is what the item was called in the menu when the request was accepted.
    ``computer_name`` is the name that was asked for, ``computer`` what it was carried out on,
    ``problem`` the code of why it was not.
    """

    request_id: str
    state: RequestState
    at: Time
    machine: str
    item_id: str
    item_title: str | None = None
    technician: str | None = None
    protection: Protection | None = None
    computer: ComputerRef | None = None
    computer_name: str | None = None
    accepted_at: Time | None = None
    start_at: Time | None = None
    jobs: int | None = None
    problem: str | None = None
    replay_of: str | None = None
    replayed_as: tuple[str, ...] = ()


class RequestStore:
    """The requests of a site."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
        self._stream = connection.jetstream()
        self._site = site

    async def waiting(self) -> Found:
        """Accepted requests that are still to be carried out.

        Raises:
            nats.errors.Error, TimeoutError: the bus keeps none, or does not answer.
        """
        subject, found = subjects.request(self._site), _Finding(self._site)
        # A work queue has one consumer only, the scheduler's; whoever looks asks for each message.
        seq = 1
        while True:
            try:
                message = await self._stream.get_msg(
                    subjects.REQUESTS, seq, subject=subject, next=True, direct=True
                )
            except nats.js.errors.NotFoundError:
                return found.all()
            found.add(message.subject or "", message.data or b"", message.time)
            seq = (message.seq or seq) + 1

    async def rejected(self, since: datetime | None = None) -> Found:
        """Rejected requests, whole: all that are kept, or those kept from a moment on.

        Raises:
            nats.errors.Error, TimeoutError: the bus keeps none, or does not answer.
        """
        subject, found = subjects.rejected(self._site), _Finding(self._site)
        async with pulled(self._connection, subjects.REJECTED, [subject], since=since) as pull:
            while pull.pending:
                for message in await pull.take(_BATCH):
                    found.add(message.subject, message.data, message.metadata.timestamp)
        return found.all()

    async def put(self, request: Request) -> "Stands":
        """Puts a request on disk, to be carried out, unless it stands there already.

        One that finds no other of its machine says so, and then nobody looks for one before it is
        carried out: those that come later stand behind it.

        Raises:
            nats.errors.Error, TimeoutError: the bus did not take it.
        """
        with contextlib.suppress(WrongSequenceError):
            return await self._put(request, after=0, headers={FIRST: "1"})
        return await self._put(request)

    async def _put(
        self, request: Request, after: int | None = None, headers: Mapping[str, str] | None = None
    ) -> "Stands":
        kept = await keep(
            self._connection,
            subjects.request(self._site, machine_key(request.machine)),
            encode(request),
            message_id=f"{self._site}.{request.request_id}",
            after=after,
            headers=headers,
            timeout=_TIMEOUT,
        )
        return Stands(kept.seq, new=not kept.duplicate)


class _Finding:
    """Gathers the requests of a site that a stream holds."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._found: dict[str, Kept] = {}
        self._unreadable = 0

    def add(self, subject: str, data: bytes, at: datetime | None) -> None:
        """Takes a message of the stream in."""
        if kept := self._kept(subject, data, at):
            # One that is delivered again after the duplicate window stands there twice.
            self._found.setdefault(kept.request.request_id, kept)
        else:
            self._unreadable += 1

    def all(self) -> Found:
        """What was found."""
        return Found(tuple(self._found.values()), self._unreadable)

    def _kept(self, subject: str, data: bytes, at: datetime | None) -> Kept | None:
        try:
            request = _request.decode(data)
            machine = machine_key(request.machine)
        except (ValueError, RecursionError, Problem):
            return None
        if request.site != self._site or machine != subjects.machine_of(subject):
            return None
        return Kept(request, machine, at or request.accepted_at)


def entries(
    waiting: Iterable[Kept], rejected: Iterable[Kept], events: Iterable[Event]
) -> list[Entry]:
    """What is known of each request from all that was read, in this order; the oldest ``at`` first.

    The events are those of `TOLD_BY`, in their own order.
    """
    known = {kept.request.request_id: _of_copy(kept, "waiting") for kept in waiting}
    known |= {kept.request.request_id: _of_copy(kept, "rejected") for kept in rejected}
    replays: list[tuple[str, str]] = []
    for event in events:
        request_id = text_of(event, "request")
        if request_id is None:
            continue
        if event.kind == "request_replayed":
            replays.append((request_id, text_of(event, "new_request") or ""))
        elif event.kind in TOLD_BY:
            known[request_id] = _told(event, request_id, known.get(request_id))
    for old, new in replays:
        if was := known.get(old):
            known[old] = msgspec.structs.replace(was, replayed_as=(*was.replayed_as, new))
        if made := known.get(new):
            known[new] = msgspec.structs.replace(made, replay_of=old)
    return sorted(known.values(), key=lambda entry: entry.at)


def newest_of_machines(known: Iterable[Entry]) -> set[str]:
    """The ids of each machine's newest request: to carry out an older one would undo it."""
    newest: dict[str, Entry] = {}
    for entry in known:
        was = newest.get(entry.machine)
        if entry.state != "refused" and (was is None or _asked(was) <= _asked(entry)):
            newest[entry.machine] = entry
    return {entry.request_id for entry in newest.values()}


def text_of(event: Event, detail: str) -> str | None:
    """A text among the details of an event."""
    value = event.details.get(detail)
    return value if isinstance(value, str) else None


def _asked(entry: Entry) -> datetime:
    return entry.accepted_at or entry.at


def _of_copy(kept: Kept, state: Literal["waiting", "rejected"]) -> Entry:
    request = kept.request
    return Entry(
        request_id=request.request_id,
        state=state,
        at=kept.at,
        machine=kept.machine,
        item_id=request.item_id,
        item_title=request.item_title,
        technician=request.technician,
        protection=request.protection,
        computer_name=request.computer_name,
        accepted_at=request.accepted_at,
        start_at=request.start_at,
    )


def _told(event: Event, request_id: str, known: Entry | None) -> Entry:
    """The entry of a request, from what was known and what an event tells."""
    entry = known or Entry(
        request_id=request_id,
        state="waiting",
        at=event.at,
        machine=event.machine,
        item_id=text_of(event, "item") or "",
        item_title=text_of(event, "title"),
        technician=event.technician,
    )
    problem = text_of(event, "problem")
    replace = msgspec.structs.replace
    match event.kind:
        case "request_accepted":
            return replace(
                entry,
                # It may have been refused before, and asked for once more.
                state="waiting" if entry.state == "refused" else entry.state,
                accepted_at=event.at,
                item_title=text_of(event, "title") or entry.item_title,
                computer_name=text_of(event, "name"),
                start_at=_moment(text_of(event, "start_at")),
            )
        case "request_refused" if entry.accepted_at is None:
            return replace(entry, state="refused", at=event.at, problem=problem)
        case "jobs_scheduled":
            jobs = event.details.get("jobs")
            return replace(
                entry,
                state="scheduled",
                at=event.at,
                computer=event.computer,
                jobs=jobs if isinstance(jobs, int) else None,
                problem=None,
            )
        case "request_rejected":
            at = entry.at if entry.state == "rejected" else event.at
            return replace(entry, state="rejected", at=at, problem=problem)
    return entry


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError):
        return None
