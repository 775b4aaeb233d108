"""Taking messages from a stream: many at a time, and next to nothing while there are none.

nats-py's own ``fetch`` makes a task and a time-out for each message and asks the bus twice each
time. Here one request stands at the bus for long, however often somebody looks for what has come.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

_WAIT: Final = 1.0
"""Seconds that one pull waits for a new message."""
_TIMEOUT: Final = 5.0
_FORGOTTEN: Final = 300.0
"""Seconds after which the bus drops the consumer of a reader that is gone."""
_NEXT: Final = "$JS.API.CONSUMER.MSG.NEXT"
_STANDING: Final = 30.0
"""Seconds that a request for messages stands at the bus."""
_HEARTBEAT: Final = 5.0
"""Seconds after which the bus shows that it still knows of a request, if nothing else comes."""
_SILENCE: Final = 2 * _HEARTBEAT + 1
_LOOK: Final = 0.25
"""Seconds between looks at the line by one who waits; that costs the bus nothing."""
_PENDING: Final = "Nats-Pending-Messages"


class LostError(nats.errors.Error):
    """What was on its way may be lost, since the line broke; it still stands in the stream."""


class RefusedError(nats.errors.Error):
    """The bus gives no messages now: the consumer is gone, or moves, or the bus shuts down."""


class Numbers(NamedTuple):
    """What the bus says of a message that it delivers."""

    delivered: int
    """How often it has been delivered by now."""
    stream: int
    """Its sequence in the stream."""
    consumer: int
    """How many deliveries of the consumer it was."""
    nanoseconds: int
    """When the stream took it, since 1970."""
    pending: int
    """How many messages stand behind it."""


def numbers(message: Msg) -> Numbers:
    """The numbers of a message that came from a stream; nats-py takes long to tell them."""
    tokens = message.reply.split(".")
    # "$JS.ACK", in a domain also its name and the account, the stream and the consumer.
    first = 4 if len(tokens) < 11 else 6
    return Numbers(*map(int, tokens[first : first + 5]))


@asynccontextmanager
async def pulling(connection: Client, stream: str, consumer: str) -> AsyncGenerator["Puller"]:
    """Takes messages of a consumer that there is.

    What was delivered and not taken when this ends is delivered again, if the consumer wants
    acknowledgements.
    """
    puller = Puller(connection, stream, consumer)
    try:
        yield puller
    finally:
        await puller.close()


class Puller:
    """Takes messages of one consumer, in their order.

    After any error it can be asked again: it begins anew, with an inbox of its own, so that what
    it asked for before that is void.
    """

    def __init__(self, connection: Client, stream: str, consumer: str) -> None:
        self._connection = connection
        self._subject = f"{_NEXT}.{stream}.{consumer}"
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._came: deque[Msg] = deque()
        self._outstanding = 0
        self._line = -1
        """Which of the connection's lines was asked."""
        self._heard = 0.0
        self._failure: nats.errors.Error | None = None
        self._something = asyncio.Event()

    async def take(self, most: int, wait: float) -> list[Msg]:
        """All that has come, so many messages at most; none if none comes within ``wait`` seconds.

        It asks for no more than make ``most`` with those that it has asked for and not yet given.
        So who does no more than so much at a time asks for what he is free to do: these and those
        on their way are never more.

        Raises:
            LostError: the line is or was down, or the bus is silent.
            RefusedError: the bus gives none.
            nats.errors.Error: the line is down.
        """
        until = asyncio.get_running_loop().time() + wait
        while not self._came:
            self._something.clear()
            await self._ask(most)
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK)):
                    await self._something.wait()
        return [self._came.popleft() for _ in range(min(most, len(self._came)))]

    async def leave(self) -> list[Msg]:
        """Asks for nothing more; what had come by then and was not taken, to be handed back.

        Raises:
            nats.errors.Error, TimeoutError: the line is down.
        """
        subscription, self._subscription = self._subscription, None
        self._outstanding = 0
        if subscription and self._connection.is_connected:
            await subscription.drain()  # type: ignore[no-untyped-call]
        left = list(self._came)
        self._came.clear()
        return left

    async def close(self) -> None:
        """Asks for nothing more."""
        subscription, self._subscription = self._subscription, None
        self._outstanding = 0
        if subscription:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def _ask(self, most: int) -> None:
        if failure := self._trouble():
            self._failure = None
            await self.close()
            raise failure
        if self._subscription is None or self._line != self._connection.stats["reconnects"]:
            await self._begin()
        # Not for each one that is given out: half of them may go before it asks for more.
        if self._outstanding > most // 2 or not most:
            return
        wanted = most - self._outstanding
        question = {
            "batch": wanted,
            "expires": _nanoseconds(_STANDING),
            "idle_heartbeat": _nanoseconds(_HEARTBEAT),
        }
        if not self._outstanding:
            self._hear()
        self._outstanding += wanted
        await self._connection.publish(
            self._subject, msgspec.json.encode(question), reply=self._inbox
        )

    def _trouble(self) -> nats.errors.Error | None:
        if not self._connection.is_connected:
            return LostError("the line to the bus is down")
        if self._failure:
            return self._failure
        silent = asyncio.get_running_loop().time() - self._heard > _SILENCE
        if silent and self._outstanding and self._line == self._connection.stats["reconnects"]:
            return LostError("the bus is silent")
        return None

    async def _begin(self) -> None:
        await self.close()
        self._line = self._connection.stats["reconnects"]
        self._inbox = self._connection.new_inbox()
        self._subscription = await self._connection.subscribe(self._inbox, cb=self._take_in)

    async def _take_in(self, message: Msg) -> None:
        self._hear()
        if message.reply:
            self._outstanding -= 1
            self._came.append(message)
            self._something.set()
            return
        headers = message.headers or {}
        status, left = headers.get("Status", ""), headers.get(_PENDING, "")
        if status in {"404", "408"} and left.isdigit():
            self._outstanding -= int(left)
            self._something.set()
        elif status != "100":
            self._failure = RefusedError(f"{status} {headers.get('Description', '')}".strip())
            self._something.set()

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()


