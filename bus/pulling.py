"""What stands in a stream, a batch at a time, by a consumer of the reader's own."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

_WAIT: Final = 1.0
"""Seconds that one pull waits for a new message."""
_TIMEOUT: Final = 5.0
_FORGOTTEN: Final = 300.0
"""Seconds after which the bus drops the consumer of a reader that is gone."""


class LostError(nats.errors.Error):
    """A message was lost on its way, as the line broke in a pull; it still stands in the stream."""


@asynccontextmanager
async def pulled(
    stream: JetStreamContext,
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
    made = await stream.add_consumer(name, config)
    try:
        pulling = await stream.pull_subscribe_bind(made.name, name)
        try:
            yield Pull(stream, made, pulling)
        finally:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await pulling.unsubscribe()
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await stream.delete_consumer(name, made.name)


class Pull:
    """The messages of a stream that somebody reads."""

    def __init__(
        self,
        stream: JetStreamContext,
        made: ConsumerInfo,
        pulling: JetStreamContext.PullSubscription,
    ) -> None:
        self.pending = made.num_pending or 0
        """How many messages are known to stand behind those that were taken."""
        self._stream = stream
        self._made = made
        self._pulling = pulling
        self._taken = 0

    async def take(self, most: int, wait: float = _WAIT) -> list[Msg]:
        """The next messages, so many at most; none if nothing new comes within ``wait`` seconds.

        Raises:
            LostError: one was lost on its way; read anew from behind the last.
            nats.errors.Error, TimeoutError: the stream cannot be read any more.
        """
        # Who asks for more than there is waits for the rest.
        wanted = min(max(self.pending, 1), most)
        try:
            found = await self._pulling.fetch(wanted, wait)
        except TimeoutError:
            # Nothing new; or what was pending is too old by now; or the consumer is gone, and this
            # raises.
            info = await self._stream.consumer_info(self._made.stream_name, self._made.name)
            self.pending = info.num_pending or 0
            return []
        for message in found:
            self._taken += 1
            if message.metadata.sequence.consumer != self._taken:
                raise LostError
            self.pending = message.metadata.num_pending
        return found


async def first_since(
    stream: JetStreamContext, name: str, subject: str, moment: datetime
) -> int | None:
    """The sequence of the first message kept at a moment or later, None when there is none.

    Raises:
        nats.errors.Error: there is no such stream, or the line is down.
        TimeoutError: the bus does not answer.
    """
    async with pulled(stream, name, [subject], since=moment) as pull:
        if not pull.pending:
            return None
        if found := await pull.take(1, _TIMEOUT):
            return found[0].metadata.sequence.stream
        if pull.pending:
            raise TimeoutError
        return None
