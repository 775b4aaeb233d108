"""Failed logins, counted by the server in a bucket: they hold across copies and restarts."""

import time
from collections.abc import Callable
from typing import Final

import nats.js.errors
from msgspec import Struct
from nats.js.kv import KeyValue

from bus import subjects
from bus.messages import Details, decoder, encode
from bus.problems import Problem

LIMIT: Final = 3
"""Tries at a portal before entry is locked."""
LOCKED_FOR: Final = 600.0
"""Seconds that entry is locked, and that a failed try counts."""


class Count(Struct, frozen=True, kw_only=True):
    """The tries of one machine since the last good login, and when the last one was."""

    tries: int
    last: float


_count = decoder(Count)
_NONE: Final = Count(tries=0, last=0.0)


class Tries:
    """Counts the tries of machines."""

    def __init__(self, bucket: KeyValue, site: str, clock: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._site = site
        self._clock = clock

    async def take(self, machine: str) -> int:
        """Takes one try before the password is looked at; how many are left after it.

        Counting first makes a burst of guesses cost as many tries as guesses.

        Raises:
            Problem: ``locked_out``.
        """
        key = subjects.site_key(self._site, machine)
        while True:
            count, revision = await self._read(key)
            now = self._clock()
            if now - count.last >= LOCKED_FOR:
                count = _NONE
            if count.tries >= LIMIT:
                wait = count.last + LOCKED_FOR - now
                raise Problem("locked_out", details=Details(retry_after=round(wait, 1)))
            taken = Count(tries=count.tries + 1, last=now)
            try:
                await self._bucket.update(key, encode(taken), last=revision)
            except nats.js.errors.KeyWrongLastSequenceError:
                continue
            return LIMIT - taken.tries

    async def forget(self, machine: str) -> None:
        """A good login: the machine's tries are forgotten."""
        await self._bucket.delete(subjects.site_key(self._site, machine))

    async def _read(self, key: str) -> tuple[Count, int]:
        try:
            entry = await self._bucket.get(key)
        except nats.js.errors.KeyNotFoundError as gone:
            # A deleted key has a revision, which the next writer must name.
            deleted = gone.entry
            return _NONE, deleted.revision if deleted else 0
        return _count.decode(entry.value or b""), entry.revision or 0