def _nanoseconds(seconds: float) -> int:
    return math.floor(seconds * 1e9)


@asynccontextmanager
async def pulled(
    connection: Client,
    name: str,
    subjects: Sequence[str],
    *,
    after: int = 0,
    since: datetime | None = None,
) -> AsyncGenerator["Pull"]:
    """Reads messages in their order, from behind a place or from a moment on; acknowledges none.

    One subject costs the server far less than several: it looks at each message for all of them.

    Raises:
        nats.errors.Error: there is no such stream, or the line is down.
        TimeoutError: the bus does not answer.
    """
    config = ConsumerConfig(
        filter_subjects=list(subjects),
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_FORGOTTEN,
        mem_storage=True,
        num_replicas=1,
    )
    if since is not None:
        config = config.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)
    elif after:
        config = config.evolve(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
        )
    stream = connection.jetstream()
    line = connection.stats["reconnects"]
    made = await stream.add_consumer(name, config)
    try:
        async with pulling(connection, name, made.name) as puller:
            yield Pull(stream, made, puller, lambda: connection.stats["reconnects"] == line)
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await stream.delete_consumer(name, made.name)


class Pull:
    """The messages of a stream that somebody reads."""

    def __init__(
        self,
        stream: JetStreamContext,
        made: ConsumerInfo,
        puller: Puller,
        whole: Callable[[], bool],
    ) -> None:
        """Takes what says whether the line has held since the consumer was made."""
        self.pending = made.num_pending or 0
        """How many messages are known to stand behind those that were taken."""
        self._stream = stream
        self._made = made
        self._puller = puller
        self._whole = whole
        self._taken = 0

    async def take(self, most: int, wait: float = _WAIT) -> list[Msg]:
        """The next messages, so many at most; none if nothing new comes within ``wait`` seconds.

        Raises:
            LostError: one was lost on its way; read anew from behind the last.
            nats.errors.Error, TimeoutError: the stream cannot be read any more.
        """
        found = await self._next(most, wait)
        if not found and self.pending and await self._sent() > self._taken:
            found = await self._next(most, wait)
            if not found:
                raise LostError
        if found:
            self._taken += len(found)
            last = numbers(found[-1])
            if last.consumer != self._taken:
                raise LostError
            self.pending = last.pending
        return found

    async def _next(self, most: int, wait: float) -> list[Msg]:
        # What was under way to a line that broke is not sent again.
        if not self._whole():
            raise LostError
        return await self._puller.take(most, wait)

    async def _sent(self) -> int:
        """How many messages the bus has sent; what was pending may be too old by now."""
        info = await self._stream.consumer_info(self._made.stream_name, self._made.name)
        sent = info.delivered.consumer_seq if info.delivered else 0
        self.pending = (info.num_pending or 0) + sent - self._taken
        return sent


async def first_since(connection: Client, name: str, subject: str, moment: datetime) -> int | None:
    """The sequence of the first message kept at a moment or later, None when there is none.

    Raises:
        nats.errors.Error: there is no such stream, or the line is down.
        TimeoutError: the bus does not answer.
    """
    async with pulled(connection, name, [subject], since=moment) as pull:
        if not pull.pending:
            return None
        if found := await pull.take(1, _TIMEOUT):
            return numbers(found[0]).stream
        if pull.pending:
            raise TimeoutError
        return None
