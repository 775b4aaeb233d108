"""What happened, for everybody who wants to know: dashboards, mail, the audit.

An event stands in the stream ``IMAGING_EVENTS``. Whoever publishes one waits until the bus has it
on disk. Its id says what happened, not that it was said: told twice, it stands there once.
"""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import nats.errors
import structlog
from msgspec import Struct

from bus import subjects
from bus.connection import Connection
from bus.messages import ComputerRef, Time, decoder, encode

Kind = Literal[
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
    "option_changed",
    "access_changed",
    "account_changed",
]

Detail = str | int | float | bool | list[str] | None

NO_MACHINE: Final = "-"
"""Stands for the machine in events of what an operator did."""

_TIMEOUT: Final = 2.0


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

        Raises:
            NotKeptError: the bus did not take it; the log holds it then.
        """
        event = Event(
            id=f"{self._site}.{kind}.{of or uuid.uuid4()}",
            site=self._site,
            kind=kind,
            at=at or datetime.now(UTC),
            machine=machine,
            computer=computer,
            technician=technician,
            operator=operator,
            details=dict(details or {}),
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._stream.publish(
                    subjects.event(self._site, machine, kind),
                    encode(event),
                    timeout=_TIMEOUT,
                    headers={"Nats-Msg-Id": event.id},
                )
        except (nats.errors.Error, TimeoutError) as error:
            self._log.warning("an event is not kept", lost=encode(event).decode())
            raise NotKeptError(kind) from error
