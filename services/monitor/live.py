"""The live view: an entry a machine in the bucket ``imaging_live``, made from the site's events.

Every copy of the monitor follows the events itself, from those of the last two days on; so what one
did not write before it died, another does. Events change entries in memory at once, and what has
changed is brought to the bucket beside that: a crowd of events costs few writes. Copies do not
overwrite each other, since each writes only over what it knows.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import Connection
from bus.event_stream import read
from bus.events import NO_MACHINE, Event, Kind, one_line
from bus.live import Live, Stage, live_decoder
from bus.messages import encode
from services.monitor.part import Loop, Part, take_each

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

_KEPT: Final = timedelta(days=2)
"""For how long the bucket keeps an entry."""
_SKEW: Final = timedelta(minutes=1)
"""By how much the clocks of the site's services may differ."""
_REMEMBERED: Final = 50_000
"""Machines and events that are remembered."""
_GATHERED: Final = 1.0
"""Seconds for which changes are gathered before they are written."""
_WRITERS: Final = 16
_LEAVING: Final = 2.0
_Value = TypeVar("_Value")


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


def newer(one: Live, other: Live) -> Live:
    """Which of two copies' words for one machine is the later one; else ``other``."""
    if one.request is not None and one.request == other.request:
        first, second = (
            (_ORDER.get(each.stage, 0), each.jobs_done or 0, each.since) for each in (one, other)
        )
        return one if first > second else other
    return one if one.since > other.since else other


class _Known(Struct):
    """A machine's entry as it is here, and the bucket's revision it stands on, if that is known."""

    live: Live
    revision: int | None = None


class LiveView(Part):
    """Keeps the bucket as the events say."""

    def __init__(self, connection: Connection, site: str) -> None:
        super().__init__(
            Loop("the live view", site, self._write_changes),
            Loop("the reading of events for the live view", site, self._listen),
        )
        self._connection = connection
        self._site = site
        self._known: dict[str, _Known] = {}
        self._heard: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._caught_up = asyncio.Event()
        self._something = asyncio.Event()

    async def stop(self) -> None:
        """Writes what is left, for two seconds at most, and writes no more."""
        await super().stop()
        if self._caught_up.is_set():
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self._write_all()

    async def _listen(self) -> None:
        events = read(
            self._connection,
            self._site,
            since=datetime.now(UTC) - _KEPT,
            kinds=tuple(_STAGES),
            follow=True,
            caught_up=self._caught_up.set,
        )
        await take_each(events, self._take)

    def _take(self, event: Event) -> None:
        """Takes an event in; one that was heard before changes nothing."""
        if event.id in self._heard:
            return
        _remember(self._heard, event.id, None)
        known = self._known.get(event.machine)
        live = after(known.live if known else None, event)
        if live is None or (known and live == known.live):
            return
        if known:
            known.live = live
        _remember(self._known, event.machine, known or _Known(live))
        self._changed[event.machine] = None
        self._something.set()

    async def _write_changes(self) -> None:
        # Before that, what is known here may be long past.
        await self._caught_up.wait()
        await self._something.wait()
        await asyncio.sleep(_GATHERED)
        await self._write_all()

    async def _write_all(self) -> None:
        bucket = await self._connection.jetstream().key_value(subjects.LIVE)
        while self._changed:
            batch = list(self._changed)[:_WRITERS]
            await _all_of(self._write(bucket, machine) for machine in batch)
        self._something.clear()

    async def _write(self, bucket: KeyValue, machine: str) -> None:
        # An event that comes meanwhile puts it back.
        del self._changed[machine]
        written = False
        try:
            known = self._known.get(machine)
            key = subjects.site_key(self._site, machine)
            written = known is None or await _brought(bucket, key, known)
        finally:
            if not written:
                self._changed[machine] = None


async def _brought(bucket: KeyValue, key: str, known: _Known) -> bool:
    """Brings an entry to the bucket unless another copy is ahead; False if one wrote meanwhile."""
    if known.revision is None:
        stands, known.revision = await _stored(bucket, key)
        if stands and newer(stands, known.live) == stands:
            known.live = stands
            return True
    try:
        known.revision = await bucket.update(key, encode(known.live), last=known.revision)
    except nats.js.errors.KeyWrongLastSequenceError:
        known.revision = None
        return False
    return True


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


async def _all_of(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Does all of them side by side; raises the first failure once each has ended."""
    for failure in await asyncio.gather(*works, return_exceptions=True):
        if failure is not None:
            raise failure


def _remember(memory: dict[str, _Value], key: str, value: _Value) -> None:
    """Keeps what is newest, up to a bound."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]


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
