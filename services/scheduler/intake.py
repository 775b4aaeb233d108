"""Takes requests in: what can be refused is refused at once, the rest is kept before it is done."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from bus import subjects
from bus.access import Rights
from bus.caller import Caller
from bus.events import EventLog, NotKeptError
from bus.messages import AskStatus, Details, Outcome, Request, Schedule, decoder, encode
from bus.problems import RETRIABLE, Problem
from bus.request_store import RequestStore
from bus.service import RETRY_AFTER
from engine.orders import Order, Possible, Record, outcome_of
from engine.protocol import Orders
from services.admission import Admission
from services.patience import PATIENCE, within
from services.running import Site

WAIT: Final = 2.0
"""Seconds that an answer waits for the outcome before it says ``accepted``."""
_MOST_WAITING: Final = 1000
"""Requests whose outcomes are waited for; beyond it, who asks for one is told at once."""
_LOOK_AGAIN: Final = 0.2
"""Seconds between two looks at a request that somebody else waits for already."""

_outcome = decoder(Outcome)
_request = decoder(Request)


class Intake:
    """What the scheduler answers."""

    def __init__(
        self,
        site: Site,
        orders: Orders,
        admission: Admission,
        events: EventLog,
    ) -> None:
        self._site = site
        self._orders = orders
        self._admission = admission
        self._events = events
        self._stream: JetStreamContext = site.connection.jetstream()
        self._requests = RequestStore(site.connection, site.name)
        self._inbox = site.connection.new_inbox()
        self._waiting: dict[str, set[asyncio.Future[Outcome]]] = {}
        self._log = structlog.get_logger("scheduler").bind(site=site.name)

    async def start(self) -> None:
        """Listens for outcomes; whoever carries a request out tells the copy that took it in."""
        await self._site.connection.subscribe(f"{self._inbox}.*", cb=self._told)

    async def schedule(self, asked: Schedule, caller: Caller) -> Outcome:
        """Takes a request in and waits a moment for what becomes of it.

        Raises:
            Problem: what can be refused at once; nothing is kept of such a request but an event.
        """
        structlog.contextvars.bind_contextvars(request=asked.request_id)
        machine = caller.machine
        give_up = time.monotonic() + WAIT
        admitted = await self._admission.admit(asked.token, machine)
        now = datetime.now(UTC)
        digest = digest_of(asked)
        try:
            judged = await self._record_or_judgement(asked, machine, admitted.rights, now)
        except Problem as problem:
            await self._tell_refused(asked, machine, admitted.name, problem)
            raise
        if isinstance(judged, Record):
            return _same(judged, machine, digest)
        request = Request(
            request_id=asked.request_id,
            site=self._site.name,
            machine=asked.machine,
            item_id=asked.item_id,
            accepted_at=now,
            digest=digest,
            computer_name=asked.computer_name,
            start_at=asked.start_at,
            technician=admitted.name,
            protection=admitted.protection,
            outcome_to=f"{self._inbox}.{asked.request_id}",
            item_title=judged.title if judged else None,
        )
        return await self._keep_and_wait(request, machine, give_up)

    async def status(self, asked: AskStatus, caller: Caller) -> Outcome:
        """What has become of a request of this machine.

        Raises:
            Problem: ``unknown_request``, also for another machine's.
        """
        if not asked.wait or len(self._waiting) >= _MOST_WAITING:
            return await self._found(asked.request_id, caller.machine)
        with self._listening(asked.request_id) as told:
            outcome = await self._found(asked.request_id, caller.machine)
            if outcome.state == "accepted":
                # If another copy is told of it, the next question finds it.
                await asyncio.wait({told}, timeout=WAIT)
            return told.result() if told.done() else outcome

    async def _found(self, request_id: str, machine: str) -> Outcome:
        try:
            # What is neither done nor waiting may have been done between the two looks.
            for look in (self._recorded, self._kept, self._recorded):
                outcome = await look(request_id, machine)
                if outcome:
                    return outcome
        except Problem:
            kept = await self._kept(request_id, machine)
            if kept is None:
                raise
            return kept
        raise Problem("unknown_request")

    async def _record_or_judgement(
        self, asked: Schedule, machine: str, rights: Rights, now: datetime
    ) -> Record | Possible | None:
        """The record of a request that is done; whether a new one may be kept; None if one is.

        Raises:
            Problem: why a new request is refused.
        """
        try:
            return await self._judge(asked, rights, now)
        except Problem as problem:
            # What is kept already is carried out or rejected, but not refused any more.
            if await self._kept(asked.request_id, machine):
                return None
            # What is not kept may have been done while it was judged.
            if problem.code not in RETRIABLE:
                record = await self._record_of(asked.request_id)
                if record:
                    return record
            raise

    async def _judge(self, asked: Schedule, rights: Rights, now: datetime) -> Record | Possible:
        """The record of a request that is done, or that nothing is against another."""
        if asked.start_at is not None and asked.start_at <= now:
            raise Problem("bad_request", "The time to start at has passed already.")
        async with within(PATIENCE):
            return await self._orders.judge(Order(asked, self._site.options.current, rights))

    async def _tell_refused(
        self, asked: Schedule, machine: str, technician: str | None, problem: Problem
    ) -> None:
        if problem.code in RETRIABLE:
            return
        self._log.info("a request is refused", machine=machine, problem=problem.code)
        with contextlib.suppress(NotKeptError):
            await self._events.record(
                "request_refused",
                machine=machine,
                technician=technician,
                details={
                    "request": asked.request_id,
                    "item": asked.item_id,
                    "problem": problem.code,
                },
            )

    async def _keep_and_wait(self, request: Request, machine: str, give_up: float) -> Outcome:
        with self._listening(request.request_id) as told:
            first = await self._keep(request)
            while (left := give_up - time.monotonic()) > 0:
                # Of a request that was sent before, another copy may be told: look at its record.
                pause = left if first else min(left, _LOOK_AGAIN)
                await asyncio.wait({told}, timeout=pause)
                if told.done():
                    return told.result()
                record = None
                if not first:
                    # It is kept, whether the deployment server can be asked or not.
                    with contextlib.suppress(Problem):
                        async with within(left):
                            record = await self._record_of(request.request_id)
                if record:
                    return _same(record, machine, request.digest)
        return Outcome(request_id=request.request_id, state="accepted", start_at=request.start_at)

    @contextlib.contextmanager
    def _listening(self, request_id: str) -> Iterator[asyncio.Future[Outcome]]:
        """A future of the outcome, if this copy is told of it meanwhile."""
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(request_id, set())
        waiting.add(told)
        try:
            yield told
        finally:
            waiting.discard(told)
            if not waiting:
                self._waiting.pop(request_id, None)

    async def _keep(self, request: Request) -> bool:
        """Puts the request on disk; False if it stands there already."""
        try:
            async with asyncio.timeout(WAIT):
                stands = await self._requests.put(request)
            if stands.new:
                return True
            first = await self._stream.get_msg(subjects.REQUESTS, stands.sequence, direct=True)
        except nats.js.errors.NotFoundError:
            return False
        except (nats.errors.Error, TimeoutError) as error:
            self._log.warning("a request cannot be kept", error=type(error).__name__)
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER)) from error
        if _request.decode(first.data or b"").digest != request.digest:
            raise Problem("request_conflict")
        return False

    async def _record_of(self, request_id: str) -> Record | None:
        async with within(PATIENCE):
            return await self._orders.record(request_id)

    async def _recorded(self, request_id: str, machine: str) -> Outcome | None:
        record = await self._record_of(request_id)
        return outcome_of(record) if record and record.machine == machine else None

    async def _kept(self, request_id: str, machine: str) -> Outcome | None:
        """The request if it waits in the stream: a machine has few there, so they are read."""
        seq = 1
        try:
            while True:
                message = await self._stream.get_msg(
                    subjects.REQUESTS,
                    seq,
                    subject=subjects.request(self._site.name, machine),
                    next=True,
                    direct=True,
                )
                # What cannot be read is set aside by the carrier.
                with contextlib.suppress(ValueError):
                    request = _request.decode(message.data or b"")
                    if request.request_id == request_id:
                        return Outcome(
                            request_id=request_id, state="accepted", start_at=request.start_at
                        )
                seq = (message.seq or seq) + 1
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER)) from error

    async def _told(self, message: Msg) -> None:
        outcome = _outcome.decode(message.data)
        for waiting in self._waiting.get(outcome.request_id, ()):
            if not waiting.done():
                waiting.set_result(outcome)


def digest_of(asked: Schedule) -> str:
    """What makes two requests the same: all of the body but the token, which may be renewed."""
    body = encode(
        (asked.request_id, asked.machine, asked.item_id, asked.computer_name, asked.start_at)
    )
    return hashlib.sha256(body).hexdigest()


def _same(record: Record, machine: str, digest: str) -> Outcome:
    if record.machine != machine or record.digest != digest:
        raise Problem("request_conflict")
    return outcome_of(record)
