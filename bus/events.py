"""What happened, for everybody who wants to know: dashboards, mail, the audit.

An event stands in the stream ``IMAGING_EVENTS``. Whoever publishes one waits until the bus has it
on disk. Its id says what happened, not that it was said: told twice within an hour, it stands there
once.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus import subjects
from bus.connection import Connection, backoff
from bus.messages import ComputerRef, Time, decoder, encode

Kind = Literal[
    "portal_opened",
    "menu_shown",
    "login_succeeded",
    "login_failed",
    "login_locked",
    "login_unlocked",
    "session_refused",
    "request_accepted",
    "request_refused",
    "computer_created",
    "computer_renamed",
    "jobs_replaced",
    "jobs_scheduled",
    "request_rejected",
    "request_replayed",
    "job_started",
    "job_finished",
    "job_failed",
    "deployment_finished",
    "option_changed",
    "access_changed",
    "account_changed",
]

Detail = str | int | float | bool | list[str] | None

NO_MACHINE: Final = "-"
"""Stands for the machine in events of what an operator did."""
LONGEST_TEXT: Final = 256
"""Characters of any text of an event; names and the like are typed by strangers."""
LONGEST_LIST: Final = 64
"""Texts of a list in the details of an event."""

_TIMEOUT: Final = 2.0
_LOST: Final = 0.5
"""Seconds after which an event that nobody has acknowledged is published once more: the bus may
have died with it."""
_BATCH: Final = 500
_WAIT: Final = 2.0
"""Seconds that one pull waits for a new event, before it looks whether its consumer is still there.
"""
_FORGOTTEN: Final = 300.0
"""Seconds after which the bus drops the consumer of a reader that is gone."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One happening; no password and no token is ever in it.

    ``technician`` is the name that somebody signed in with, or tried to; ``operator`` is who
    changed something at the command line, as ``user@host``.
    """

    id: str
    site: str
    kind: Kind
    at: Time
    machine: str = NO_MACHINE
    computer: ComputerRef | None = None
    technician: str | None = None
    operator: str | None = None
    details: dict[str, Detail] = {}


event_decoder = decoder(Event)


class LostError(nats.errors.Error):
    """An event was lost on its way, as the line broke in a pull; it still stands in the stream."""


class NotKeptError(Exception):
    """The bus could not keep an event."""


class EventLog:
    """Publishes the events of a site."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._stream = connection.jetstream()
        self._site = site
        self._log = structlog.get_logger("events").bind(site=site)

    async def record(
        self,
        kind: Kind,
        *,
        machine: str = NO_MACHINE,
        of: str | None = None,
        at: datetime | None = None,
        computer: ComputerRef | None = None,
        technician: str | None = None,
        operator: str | None = None,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        """Keeps an event; ``of`` is what happened only once, such as a request's id.

        Every text is cut to 256 characters and made one printable line.

        Raises:
            NotKeptError: the bus did not take it within two seconds; the log holds it then.
        """
        event = Event(
            id=one_line(f"{self._site}.{kind}.{of or uuid.uuid4()}"),
            site=self._site,
            kind=kind,
            at=at or datetime.now(UTC),
            machine=machine,
            computer=computer and ComputerRef(id=computer.id, name=one_line(computer.name)),
            technician=_maybe_one_line(technician),
            operator=_maybe_one_line(operator),
            details={name: _bounded(value) for name, value in (details or {}).items()},
        )
        body = encode(event)
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._publish(event, body)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("an event is not kept", lost=body.decode())
            raise NotKeptError(kind) from error

    async def _publish(self, event: Event, body: bytes) -> None:
        """Publishes until the bus has it; said twice, it is still one, since its id is the same.

        A bus that restarts meanwhile is back before whoever waits for an answer has gone.
        """
        subject = subjects.event(self._site, event.machine, event.kind)
        attempt = 0
        while True:
            # Not again and again: a bus that is only slow is not to get slower by it.
            patience = _TIMEOUT if attempt else _LOST
            try:
                await self._stream.publish(
                    subject, body, timeout=patience, headers={"Nats-Msg-Id": event.id}
                )
            except nats.js.errors.APIError:
                raise
            except (nats.errors.Error, OSError, TimeoutError):
                await asyncio.sleep(backoff(attempt))
                attempt += 1
            else:
                return


async def read(
    connection: Connection,
    site: str,
    *,
    since: datetime | None = None,
    machines: Collection[str] = (),
    kinds: Collection[Kind] = (),
    follow: bool = False,
    caught_up: Callable[[], None] | None = None,
) -> AsyncGenerator[Event]:
    """The events of a site in the order in which they were kept; what is none is skipped.

    It ends with what was there when it began. Close it (``contextlib.aclosing``) when you leave
    it earlier.

    Args:
        connection: to the bus.
        site: whose events.
        since: only what was kept from then on, else all there is.
        machines: only these machine keys, else all.
        kinds: only these kinds, else all.
        follow: go on with whatever is kept from now on, for ever, also after the bus was down.
        caught_up: called once, when what was there when it began has been read.

    Raises:
        nats.errors.Error: the bus keeps no events, or the line is down (unless it follows).
        TimeoutError: the bus does not answer (unless it follows).
    """
    log = structlog.get_logger("events").bind(site=site)
    config = ConsumerConfig(
        filter_subjects=[
            subjects.event(site, machine, kind)
            for machine in machines or ("*",)
            for kind in kinds or ("*",)
        ],
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_FORGOTTEN,
        mem_storage=True,
        num_replicas=1,
    )
    if since is not None:
        config = config.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)
    async with contextlib.aclosing(_messages(connection, config, log, follow=follow)) as messages:
        async for message in messages:
            if message is None:
                if caught_up:
                    caught_up()
                    caught_up = None
            elif event := _event(message, site):
                yield event
            else:
                subject = one_line(message.subject)
                seen = message.metadata.sequence.stream
                log.warning("an event cannot be read", subject=subject, sequence=seen)


