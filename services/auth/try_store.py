"""Where tries are counted: one count in the bucket for each machine, account and address.

A write succeeds only at the revision that was read, so one of many wins each time. Those of one
copy do not race: whoever has the turn applies the rules of all who wait, in one write.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final
from weakref import WeakValueDictionary

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import jittered
from bus.messages import decoder, encode
from bus.problems import Problem
from bus.technicians import key_of
from services.auth.lockout import Count, Scope, has_try, sound

SCOPES: Final[tuple[Scope, ...]] = ("machine", "account", "address")
TIMEOUT: Final = 5.0
"""Seconds that a change may take."""

_MACHINE: Final = re.compile(r"[0-9a-z]{1,64}\Z")


class Place(Struct, frozen=True):
    """Whose tries are counted, and under which key."""

    scope: Scope
    name: str
    key: str


Rule = Callable[[Count], Count]


class Seen(Struct, frozen=True):
    """A count, and its revision, which the next writer must name."""

    count: Count
    revision: int


def uncounted(place: Place) -> Seen:
    """The count of a place that stands nowhere; where one does, no write succeeds on it."""
    return Seen(Count(name=place.name), 0)


class Change(Struct, frozen=True):
    """What a rule has made of the count of a place, and what the bucket holds then.

    These differ when the rules of others were applied in the same write.
    """

    place: Place
    before: Count
    after: Count
    latest: Seen

    def has(self, try_id: str) -> bool:
        """Whether a try is in the count now."""
        return has_try(self.after, try_id)

    def closed(self) -> bool:
        """Whether this has closed a lock."""
        return self.after.locked_until > self.before.locked_until


class _Wish:
    """A rule that waits to be applied, and what has come of it."""

    def __init__(self, place: Place, rule: Rule) -> None:
        self.place = place
        self.rule = rule
        self.result: Change | Exception | None = None


class _Line:
    """Who wants to change one count."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.wishes: list[_Wish] = []


_count = decoder(Count)


class TryStore:
    """The counts of a site."""

    def __init__(self, bucket: KeyValue, site: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._bucket = bucket
        self._site = site
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()
        self._junk: set[str] = set()
        self._log = structlog.get_logger("auth").bind(site=site)

    def place(self, scope: Scope, name: str) -> Place:
        """Where a machine, an account or an address is counted.

        Raises:
            Problem: ``bad_machine``.
        """
        if scope != "machine":
            token = key_of(name)
        elif _MACHINE.match(name):
            token = name
        else:
            raise Problem("bad_machine", "This is no machine's key.")
        return Place(scope, name, subjects.site_key(self._site, f"{scope}.{token}"))

    async def look(self, place: Place) -> Seen:
        """A count as it is."""
        return (await self.change(place, lambda count: count)).latest

    async def change(self, place: Place, rule: Rule, seen: Seen | None = None) -> Change:
        """Changes a count by a rule.

        ``seen``, which may be a guess, saves reading the count, unless others wait: the bus takes
        a change only of what there is.
        """
        line = self._lines.setdefault(place.key, _Line())
        wish = _Wish(place, rule)
        line.wishes.append(wish)
        try:
            async with asyncio.timeout(TIMEOUT), line.turn:
                while wish.result is None:
                    await self._fulfil(line, seen if line.wishes == [wish] else None)
        finally:
            if wish in line.wishes:
                line.wishes.remove(wish)
        if isinstance(wish.result, Exception):
            raise wish.result
        return wish.result

    async def _fulfil(self, line: _Line, seen: Seen | None) -> None:
        wishes, line.wishes = line.wishes, []
        try:
            await self._apply(wishes, seen)
        except (nats.errors.Error, TimeoutError) as error:
            for wish in wishes:
                wish.result = error
        finally:
            # Who is called off here has not called off the others: the next in turn sees to them.
            line.wishes[:0] = [wish for wish in wishes if wish.result is None]

    async def _apply(self, wishes: list[_Wish], seen: Seen | None) -> None:
        place = wishes[0].place
        for attempt in itertools.count():
            found = seen or await self._read(place)
            counts = [found.count]
            for wish in wishes:
                counts.append(wish.rule(counts[-1]))
            try:
                latest = await self._write(place, found, counts[-1])
                break
            except nats.js.errors.KeyWrongLastSequenceError:
                seen = None
                if found.revision:
                    await asyncio.sleep(jittered(attempt, 0.002, 0.05))
        for wish, (before, after) in zip(wishes, itertools.pairwise(counts), strict=True):
            wish.result = Change(wish.place, before, after, latest)

    async def _write(self, place: Place, found: Seen, count: Count) -> Seen:
        if count == found.count:
            return found
        revision = await self._bucket.update(place.key, encode(count), last=found.revision)
        return Seen(count, revision)

    async def _read(self, place: Place) -> Seen:
        none = uncounted(place)
        try:
            entry = await self._bucket.get(place.key)
        except nats.js.errors.KeyNotFoundError as gone:
            # A deleted key has a revision, too.
            deleted = gone.entry
            return Seen(none.count, (deleted.revision or 0) if deleted else 0)
        return Seen(self._decode(place.key, entry.value) or none.count, entry.revision or 0)

    async def forget(self, place: Place) -> None:
        """Counts anew from nothing."""
        await self._bucket.delete(place.key)

    async def all(self) -> AsyncGenerator[tuple[Scope, Count], None]:
        """Every count of the site."""
        # The whole bucket, since of a part of it nobody says that it is empty.
        if not (await self._bucket.status()).values:
            return
        watcher = await self._bucket.watch(">")
        try:
            async for entry in watcher:
                if entry is None:
                    # nats-py 2.16 says so, too, while the keys are still on their way.
                    continue
                scope = self._scope(entry.key)
                if scope and not entry.operation:
                    count = self._decode(entry.key, entry.value)
                    if count:
                        yield scope, count
                if entry.delta == 0:
                    return
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]

    def _scope(self, key: str) -> Scope | None:
        """What a key of the bucket counts for; nothing if it is not this site's, or an old one."""
        starts = ((scope, subjects.site_key(self._site, f"{scope}.")) for scope in SCOPES)
        return next((scope for scope, start in starts if key.startswith(start)), None)

    def _decode(self, key: str, value: bytes | None) -> Count | None:
        """A count, or nothing for junk: what cannot be read has counted nothing."""
        with contextlib.suppress(ValueError, RecursionError):
            count = _count.decode(value or b"")
            if sound(count, self.clock()):
                return count
        if key not in self._junk:
            self._junk.add(key)
            self._log.error("counted tries cannot be read; counting begins anew", key=key)
        return None
