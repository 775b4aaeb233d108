"""What happened, for everybody who wants to know: dashboards, mail, the audit.

An event stands in the stream ``IMAGING_EVENTS``. Whoever publishes one waits until the bus has it
on disk. Its id says what happened, not that it was said: told twice within an hour, it stands there
once.
"""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct

from bus import subjects
from bus.connection import Connection, backoff
from bus.keeping import keep
from bus.messages import ComputerRef, Time, decoder, encode

Kind = Literal[
    "portal_opened",
    "menu_shown",
    "login_succeeded",
    "login_failed",
    "login_locked",
    "login_unlocked",
    "connection_refused",
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

PATIENCE: Final = 2.0
"""Seconds for which an event is tried while somebody waits for an answer."""
_LOST: Final = 0.5
"""Seconds after which an event that nobody has acknowledged is published once more: the bus may
have died with it."""


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


class NotKeptError(Exception):
    """The bus could not keep an event."""


class EventLog:
    """Publishes the events of a site."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
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
        patience: float = PATIENCE,
    ) -> None:
        """Keeps an event; ``of`` is what happened only once, such as a request's id.

        Every text is cut to 256 characters and made one printable line.

        Raises:
            NotKeptError: the bus refused it, or did not take it within ``patience`` seconds; the
                log holds it then.
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
            async with asyncio.timeout(patience):
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
            patience = PATIENCE if attempt else _LOST
            try:
                await keep(self._connection, subject, body, message_id=event.id, timeout=patience)
            except nats.js.errors.APIError:
                raise
            except (nats.errors.Error, OSError, TimeoutError):
                await asyncio.sleep(backoff(attempt))
                attempt += 1
            else:
                return


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
