"""Takes requests from the stream and sees each through to its outcome, whatever dies."""

import asyncio
import contextlib
import hashlib
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from bus import subjects
from bus.connection import backoff
from bus.events import EventLog, NotKeptError
from bus.keeping import keep
from bus.machines import machine_key
from bus.messages import Outcome, Request, decoder, encode
from bus.problems import RETRIABLE, Problem
from bus.pulling import Puller, numbers, pulling
from bus.request_store import FIRST
from bus.waiting import end, unless
from engine.errors import Conflict
from engine.orders import Order
from engine.protocol import Orders
from services.admission import Admission
from services.running import Site
from services.scheduler.failures import Failures
from services.scheduler.telling import Teller, last_kept

WORKERS: Final = 128
"""Requests that one copy sees through side by side: carried out, told of, acknowledged."""
ACK_WAIT: Final = 10.0
"""Seconds after which a request whose carrier fell silent is given to another."""
_PULL: Final = 30.0
_TURN: Final = 0.2
"""Seconds that a request waits while an earlier one of its machine is under way."""
_LONGEST_WAIT: Final = 30.0
_BUGGED: Final = 8
"""Failures for no known reason after which a request is rejected."""

_request = decoder(Request)


class Carrier:
    """Carries requests out until it is stopped."""

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
        self._teller = Teller(site.connection, site.name, events)
        self._stream: JetStreamContext = site.connection.jetstream()
        self._working: asyncio.Task[None] | None = None
        self._under_way: dict[asyncio.Task[None], Msg] = {}
        self._freed = asyncio.Event()
        self._attempt = 0
        self._bugs = Failures()
        self._delays = Failures()
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("scheduler").bind(site=site.name)

    async def start(self) -> None:
        """Begins to take requests."""
        await self._stream.add_consumer(
            subjects.REQUESTS,
            ConsumerConfig(
                durable_name=subjects.carrier(self._site.name),
                filter_subject=subjects.request(self._site.name),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT,
                max_deliver=-1,
            ),
        )
        self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Takes no more requests and ends those under way."""
        self._stopping.set()
        if self._working:
            await self._working

    async def _work(self) -> None:
        beating = asyncio.create_task(self._beat())
        while not self._stopping.is_set():
            try:
                consumer = subjects.carrier(self._site.name)
                async with pulling(self._site.connection, subjects.REQUESTS, consumer) as puller:
                    await unless(self._stopping, self._take(puller))
                    for message in await puller.leave():
                        await message.nak()
            except (nats.errors.Error, TimeoutError) as error:
                self._log.warning("requests cannot be taken", error=type(error).__name__)
                await unless(self._stopping, asyncio.sleep(backoff(self._attempt)))
                self._attempt += 1
        if self._under_way:
            await asyncio.wait(self._under_way)
        await end(beating)

    async def _take(self, puller: Puller) -> None:
        while True:
            while len(self._under_way) >= WORKERS:
                self._freed.clear()
                await self._freed.wait()
            for message in await puller.take(WORKERS - len(self._under_way), _PULL):
                task = asyncio.create_task(self._see_through(message))
                self._under_way[task] = message
                task.add_done_callback(self._seen_through)
            self._attempt = 0

    def _seen_through(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._freed.set()

    async def _beat(self) -> None:
        """Tells the stream of all requests under way that they are still being carried out."""
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            for message in list(self._under_way.values()):
                with contextlib.suppress(nats.errors.Error, TimeoutError):
                    await message.in_progress()

    async def _see_through(self, message: Msg) -> None:
        told = numbers(message)
        delay: float | None = None
        failed = True
        try:
            delay = await self._attend(message)
            failed = False
        except Conflict:
            delay, failed = _TURN, False
        except Problem as problem:
            self._log.warning("a request waits", subject=message.subject, why=str(problem))
        except (nats.errors.Error, NotKeptError, TimeoutError) as error:
            self._log.warning("a request waits", subject=message.subject, why=type(error).__name__)
        except Exception:  # noqa: BLE001 (the request is delivered again, whatever went wrong)
            self._log.exception("a request failed", delivery=told.delivered)
        if failed:
            delay = self._pause(told.stream)
        elif delay is None:
            self._delays.forget(told.stream)
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            if delay is None:
                await message.ack()
            else:
                await message.nak(delay=delay)

    def _pause(self, number: int) -> float:
        """Seconds that a request waits after an attempt that failed, longer each time."""
        return min(_LONGEST_WAIT, 0.5 * 2.0 ** min(self._delays.add(number), 8))

    async def _attend(self, message: Msg) -> float | None:
        """Sees a request through; None when that is done, else the seconds to wait.

        Raises:
            Problem, Conflict, NotKeptError, nats.errors.Error: it can be carried out later.
        """
        request = _read(message)
        if request is None:
            self._log.error("a request cannot be read", subject=message.subject)
            await self._keep_rejected(message)
            return None
        with structlog.contextvars.bound_contextvars(
            machine=subjects.machine_of(message.subject), request=request.request_id
        ):
            return await self._attend_to(message, request)

    async def _attend_to(self, message: Msg, request: Request) -> float | None:
        if not await self._is_first(message):
            self._log.debug("a request waits for an earlier one of its machine")
            return _TURN
        delivered = numbers(message).delivered
        self._log.debug("a request is taken", delivery=delivered)
        again = delivered > 1
        # Told beside it: the bus has it first, and neither the database nor who asked need wait.
        telling = asyncio.create_task(self._teller.accepted(request, again=again))
        try:
            outcome = await self._carry_out(message, request)
            self._log.info(
                "request done",
                state=outcome.state,
                computer=outcome.computer.name if outcome.computer else None,
                jobs=len(outcome.jobs),
                problem=outcome.problem.code if outcome.problem else None,
            )
            if outcome.state == "rejected":
                await self._keep_rejected(message)
            if request.outcome_to:
                await self._site.connection.publish(request.outcome_to, encode(outcome))
        finally:
            await asyncio.wait({telling})
            telling.exception()  # or asyncio complains that nobody has looked at it
        telling.result()
        await self._teller.ended(request, outcome, again=again)
        return None

    async def _carry_out(self, message: Msg, request: Request) -> Outcome:
        number = numbers(message).stream
        try:
            # By the rules as they are now, not as they were when it was accepted.
            rights = self._admission.rights(request.protection, request.technician)
            order = Order(request, self._site.options.current, rights)
            outcome = await self._orders.carry_out(order)
        except Conflict:
            raise
        except Problem as problem:
            if problem.code in RETRIABLE:
                raise
            outcome = await self._orders.reject(request, problem)
        except Exception:
            if self._bugs.add(number) < _BUGGED:
                raise
            self._log.exception("a request cannot be carried out")
            outcome = await self._orders.reject(request, Problem("internal_error"))
        self._bugs.forget(number)
        return outcome

    async def _keep_rejected(self, message: Msg) -> None:
        """Keeps a request for replay, once, however often it is delivered."""
        subject = subjects.rejected(self._site.name, subjects.machine_of(message.subject))
        again = numbers(message).delivered > 1
        # The stream itself knows for an hour what it was sent.
        if again and await last_kept(self._stream, subjects.REJECTED, subject) == message.data:
            return
        message_id = hashlib.sha256(message.data).hexdigest()
        await keep(self._site.connection, subject, message.data, message_id=message_id)

    async def _is_first(self, message: Msg) -> bool:
        """Whether no earlier request of the same machine is still to be carried out."""
        if message.headers and FIRST in message.headers:
            return True
        try:
            first = await self._stream.get_msg(
                subjects.REQUESTS, 1, subject=message.subject, next=True, direct=True
            )
        except nats.js.errors.NotFoundError:
            return True
        return first.seq == numbers(message).stream


def _read(message: Msg) -> Request | None:
    """The request, None for what is none or speaks for another machine than its subject."""
    try:
        request = _request.decode(message.data)
        machine = machine_key(request.machine)
    except (ValueError, RecursionError, Problem):
        return None
    return request if machine == subjects.machine_of(message.subject) else None
