"""The live view: an entry a machine in the bucket ``imaging_live``, made from the site's events.

Every copy of the monitor hears the events itself, from those of the last two days on; so what one
did not write before it died, another does. Events change entries in memory at once, and what has
changed is brought to the bucket beside that: a crowd of events costs few writes. Copies do not
overwrite each other: each writes only over what it knows, and an entry that is made of later events
stands.
"""

import asyncio
import contextlib
import time
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import nats.errors
import nats.js.errors
from msgspec import Struct
from msgspec.structs import replace
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import Connection
from bus.event_stream import Placed
from bus.events import NO_MACHINE, Event, Kind, one_line
from bus.live import Live, Stage, live_decoder
from bus.messages import encode
from bus.waiting import all_of
from services.monitor.part import Loop, Part
from services.monitor.recent import Recent

_STAGES: Final[dict[Kind, Stage]] = {
    "portal_opened": "portal_opened",
    "login_succeeded": "signed_in",
    "menu_shown": "menu_shown",
    "request_accepted": "accepted",
    "request_rejected": "rejected",
    "jobs_scheduled": "scheduled",
    "job_started": "running",
    "job_finished": "running",
    "job_failed": "running",
    "deployment_finished": "finished",
}
_VISIT: Final[frozenset[Stage]] = frozenset({"portal_opened", "signed_in", "menu_shown"})
_PROGRESS: Final[frozenset[Kind]] = frozenset(
    {"job_started", "job_finished", "job_failed", "deployment_finished"}
)
_ORDER: Final[dict[Stage, int]] = {
    "accepted": 1,
    "scheduled": 2,
    "rejected": 2,
    "running": 3,
    "finished": 4,
    "failed": 4,
}
"""The stages of one request; it never goes back."""

KEPT: Final = 2 * 86_400
"""For how long the bucket keeps an entry, in seconds."""
_SKEW: Final = timedelta(minutes=1)
"""By how much the clocks of the site's services may differ."""
_MACHINES: Final = 50_000
_EVENTS: Final = 10_000
"""Machines, and at least so many events, that are remembered."""
_GATHERED: Final = 1.0
"""Seconds for which changes are gathered before they are written."""
_MANY: Final = 100
_MANY_GATHERED: Final = 2.0
"""Changes that are gathered for longer, and for how much: each of them may be one of several."""
_WRITERS: Final = 16
_LEAVING: Final = 2.0


def after(entry: Live | None, event: Event) -> Live | None:
    """What a machine's entry becomes by an event; the same one if the event says nothing new."""
    stage = _STAGES.get(event.kind)
    if stage is None or event.machine == NO_MACHINE:
        return entry
    computer = event.computer or (entry.computer if entry else None)
    if stage in _VISIT:
        same = entry if entry and entry.stage in _VISIT and stage != "portal_opened" else None
        return Live(
            machine=event.machine,
            stage=stage,
            since=_since(entry, event.at),
            technician=event.technician or (same.technician if same else None),
            computer=computer,
        )
    request = _text(event, "request")
    if request is None:
        return entry
    if entry and entry.request not in {None, request} and event.kind in _PROGRESS:
        # What is left of a deployment whose place another has taken.
        return entry
    known = entry if entry and entry.request == request else None
    if stage == "finished" and _text(event, "outcome") != "succeeded":
        stage = "failed"
    if known and _ORDER[stage] < _ORDER.get(known.stage, 0):
        return entry
    return Live(
        machine=event.machine,
        stage=stage,
        since=known.since if known and known.stage == stage else _since(entry, event.at),
        item=_text(event, "item") or (known.item if known else None),
        title=_text(event, "title") or (known.title if known else None),
        technician=event.technician or (known.technician if known else None),
        computer=computer,
        request=request,
        jobs_done=_most(_number(event, "done"), known.jobs_done if known else None),
        jobs=_most(_number(event, "jobs"), known.jobs if known else None),
        problem=_problem(event, known.problem if known else None),
    )


class _Written(Struct, gc=False):
    """What the bucket holds of a machine, packed, and the revision at which it does."""

    body: bytes
    revision: int