def one_line(text: str) -> str:
    """A text as one printable line of at most 256 characters."""
    # Long texts are cut first, so that nobody can make this slow.
    short = text[: LONGEST_TEXT + 1]
    if not short.isprintable():
        short = "".join(map(_printable, short))
    return short if len(short) <= LONGEST_TEXT else f"{short[: LONGEST_TEXT - 1]}…"


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"


def _maybe_one_line(text: str | None) -> str | None:
    return None if text is None else one_line(text)


def _bounded(value: Detail) -> Detail:
    match value:
        case str():
            return one_line(value)
        case list():
            return [one_line(each) for each in value[:LONGEST_LIST]]
    return value


def _event(message: Msg, site: str) -> Event | None:
    """The event that a message holds, if it holds one and stands where it belongs."""
    try:
        event = event_decoder.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    belongs = event.site == site and message.subject == subjects.event(
        site, event.machine, event.kind
    )
    return event if belongs else None


async def _messages(
    connection: Connection,
    config: ConsumerConfig,
    log: structlog.typing.FilteringBoundLogger,
    *,
    follow: bool,
) -> AsyncGenerator[Msg | None]:
    """What stands in the stream; who follows gets a new consumer whenever one is lost."""
    seen = 0
    attempt = 0
    while True:
        if seen:
            config = config.evolve(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=seen + 1,
                opt_start_time=None,
            )
        try:
            async with contextlib.aclosing(
                _consumed(connection, config, follow=follow)
            ) as messages:
                async for message in messages:
                    attempt = 0
                    if message is not None:
                        seen = message.metadata.sequence.stream
                    yield message
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if not follow:
                raise
            if not attempt:
                # Once: whoever follows at a terminal waits in front of it.
                why = type(error).__name__
                log.warning("events cannot be read now; this goes on when they can", error=why)
        else:
            return
        await asyncio.sleep(backoff(attempt))
        attempt += 1


async def _consumed(
    connection: Connection, config: ConsumerConfig, *, follow: bool
) -> AsyncGenerator[Msg | None]:
    """What a new consumer brings; None once, when what was there when it was made is through."""
    stream = connection.jetstream()
    made = await stream.add_consumer(subjects.EVENTS, config)
    pulling = await stream.pull_subscribe_bind(made.name, subjects.EVENTS)
    try:
        pending = left = made.num_pending or 0
        delivered = 0
        if not left:
            yield None
        while left or follow:
            try:
                batch = await pulling.fetch(min(left or pending or 1, _BATCH), _WAIT)
            except TimeoutError:
                # Nothing new; or what was pending is too old by now; or the consumer is gone, and
                # this raises.
                info = await stream.consumer_info(subjects.EVENTS, made.name)
                pending = info.num_pending or 0
                if left and not pending:
                    left = 0
                    yield None
                continue
            for message in batch:
                delivered += 1
                if message.metadata.sequence.consumer != delivered:
                    raise LostError
                yield message
                pending = message.metadata.num_pending
                if left:
                    left = min(left - 1, pending)
                    if not left:
                        yield None
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await pulling.unsubscribe()
            await stream.delete_consumer(subjects.EVENTS, made.name)
