"""Removes what is old: events, rejected requests, records of requests, history.

`retention_days` counts for events and rejected requests, and for what the deployment server's
database holds of requests; there it is 30 days at least, since these records are what makes a
request that comes again be found done. `history_days` counts for the history.

Several sites share a stream. So each site's monitor removes the site's own messages, and the
stream's own age limit is that of the site that keeps longest: it is there for sites without a
monitor. Any number of copies may do all this; what is done twice is done once.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from bus import subjects
from bus.connection import Connection
from bus.options import DEFAULTS, Options, assemble
from bus.problems import Problem
from bus.pulling import first_since
from engine.errors import Conflict
from engine.protocol import Orders
from services.monitor.part import Loop, Part

RECORDS_KEPT: Final = timedelta(days=30)
"""How long the record of a request is kept at least."""

_OPTION: Final = "retention_days"
_EVERY: Final = 86_400.0
_AGAIN: Final = 3_600.0
"""Seconds after which a sweep that did not succeed in all is done again."""
_SOON: Final = 600.0
"""Seconds within which a monitor that has started begins, so that not all of them do at once."""
_LOOK: Final = 60.0
"""Seconds after which a changed option is seen."""
_PATIENCE: Final = 30.0
_DAY: Final = timedelta(days=1)
_LATE: Final = timedelta(days=7)
"""By how much an event may be kept later than what it tells of."""

Forget = Callable[[datetime, datetime], Awaitable[object]]
"""Removes from the history what is older than one moment, and what it remembers of events that the
stream has no more: those from before another (`History.forget`)."""


class Retention(Part):
    """Removes what is old, every day and when the options say so, until it is stopped."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        options: Callable[[], Options],
        orders: Orders,
        forget_history: Forget,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        soon: float = _SOON,
        look: float = _LOOK,
        patience: float = _PATIENCE,
    ) -> None:
        """Removes nothing yet.

        Args:
            connection: to the bus.
            site: whose messages, records and history.
            options: the options in force.
            orders: the engine, which holds the records of requests.
            forget_history: removes what is old from the history.
            now: the clock.
            soon: seconds after the start within which it begins.
            look: seconds after which a changed option is seen.
            patience: seconds that the bus gets for an answer; it may have much to remove.
        """
        super().__init__(Loop("the removal of what is old", site, self._look))
        self._purge = partial(purge, connection, patience=patience)
        self._stream = connection.jetstream(timeout=patience)
        self._site = site
        self._options = options
        self._orders = orders
        self._forget_history = forget_history
        self._now = now
        self._soon = soon
        self._rhythm = look
        self._due = 0.0
        self._swept = self._limits()
        self._log = structlog.get_logger("retention").bind(site=site)

    async def start(self) -> None:
        """Begins, soon."""
        self._due = time.monotonic() + random.uniform(0, self._soon)  # noqa: S311 (no secret)
        self._swept = self._limits()
        await super().start()

    async def sweep(self) -> bool:
        """Removes what is old now; whether all of it was possible. The log says what was not."""
        try:
            now = await self._safe_now()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._log.warning("nothing is removed", error=type(error).__name__)
            return False
        if now is None:
            return True
        options = self._options()
        kept = now - timedelta(days=options.retention_days)
        records = min(kept, now - RECORDS_KEPT)
        history = now - timedelta(days=options.history_days)
        events, rejected = subjects.event(self._site), subjects.rejected(self._site)
        # One after the other, since nobody waits for it; the failure of one is no other's.
        done = [
            await self._done("age limits", self._set_age_limits()),
            await self._done("events", self._purge(subjects.EVENTS, events, kept)),
            await self._done("rejected requests", self._purge(subjects.REJECTED, rejected, kept)),
            await self._done("records of requests", self.forget_records(records)),
            await self._done("history", self._forget_history(history, kept - _LATE)),
        ]
        return all(done)

    async def _look(self) -> None:
        await asyncio.sleep(self._rhythm)
        if time.monotonic() >= self._due or self._limits() != self._swept:
            self._swept = self._limits()
            self._due = time.monotonic() + (_EVERY if await self.sweep() else _AGAIN)

    def _limits(self) -> tuple[int, int]:
        options = self._options()
        return options.retention_days, options.history_days

    async def _done(self, what: str, part: Awaitable[object]) -> bool:
        try:
            await part
        except (nats.errors.Error, OSError, TimeoutError, Problem, Conflict) as error:
            self._log.warning("what is old stays", what=what, error=type(error).__name__)
        except Exception:  # noqa: BLE001 (the other parts are still to be done)
            self._log.exception("what is old stays", what=what)
        else:
            self._log.debug("what is old is removed", what=what)
            return True
        return False

    async def _safe_now(self) -> datetime | None:
        """The time, but at most a day after the newest event; None when there is no event.

        A clock that has jumped ahead would have everything removed.
        """
        newest = await _kept_at(self._stream, subjects.EVENTS)
        return newest and min(self._now(), newest + _DAY)

    async def _set_age_limits(self) -> None:
        """Has the streams keep as long as the site that keeps longest, and a day more."""
        days = max(DEFAULTS.retention_days, *await self._days_of_sites())
        limit = (timedelta(days=days) + _DAY).total_seconds()
        for name in (subjects.EVENTS, subjects.REJECTED):
            config = (await self._stream.stream_info(name)).config
            if config.max_age != limit:
                await self._stream.update_stream(config.evolve(max_age=limit))

    async def _days_of_sites(self) -> list[int]:
        bucket = await self._stream.key_value(subjects.OPTIONS)
        prefix = f"$KV.{subjects.OPTIONS}."
        info = await self._stream.stream_info(
            f"KV_{subjects.OPTIONS}", subjects_filter=prefix + subjects.site_key("*", _OPTION)
        )
        days = [self._options().retention_days]
        for subject in info.state.subjects or {}:
            try:
                entry = await bucket.get(subject.removeprefix(prefix))
            except nats.js.errors.KeyNotFoundError:
                continue
            options, _ = assemble({_OPTION: entry.value or b""})
            days.append(options.retention_days)
        return days

    async def forget_records(self, before: datetime) -> None:
        """Removes records of requests, but none that a waiting request may still need.

        Raises:
            EngineUnavailable, Conflict: the deployment server does not let it be done now.
            nats.errors.Error, TimeoutError: the bus does not say what waits.
        """
        waiting = await _kept_at(self._stream, subjects.REQUESTS, subjects.request(self._site))
        if waiting:
            before = min(before, waiting - _DAY)
        await self._orders.forget(before)


async def purge(
    connection: Connection,
    name: str,
    subject: str,
    before: datetime,
    patience: float = _PATIENCE,
) -> None:
    """Removes from a stream the messages of a subject that were kept before a moment.

    ``patience`` is the seconds that the bus gets for each answer.

    Raises:
        nats.errors.Error: there is no such stream, or the line is down.
        TimeoutError: the bus does not answer.
    """
    # Asked for first: whatever is kept from now on stands behind it.
    stream = connection.jetstream(timeout=patience)
    last = (await stream.stream_info(name)).state.last_seq
    first = await first_since(connection, name, subject, before)
    await stream.purge_stream(name, seq=first or last + 1, subject=subject)


async def _kept_at(
    stream: JetStreamContext, name: str, first_of: str | None = None
) -> datetime | None:
    """When the newest message of a stream was kept, or the first of a subject; None for none."""
    found: RawStreamMsg
    try:
        if first_of:
            found = await stream.get_msg(name, 1, subject=first_of, next=True)
        else:
            last = (await stream.stream_info(name)).state.last_seq
            if not last:
                return None
            found = await stream.get_msg(name, last)
    except nats.js.errors.NotFoundError:
        return None
    return found.time
