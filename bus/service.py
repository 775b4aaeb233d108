"""A service on the bus, by the NATS service protocol (ADR-32).

Any NATS tool lists it with name, version and statistics. Questions are answered side by side up to
a bound, and with ``overloaded`` beyond it. What goes wrong inside is logged; callers get a problem
of the catalogue. Leaving loses no question: first no new ones come, then the running ones end, then
all answers have reached the bus.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypedDict, TypeVar

import nats.errors
import structlog
from msgspec import Struct, field
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus import subjects
from bus.caller import Caller
from bus.connection import Connection
from bus.contract import Endpoint, FromMachine
from bus.machines import machine_key
from bus.messages import Details, encode
from bus.problems import Problem

Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")

LIMIT: Final = 2000
"""How many questions one copy of a service answers side by side."""
OF_EACH: Final = 100
"""How many of them are one machine's where nobody is trusted; a boot client asks one at a time."""
RETRY_AFTER: Final = 0.5
"""Seconds after which a caller that was turned away should ask again."""
LEAVE_TIMEOUT: Final = 20.0
"""Seconds that running questions get to end when the service leaves."""
LARGEST: Final = 64 * 1024
"""Bytes of a question: the bus's own limit is made for answers, which may be much larger."""
_CANCEL_TIMEOUT: Final = 1.0
"""Seconds that a refused question gets to clean up."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_BACKLOG: Final = 65_536
_INBOX: Final = subjects.inbox("")
_ASTRAY: Final = "answer_astray"
"""What statistics call a question whose answer would go elsewhere than to its machine."""
_TOLD_EVERY: Final = 60.0
"""Seconds between two lines about questions whose answers would go astray."""
_OVERLOADED: Final = Problem("overloaded", details=Details(retry_after=RETRY_AFTER))
_NOT_UNDERSTOOD: Final = Problem("bad_request")
_OTHER_MACHINE: Final = Problem(
    "bad_machine", "The request speaks for another machine than its subject."
)
_FAILED: Final = Problem("internal_error")

Observer = Callable[[str, str | None, float], None]
"""Told of each question once: its endpoint, the code of the problem or None, and the seconds."""


class Answer(Struct, frozen=True):
    """An answer on the wire, with headers."""

    data: bytes
    headers: dict[str, str]

    def wire(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers."""
        return self.data, self.headers


Handler = Callable[[Asked, Caller], Awaitable[Answered | Answer | bytes]]
"""Answers a question of a caller; bytes are an answer on the wire."""
AtOnce = Callable[[Asked, Caller], Answer | bytes | None]
"""Answers a question of a caller, or says None where that takes its time."""


class EndpointStats(Struct, kw_only=True):
    """What ADR-32 reports of one endpoint; times in nanoseconds."""

    name: str
    subject: str
    queue_group: str
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0
    average_processing_time: int = 0


class EndpointInfo(Struct, kw_only=True):
    """What ADR-32 tells of one endpoint."""

    name: str
    subject: str
    queue_group: str
    metadata: dict[str, str] = field(default_factory=dict)


class Who(TypedDict):
    """Who answers, in each of the three ADR-32 replies."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]


class Ping(Struct, kw_only=True):
    """The reply to ``$SRV.PING``."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    type: str = "io.nats.micro.v1.ping_response"


class Info(Struct, kw_only=True):
    """The reply to ``$SRV.INFO``."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    description: str
    endpoints: list[EndpointInfo]
    type: str = "io.nats.micro.v1.info_response"


class Stats(Struct, kw_only=True):
    """The reply to ``$SRV.STATS``."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    started: datetime
    endpoints: list[EndpointStats]
    type: str = "io.nats.micro.v1.stats_response"


