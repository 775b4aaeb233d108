"""Machines that go through the portal without a screen, as the boot client does, many at once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec

from bus.connection import BusUnavailableError
from bus.messages import Machine, Outcome
from bus.problems import RETRIABLE, Problem
from client.items import item_called
from client.journey import NEEDS_LOGIN, Journey
from tests.faults.estate import PASSWORD
from tests.site import DESKTOP, DESKTOP_JOBS, LAPTOP, LAPTOP_JOBS, MEMORY_TEST, new_id, new_machine

JOBS: Final = {
    DESKTOP: DESKTOP_JOBS,
    LAPTOP: LAPTOP_JOBS,
    MEMORY_TEST: (2000190,),
}
"""What can be asked for here, and the jobs that each item stands for."""
STEPS: Final = 4
"""Steps of a visit that are counted: greeted, signed in, menu seen, ended."""
AT_ONCE: Final = 20
"""Machines that stand at the portal side by side."""
_TYPING: Final = 0.2
"""Seconds before a password is typed again."""

Answered = TypeVar("Answered")

Manner = Literal["patient", "vanishes", "twice"]
"""How a machine asks: to the end; gone as soon as it has sent; or each request two times."""


@dataclass(slots=True)
class Visit:
    """What one machine asked for in one visit, and what it was told."""

    machine: Machine
    item_id: str
    name: str | None
    manner: Manner = "patient"
    request_id: str = field(default_factory=new_id)
    greeted: bool = False
    signed_in: int = 0
    shown: bool = False
    sent: bool = False
    outcome: Outcome | None = None


class Progress:
    """How far all machines together have come."""

    def __init__(self) -> None:
        self._steps = 0
        self._moved = asyncio.Condition()

    async def step(self) -> None:
        async with self._moved:
            self._steps += 1
            self._moved.notify_all()

    async def reached(self, steps: int) -> None:
        """Returns when so many steps have been made."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._steps >= steps)


def planned(chance: random.Random, machines: int, round_: int) -> list[Visit]:
    """A visit of each machine: what it asks for, under which name, and how.

    Neighbours may ask for one name, so that one of the two cannot have it.
    """
    visits = []
    for number in range(machines):
        name = chance.choice([None, f"PC{round_}-{number}", f"BOTH{round_}-{number // 2}"])
        manner: Manner = chance.choices(("patient", "vanishes", "twice"), (6, 1, 1))[0]
        visits.append(Visit(new_machine(number), chance.choice(sorted(JOBS)), name, manner))
    return visits


async def go(
    server: str,
    site: str,
    visits: Iterable[Visit],
    chance: random.Random,
    progress: Progress | None = None,
    seconds: float = 120,
) -> None:
    """Every visit goes through the portal, twenty side by side, each within so many seconds."""
    places = asyncio.Semaphore(AT_ONCE)
    moved = progress or Progress()

    async def one(visit: Visit) -> None:
        async with places, asyncio.timeout(seconds):
            await _go_through(server, site, visit, chance.uniform(0, 0.3), moved)

    async with asyncio.TaskGroup() as group:
        for visit in visits:
            group.create_task(one(visit))


async def _go_through(
    server: str, site: str, visit: Visit, patience: float, progress: Progress
) -> None:
    journey = Journey(server, site, visit.machine, lambda _notice: None)
    technician = _Technician(journey, visit)
    try:
        await journey.welcome()
        visit.greeted = True
        await progress.step()
        await technician.sign_in()
        await progress.step()
        menu = await technician.signed_in(journey.show)
        visit.shown = True
        await progress.step()
        assert item_called(menu.entries, visit.item_id)
        await _send(journey, technician, visit, patience)
        await progress.step()
    finally:
        await journey.close()


class _Technician:
    """Who stands at the machine, and signs in as often as the site wants it."""

    def __init__(self, journey: Journey, visit: Visit) -> None:
        self._journey = journey
        self._visit = visit
        self._token = ""

    async def sign_in(self) -> None:
        """Signs in, however often that needs to be tried."""
        while True:
            try:
                self._token = (await self._journey.login(PASSWORD)).token
            except BusUnavailableError:
                await asyncio.sleep(_TYPING)
            except Problem as problem:
                if problem.code not in RETRIABLE:
                    raise
                await asyncio.sleep(_TYPING)
            else:
                self._visit.signed_in += 1
                return

    async def signed_in(self, work: Callable[[str], Awaitable[Answered]]) -> Answered:
        """Does work that needs a session; signs in again, as the portal has one do, if it ended."""
        while True:
            try:
                return await work(self._token)
            except Problem as problem:
                if problem.code not in NEEDS_LOGIN:
                    raise
            await asyncio.sleep(_TYPING)
            await self.sign_in()


async def _send(journey: Journey, technician: _Technician, visit: Visit, patience: float) -> None:
    wish = journey.wish(visit.request_id, visit.item_id, visit.name)

    async def send(token: str) -> Outcome:
        return await journey.schedule(msgspec.structs.replace(wish, token=token), _unheard)

    visit.sent = True
    match visit.manner:
        case "patient":
            visit.outcome = await technician.signed_in(send)
        case "twice":
            # The second learns what has become of the first one's request.
            visit.outcome, again = await asyncio.gather(
                technician.signed_in(send), technician.signed_in(send)
            )
            assert again == visit.outcome
        case "vanishes":
            try:
                async with asyncio.timeout(patience):
                    await technician.signed_in(send)
            except TimeoutError:
                return


def _unheard() -> None:
    """For who waits for the end only."""
