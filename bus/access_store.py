"""Where the access rules of a site are kept."""

import asyncio
import contextlib
from typing import Final

import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bus import subjects
from bus.access import Rule, rule_decoder, rule_key
from bus.buckets import watch
from bus.connection import Connection
from bus.messages import encode

_READ_TIMEOUT: Final = 5.0


class KeptRules(Struct, frozen=True):
    """What the bucket holds of a site: its rules in no order, and the keys of what is none.

    One that cannot be read may be the one that denies: while there are such, nobody but
    administrators may do anything.
    """

    rules: list[Rule]
    unreadable: list[str]

    @property
    def in_force(self) -> list[Rule]:
        """The rules as the services apply them."""
        return [] if self.unreadable else self.rules


class AccessStore:
    """Reads and writes a site's access rules in the bucket."""

    def __init__(self, stream: JetStreamContext, bucket: KeyValue, site: str) -> None:
        self._stream = stream
        self._bucket = bucket
        self._site = site

    @classmethod
    async def open(cls, connection: Connection, site: str) -> "AccessStore":
        """The store of a site.

        Raises:
            nats.errors.Error: the bus does not keep access rules here.
        """
        stream = connection.jetstream()
        return cls(stream, await stream.key_value(subjects.ACCESS), site)

    async def read(self) -> KeptRules:
        """Every rule.

        Raises:
            nats.errors.Error: the line is down.
            TimeoutError: the bus does not answer.
        """
        states = watch(self._stream, subjects.ACCESS, self._site)
        async with asyncio.timeout(_READ_TIMEOUT), contextlib.aclosing(states):
            values = await anext(states)
        rules: list[Rule] = []
        unreadable: list[str] = []
        for key, value in values.items():
            try:
                rules.append(rule_decoder.decode(value))
            except ValueError:
                unreadable.append(key)
        return KeptRules(rules, unreadable)

    async def find(self, who: str, what: str) -> Rule | None:
        """The rule of this pair; None also for one that cannot be read."""
        try:
            value = (await self._bucket.get(self._key(who, what))).value
            return rule_decoder.decode(value or b"")
        except (nats.js.errors.KeyNotFoundError, ValueError):
            return None

    async def write(self, rule: Rule) -> None:
        """Keeps a rule; it replaces another of the same who and what."""
        await self._bucket.put(self._key(rule.who, rule.what), encode(rule))

    async def remove(self, who: str, what: str) -> bool:
        """Removes the rule of this pair; whether there was one."""
        key = self._key(who, what)
        try:
            await self._bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return False
        await self._bucket.delete(key)
        return True

    def _key(self, who: str, what: str) -> str:
        return subjects.site_key(self._site, rule_key(Rule(who=who, what=what, effect="deny")))