class Service:
    """One copy of a service: its endpoints, its statistics, its way in and out."""

    def __init__(
        self,
        connection: Connection,
        *,
        site: str,
        name: str,
        version: str,
        description: str,
        limit: int = LIMIT,
        detailed: Callable[[], bool] = lambda: False,
        observe: Observer = lambda _endpoint, _code, _seconds: None,
        strict: bool = False,
    ) -> None:
        """Makes a copy that is not on the bus yet.

        ``limit`` bounds the questions answered side by side; while ``detailed`` says so, each
        question is logged; ``observe`` is told of each one that has been answered. With ``strict``
        an answer goes to the inbox of the machine that asks, or nowhere: else whoever may ask could
        have the service write to any subject that it may write to itself. And none has more than
        its part of the bound.
        """
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no service name (ADR-32: letters, digits, _ and -)")
        self.id: Final = secrets.token_hex(11)
        self._connection = connection
        self._site = site
        self._name = name
        self._version = version
        self._description = description
        self._limit = limit
        self._detailed = detailed
        self._observe = observe
        self._strict = strict
        self._astray = 0
        self._astray_told_at = -_TOLD_EVERY
        self._started = datetime.now(UTC)
        self._stats: list[EndpointStats] = []
        self._receivers: list[tuple[str, Callable[[Msg], Coroutine[None, None, None]]]] = []
        self._asked: list[Subscription] = []
        self._watched: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()
        self._of_each: defaultdict[str, int] = defaultdict(int)
        self._log = structlog.get_logger(name).bind(site=site, service=name, instance=self.id)

    @property
    def running(self) -> int:
        """How many questions are being answered now."""
        return len(self._running)

    def serve(
        self,
        endpoint: Endpoint[Asked, Answered],
        handler: Handler[Asked, Answered],
        at_once: AtOnce[Asked] | None = None,
    ) -> None:
        """Answers ``endpoint`` with ``handler`` once the service has started.

        What ``at_once`` answers is not asked of ``handler``: a question for which nothing must be
        waited for costs a third without a task of its own.
        """
        subject = subjects.endpoint(endpoint.site or self._site, self._name, endpoint.verb)
        strict, place = self._strict, len(subject) - 1
        stats = EndpointStats(name=endpoint.verb, subject=subject, queue_group=self._name)
        self._stats.append(stats)

        async def receive(message: Msg) -> None:
            if not message.reply:
                return
            stats.num_requests += 1
            # Whoever asks on another machine's subject is the bus's affair; this one is ours.
            if strict and not message.reply.startswith(f"{_INBOX}{message.subject[place:]}."):
                self._goes_astray(stats, message)
                return
            began = time.perf_counter_ns()
            question = self._question(endpoint, message)
            if isinstance(question, Problem):
                answer: Answer | bytes | Problem = question
            elif at_once and (ready := self._ready(at_once, question)) is not None:
                answer = ready
            elif self._has_enough(question[1].machine):
                answer = _OVERLOADED
            else:
                machine = question[1].machine
                work = self._handle(handler, question, stats, message, began)
                task = asyncio.create_task(work)
                self._running.add(task)
                self._of_each[machine] += 1
                task.add_done_callback(partial(self._ended, machine))
                return
            await self._answer(stats, message, began, answer)

        self._receivers.append((subject, receive))

    async def start(self) -> None:
        """Comes on the bus; returns when the server routes to this copy."""
        for subject, receive in self._receivers:
            self._asked.append(
                await self._connection.subscribe(
                    subject, queue=self._name, cb=receive, pending_msgs_limit=_BACKLOG
                )
            )
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._report)):
            for suffix in ("", f".{self._name}", f".{self._name}.{self.id}"):
                self._watched.append(
                    await self._connection.subscribe(f"$SRV.{verb}{suffix}", cb=answer)
                )
        await self._connection.flush()

    async def leave(self, timeout: float = LEAVE_TIMEOUT) -> None:  # noqa: ASYNC109
        """Leaves the bus without losing a question; what still runs at the time-out is refused."""
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        try:
            if self._connection.is_connected:
                async with asyncio.timeout_at(end):
                    leaving = (each.drain() for each in self._asked + self._watched)  # type: ignore[no-untyped-call]
                    await asyncio.gather(*leaving)
        except (nats.errors.Error, TimeoutError) as error:
            # The line has gone down meanwhile, so that no question comes any more.
            self._log.warning("the bus could not be told", error=type(error).__name__)
        if self._running:
            await asyncio.wait(self._running, timeout=max(0.0, end - clock()))
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_CANCEL_TIMEOUT)
        if self._connection.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self._connection.flush()

    def _has_enough(self, machine: str) -> bool:
        """Whether this is not the time for one more question of this machine."""
        if len(self._running) >= self._limit:
            return True
        return self._strict and self._of_each.get(machine, 0) >= OF_EACH

    def _ended(self, machine: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._of_each[machine] -= 1
        if not self._of_each[machine]:
            del self._of_each[machine]

    def _question(
        self, endpoint: Endpoint[Asked, Answered], message: Msg
    ) -> tuple[Asked, Caller] | Problem:
        """What is asked and by whom, or why that is no question."""
        if len(message.data) > LARGEST:
            return _NOT_UNDERSTOOD
        try:
            asked = endpoint.asked_decoder.decode(message.data)
            machine = machine_key(asked.machine)
        except (ValueError, RecursionError):
            return _NOT_UNDERSTOOD
        except Problem as problem:
            return problem
        if machine != subjects.machine_of(message.subject):
            return _OTHER_MACHINE
        return asked, Caller(machine, message.headers)

    def _goes_astray(self, stats: EndpointStats, message: Msg) -> None:
        self._astray += 1
        stats.num_errors += 1
        stats.last_error = _ASTRAY
        self._observe(stats.name, _ASTRAY, 0.0)
        now = time.monotonic()
        if now - self._astray_told_at >= _TOLD_EVERY:
            self._astray_told_at = now
            self._log.warning(
                "a question asks for its answer to go elsewhere",
                endpoint=stats.name,
                machine=subjects.machine_of(message.subject),
                so_far=self._astray,
            )

    def _ready(
        self, at_once: AtOnce[Asked], question: tuple[Asked, Caller]
    ) -> Answer | bytes | Problem | None:
        try:
            return at_once(*question)
        except Exception:  # noqa: BLE001 (whatever it raises, the caller gets a problem)
            self._log.exception("an endpoint failed")
            return _FAILED

    async def _handle(
        self,
        handler: Handler[Asked, Answered],
        question: tuple[Asked, Caller],
        stats: EndpointStats,
        message: Msg,
        began: int,
    ) -> None:
        answer: Answer | bytes | Problem
        try:
            found = await handler(*question)
            answer = found if isinstance(found, Answer | bytes) else encode(found)
        except Problem as problem:
            answer = problem
        except asyncio.CancelledError:
            answer = _OVERLOADED
        except Exception:  # noqa: BLE001 (whatever a handler raises, the caller gets a problem)
            self._log.exception("an endpoint failed", endpoint=stats.name)
            answer = _FAILED
        await self._answer(stats, message, began, answer)

    async def _answer(
        self, stats: EndpointStats, message: Msg, began: int, answer: Answer | bytes | Problem
    ) -> None:
        """Sends an answer, which is counted and told of."""
        took = time.perf_counter_ns() - began
        data, headers = (answer, None) if isinstance(answer, bytes) else answer.wire()
        if len(data) > self._connection.max_payload:
            self._log.error("an answer is larger than the bus carries", size=len(data))
            answer = _FAILED
            data, headers = answer.wire()
        code = None
        if isinstance(answer, Problem):
            code = stats.last_error = answer.code
            stats.num_errors += 1
        stats.processing_time += took
        self._observe(stats.name, code, took / 1e9)
        # Asked first, since even a line that is dropped costs more than reading a question.
        if self._detailed():
            self._log.debug(
                "a question was answered",
                endpoint=stats.name,
                machine=subjects.machine_of(message.subject),
                problem=code,
                size=len(data),
                milliseconds=round(took / 1e6, 2),
            )
        try:
            await self._connection.answer(message, data, headers)
        except nats.errors.Error as error:
            # The line is down: the caller asks again.
            self._log.warning("an answer could not be sent", error=type(error).__name__)

    async def _ping(self, message: Msg) -> None:
        await message.respond(encode(Ping(**self._who())))

    async def _info(self, message: Msg) -> None:
        endpoints = [
            EndpointInfo(name=each.name, subject=each.subject, queue_group=each.queue_group)
            for each in self._stats
        ]
        info = Info(**self._who(), description=self._description, endpoints=endpoints)
        await message.respond(encode(info))

    async def _report(self, message: Msg) -> None:
        for each in self._stats:
            each.average_processing_time = each.processing_time // max(1, each.num_requests)
        await message.respond(
            encode(Stats(**self._who(), started=self._started, endpoints=self._stats))
        )

    def _who(self) -> Who:
        return {
            "name": self._name,
            "id": self.id,
            "version": self._version,
            "metadata": {"site": self._site, "contract": str(subjects.VERSION)},
        }
