"""Keep a message in a stream: one question to the bus, whose answer says that it is on disk.

It is `nats.js.JetStreamContext.publish` for a fifth less of the processor's time.
"""

from collections.abc import Mapping
from typing import Final

import nats.errors
import nats.js.errors
from msgspec import Struct

from bus.connection import Connection
from bus.messages import decoder

_WRONG_SEQUENCE: Final = frozenset({10071, 10164})
"""JetStream's error codes for a message that says another sequence than there is."""


class Kept(Struct, frozen=True):
    """Where a message stands in its stream; a duplicate has stood there before."""

    seq: int
    duplicate: bool = False


class WrongSequenceError(nats.js.errors.BadRequestError):
    """Somebody else has kept a message under the subject meanwhile."""


class _Failure(Struct, frozen=True):
    code: int = 0
    err_code: int | None = None
    description: str | None = None


class _Answer(Struct, frozen=True):
    seq: int = 0
    duplicate: bool = False
    error: _Failure | None = None


_answer: Final = decoder(_Answer)


async def keep(
    connection: Connection,
    subject: str,
    data: bytes,
    *,
    message_id: str | None = None,
    after: int | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,  # noqa: ASYNC109 (the bus's own time-out)
) -> Kept:
    """Keeps a message in the stream of its subject; returns when the bus has it.

    Args:
        connection: a connection to the bus.
        subject: where it is kept.
        data: the message.
        message_id: of two messages with the same one, within the time that the stream remembers
            them, the second is a duplicate.
        after: the sequence of the last message under the subject, 0 if there must be none.
        headers: any others that it is to have.
        timeout: seconds to wait for the bus.

    Raises:
        WrongSequenceError: the last message under the subject is not number ``after``.
        nats.js.errors.APIError: the stream does not take it; ``err_code`` says why.
        nats.js.errors.NoStreamResponseError: no stream keeps the subject.
        nats.errors.Error: there is no answer in time, or the line is down.
    """
    said = dict(headers) if headers else {}
    if message_id is not None:
        said["Nats-Msg-Id"] = message_id
    if after is not None:
        said["Nats-Expected-Last-Subject-Sequence"] = str(after)
    try:
        reply = await connection.request(subject, data, timeout=timeout, headers=said or None)
    except nats.errors.NoRespondersError:
        raise nats.js.errors.NoStreamResponseError from None
    try:
        answer = _answer.decode(reply.data)
    except ValueError:
        answer = _Answer()
    if answer.seq > 0 and not answer.error:
        return Kept(answer.seq, answer.duplicate)
    raise _error(answer.error or _Failure(description="this is no answer of a stream"))


def _error(failure: _Failure) -> nats.js.errors.APIError:
    known: dict[int, type[nats.js.errors.APIError]] = {
        400: nats.js.errors.BadRequestError,
        404: nats.js.errors.NotFoundError,
        500: nats.js.errors.ServerError,
        503: nats.js.errors.ServiceUnavailableError,
    }
    kind = known.get(failure.code, nats.js.errors.APIError)
    if failure.err_code in _WRONG_SEQUENCE:
        kind = WrongSequenceError
    return kind(failure.code, failure.description, failure.err_code)