class LiveView(Part):
    """Keeps the bucket as the events say."""

    def __init__(self, connection: Connection, site: str) -> None:
        super().__init__(Loop("the live view", site, self._write_changes))
        self.kinds = frozenset(_STAGES)
        self._connection = connection
        self._site = site
        self._heard = Recent(_EVENTS)
        self._since = time.time_ns() - KEPT * 10**9
        self._written: dict[str, _Written] = {}
        self._changed: dict[str, Live] = {}
        """What the bucket does not hold yet."""
        self._asked: set[str] = set()
        """Machines of which the bucket may hold something else: it is looked up first."""
        self._caught_up = asyncio.Event()
        self._something = asyncio.Event()

    async def stop(self) -> None:
        """Writes what is left, for two seconds at most, and writes no more."""
        await super().stop()
        if self._caught_up.is_set():
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self._write_all()

    def hear(self, placed: Placed) -> None:
        """Takes an event in; one that was heard before changes nothing."""
        event, place = placed.event, (placed.stream, placed.sequence)
        long_past = placed.kept < self._since and not self._caught_up.is_set()
        if long_past or event.id in self._heard:
            return
        self._heard.add(event.id)
        known = self._known(event.machine)
        if known and place <= known.place:
            return
        before = known and replace(known, stream="", sequence=0)
        live = after(before, event)
        if live and live != before:
            stream, sequence = place
            self._changed[event.machine] = replace(live, stream=stream, sequence=sequence)
            self._something.set()

    def caught_up(self) -> None:
        """From now on it writes: before, what is known here may be long past."""
        # What is new from now on is written as new; this may stand there since long.
        self._asked.update(self._changed)
        self._caught_up.set()

    def _known(self, machine: str) -> Live | None:
        if live := self._changed.get(machine):
            return live
        written = self._written.get(machine)
        return live_decoder.decode(written.body) if written else None

    async def _write_changes(self) -> None:
        await self._caught_up.wait()
        await self._something.wait()
        await asyncio.sleep(_GATHERED)
        if len(self._changed) > _MANY:
            await asyncio.sleep(_MANY_GATHERED)
        await self._write_all()

    async def _write_all(self) -> None:
        bucket = await self._connection.jetstream().key_value(subjects.LIVE)
        while self._changed:
            batch = list(islice(self._changed.items(), _WRITERS))
            await all_of(self._write(bucket, machine, live) for machine, live in batch)
        self._something.clear()

    async def _write(self, bucket: KeyValue, machine: str, live: Live) -> None:
        written = await self._brought(bucket, machine, live)
        if written is None:
            return
        if machine not in self._written and len(self._written) >= _MACHINES:
            del self._written[next(iter(self._written))]
        self._written[machine] = written
        # An event may have come meanwhile.
        if self._changed[machine] is live:
            del self._changed[machine]

    async def _brought(self, bucket: KeyValue, machine: str, live: Live) -> _Written | None:
        """Brings an entry to the bucket unless a later one stands there; returns what stands then.

        None if another copy wrote meanwhile.
        """
        key = subjects.site_key(self._site, machine)
        known = self._written.get(machine)
        revision = known.revision if known else 0
        if machine in self._asked:
            stands, revision = await _stored(bucket, key)
            # Every copy makes the same of the same events: who has heard more is right.
            if stands and stands.place >= live.place:
                self._asked.discard(machine)
                return _Written(encode(stands), revision)
        body = encode(live)
        try:
            revision = await bucket.update(key, body, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            self._asked.add(machine)
            return None
        self._asked.discard(machine)
        return _Written(body, revision)


async def _stored(bucket: KeyValue, key: str) -> tuple[Live | None, int]:
    """What stands in the bucket, None for nothing or what cannot be read; and its revision."""
    try:
        entry = await bucket.get(key)
    except nats.js.errors.KeyNotFoundError as error:
        return None, (error.entry.revision if error.entry else None) or 0
    try:
        return live_decoder.decode(entry.value or b""), entry.revision or 0
    except ValueError:
        return None, entry.revision or 0


def _since(entry: Live | None, at: datetime) -> datetime:
    """When a stage began: never a little before the stage before it, as clocks may have it."""
    if entry and entry.since - _SKEW < at < entry.since:
        return entry.since
    return at


def _problem(event: Event, known: str | None) -> str | None:
    """What went wrong: the first job that failed, unless the deployment never came to its end."""
    outcome = _text(event, "outcome")
    if outcome in {"replaced", "removed"}:
        return outcome
    if event.kind == "job_failed" and known is None:
        return one_line(f"{_text(event, 'job')}: {_number(event, 'status')}")
    return known or _text(event, "problem")


def _text(event: Event, name: str) -> str | None:
    value = event.details.get(name)
    return value if isinstance(value, str) else None


def _number(event: Event, name: str) -> int | None:
    value = event.details.get(name)
    return value if isinstance(value, int) else None


def _most(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
