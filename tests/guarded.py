"""A site that asks who is there, with accounts of its own, for tests."""

import json
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from argon2 import PasswordHasher

from bus import subjects
from bus.access import Effect, make_rule, rule_key
from bus.events import Event, event_decoder
from bus.messages import encode
from services.auth.accounts import Account, Accounts
from tests.site import STAFF_0117, Asker

RIGHT: Final = "Kaffeetasse-2206"
"""The password of every account."""
WRONG: Final = "Ratespiel-0815"
_HASH: Final = PasswordHasher().hash(RIGHT)


class Guarded(Asker):
    """A site with accounts of its own, and who may do what there."""

    async def accounts(self) -> Accounts:
        return await Accounts.open(self.connection, self.site)

    async def employ(self, name: str, *groups: str) -> None:
        account = Account(
            name=name,
            password_hash=_HASH,
            display_name=name.title(),
            created_at=datetime.now(UTC),
        )
        await (await self.accounts()).add(account, groups)

    async def rule(self, who: str, what: str, effect: Effect = "allow") -> None:
        rule = make_rule(who, what, effect)
        bucket = await self.connection.jetstream().key_value(subjects.ACCESS)
        await bucket.put(subjects.site_key(self.site, rule_key(rule)), encode(rule))

    async def enter(self, name: str) -> str:
        return (await self.login(STAFF_0117, RIGHT, name)).token

    async def seen(self, token: str) -> set[str]:
        found = await self.show(STAFF_0117, token)
        return {json.loads(encode(entry))["id"] for entry in found.entries}

    async def events(self, *kinds: str) -> list[Event]:
        found = await self.kept(subjects.EVENTS, subjects.event(self.site))
        events = [event_decoder.decode(data) for data in found]
        return [event for event in events if not kinds or event.kind in kinds]


@asynccontextmanager
async def protected(client: Asker, protection: str = "server") -> AsyncIterator[Guarded]:
    await client.set("protection", protection)
    yield Guarded(client.connection, client.site)


def by_chance(one: list[float], other: list[float], order: random.Random) -> float:
    """How often the medians of two samples of one kind differ as much (a permutation test)."""

    def difference(both: list[float]) -> float:
        return abs(statistics.median(both[: len(one)]) - statistics.median(both[len(one) :]))

    both = one + other
    shuffled = (order.sample(both, len(both)) for _ in range(2000))
    return sum(difference(each) >= difference(both) for each in shuffled) / 2000
