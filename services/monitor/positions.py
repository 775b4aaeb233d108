"""Where a moment stands in a stream."""

from datetime import datetime

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

_TIMEOUT = 5.0


async def first_since(
    stream: JetStreamContext, name: str, subject: str, moment: datetime
) -> int | None:
    """The sequence of the first message kept at a moment or later, None when there is none.

    Raises:
        nats.errors.Error: there is no such stream, or the line is down.
        TimeoutError: the bus does not answer.
    """
    config = ConsumerConfig(
        filter_subject=subject,
        deliver_policy=DeliverPolicy.BY_START_TIME,
        opt_start_time=moment,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=2 * _TIMEOUT,
        mem_storage=True,
        num_replicas=1,
    )
    made = await stream.add_consumer(name, config)
    try:
        if not made.num_pending:
            return None
        pulling = await stream.pull_subscribe_bind(made.name, name)
        try:
            (message,) = await pulling.fetch(1, _TIMEOUT)
        finally:
            await pulling.unsubscribe()
        return message.metadata.sequence.stream
    finally:
        await stream.delete_consumer(name, made.name)
