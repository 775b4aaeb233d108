"""One machine's way through the portal, with the boot client's own code and a clock."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from bus.connection import BusUnavailableError
from bus.door import Door
from bus.messages import ItemEntry, Machine, Menu, Outcome, Schedule, Welcome
from bus.problems import RETRIABLE, Problem
from cli.storm.tally import Step
from client.items import every_item, item_called
from client.journey import NEEDS_LOGIN, Journey
from client.troubles import Notice

NO_ANSWER: Final = "no_answer"
"""Stands where the code of a problem would, when nobody answered at all."""
_PAUSE: Final = 1.0
"""Seconds between two tries to sign in, as of the unattended boot client."""


class Errand(Struct, frozen=True, kw_only=True):
    """What every machine of a storm does; ``item`` is an id, a title, or None for the first."""

    server: str
    site: str
    item: str | None
    username: str | None
    password: str
    door: Door = Door()

    def __repr__(self) -> str:
        return f"Errand(site={self.site!r}, item={self.item!r})"


@dataclass(slots=True)
class Passage:
    """What one machine does and is told; filled on the way, so that it tells where it was cut."""

    number: int
    machine: Machine
    name: str
    request_id: str
    times: dict[Step, float] = field(default_factory=dict)
    """The seconds of each step that was done."""
    retries: Counter[str] = field(default_factory=Counter)
    item: ItemEntry | None = None
    asked: bool = False
    accepted: bool = False
    outcome: Outcome | None = None
    error: str = ""
    """Why there is no outcome: the code of a problem, or what else happened."""
    message: str = ""
    """The text of that problem."""


async def travel(errand: Errand, passage: Passage) -> None:
    """Goes all the way, as patient as a boot client is: for ever.

    A problem that ends the journey stands in ``passage.error`` afterwards.
    """

    def notice(told: Notice | None) -> None:
        if told is not None:
            silent = told.text == "trouble_service"
            passage.retries[told.code or (NO_ANSWER if silent else told.text)] += 1

    journey = Journey(errand.server, errand.site, passage.machine, notice, errand.door)
    began = time.perf_counter()
    try:
        await _go(journey, errand, passage)
    except Problem as problem:
        passage.error, passage.message = problem.code, problem.message
    finally:
        if passage.outcome:
            passage.times["journey"] = time.perf_counter() - began
        await journey.close()


async def _go(journey: Journey, errand: Errand, passage: Passage) -> None:
    clock = _Clock(passage)
    await journey.connect()
    clock.lap("connect")
    welcome = await journey.welcome()
    clock.lap("welcome")
    token = None
    if welcome.protection != "none":
        token = await _sign_in(journey, errand, passage, welcome)
        clock.lap("login")
    menu = await journey.show(token)
    clock.lap("menu")
    passage.item = chosen(menu, errand.item)
    # A known machine keeps its name.
    name = None if welcome.computer else passage.name
    wish = journey.wish(passage.request_id, passage.item.id, name)
    wish = msgspec.structs.replace(wish, token=token)
    clock.lap()

    def accepted() -> None:
        if not passage.accepted:
            passage.accepted = True
            clock.note("schedule")

    passage.asked = True
    passage.outcome = await _send(journey, errand, passage, welcome, wish, accepted)
    if not passage.accepted:
        clock.note("schedule")
    clock.note("outcome")


class _Clock:
    """Times the steps of a passage."""

    def __init__(self, passage: Passage) -> None:
        self._times = passage.times
        self._since = time.perf_counter()

    def lap(self, step: Step | None = None) -> None:
        """A step ends here and the next begins; without one, what passed was no step."""
        if step:
            self.note(step)
        self._since = time.perf_counter()

    def note(self, step: Step) -> None:
        """A step ends here, and what it began with goes on."""
        self._times[step] = time.perf_counter() - self._since


def chosen(menu: Menu, wanted: str | None) -> ItemEntry:
    """The item that is meant; the first that is shown where none is.

    Raises:
        Problem: ``unknown_item``: there is none, or several are called so.
    """
    if wanted is None:
        first = next(every_item(menu.entries), None)
        if first is None:
            raise Problem("unknown_item", "The menu that is shown is empty.")
        return first.item
    found = item_called(menu.entries, wanted)
    if not found:
        raise Problem("unknown_item", f"There is no menu item {wanted} here.")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found)
        raise Problem("unknown_item", f"Several items are called {wanted}: {ids}.")
    return found[0]


async def _sign_in(journey: Journey, errand: Errand, passage: Passage, welcome: Welcome) -> str:
    # A shared password knows no names.
    username = errand.username if welcome.protection != "hash" else None
    while True:
        pause = 0.0
        try:
            return (await journey.login(errand.password, username)).token
        except BusUnavailableError:
            passage.retries[NO_ANSWER] += 1
        except Problem as problem:
            if problem.code not in RETRIABLE:
                raise
            passage.retries[problem.code] += 1
            pause = problem.details.retry_after or 0.0
        await asyncio.sleep(max(_PAUSE, min(pause, 60.0)))


async def _send(
    journey: Journey,
    errand: Errand,
    passage: Passage,
    welcome: Welcome,
    wish: Schedule,
    accepted: Callable[[], None],
) -> Outcome:
    while True:
        try:
            return await journey.schedule(wish, accepted)
        except Problem as problem:
            if problem.code not in NEEDS_LOGIN or wish.token is None:
                raise
            passage.retries[problem.code] += 1
            token = await _sign_in(journey, errand, passage, welcome)
            wish = msgspec.structs.replace(wish, token=token)
