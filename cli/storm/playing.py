"""The storm itself: machines set out when their time has come, and what happens is counted."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Literal

from bus.waiting import end, unless
from cli.storm.journeys import Errand, Passage, travel
from cli.storm.ledger import Ledger
from cli.storm.machines import Fleet, RequestIds
from cli.storm.tally import Tally

Ended = Literal["finished", "gave_up", "interrupted"]

GAVE_UP: Final = "gave_up"
"""Why a journey has no outcome that the end of the storm cut off."""
_GRACE: Final = 10.0
"""Seconds that machines have to end their journeys when an operator ends the storm."""


class Storm:
    """Machines on their way, at most so many at a time."""

    def __init__(
        self, errand: Errand, fleet: Fleet, ids: RequestIds, ledger: Ledger, tally: Tally
    ) -> None:
        self.errand = errand
        self.tally = tally
        self._fleet = fleet
        self._ids = ids
        self._ledger = ledger
        self._travelling: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    @property
    def in_flight(self) -> int:
        """Machines on their way."""
        return len(self._travelling)

    @property
    def at(self) -> float:
        """The seconds since the storm began."""
        return time.monotonic() - self._began

    async def travel_alone(self, number: int) -> Passage:
        """One machine goes all the way while no other does; its times are for who asked."""
        passage = self._passage(number)
        try:
            await travel(self.errand, passage)
        finally:
            self._ledger.note(passage)
        return passage

    async def play(
        self,
        first: int,
        times: Iterable[float],
        *,
        at_once: int,
        give_up: float,
        told: asyncio.Event,
    ) -> Ended:
        """Lets the machines from number ``first`` on arrive, and waits for their ends.

        Args:
            times: the seconds after which each arrives, in order.
            at_once: how many may travel at a time; who arrives then waits.
            give_up: seconds until whoever still travels is cut off.
            told: ends the storm: nobody arrives any more, and who travels has ten seconds.
        """
        self._began = time.monotonic()
        try:
            async with asyncio.timeout(give_up):
                if await unless(told, self._arrive(first, times, at_once)):
                    await unless(told, self._all_ended())
                    if not self._travelling:
                        return "finished"
                async with asyncio.timeout(_GRACE):
                    await self._all_ended()
                return "interrupted"
        except TimeoutError:
            return "interrupted" if told.is_set() else "gave_up"
        finally:
            await self._cut_off()

    async def _arrive(self, first: int, times: Iterable[float], at_once: int) -> None:
        places = asyncio.Semaphore(at_once)
        full_until = 0.0
        for number, due in enumerate(times, first):
            early = due - self.at
            if early > 0:
                await asyncio.sleep(early)
            full = places.locked()
            await places.acquire()
            at = self.at
            if full:
                full_until = at
            # Who came while all places were taken was held back, wherever in the queue.
            self.tally.arrive(at, at - due, held=due < full_until)
            task = asyncio.create_task(self._one(number))
            self._travelling.add(task)
            task.add_done_callback(self._travelling.discard)
            task.add_done_callback(lambda _: places.release())

    async def _one(self, number: int) -> None:
        passage = self._passage(number)
        try:
            await travel(self.errand, passage)
        except asyncio.CancelledError:
            passage.error = GAVE_UP
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, the other machines go on)
            passage.error = type(error).__name__
        finally:
            self._count(passage)
            self._ledger.note(passage)

    def _count(self, passage: Passage) -> None:
        at = self.at
        for step, seconds in passage.times.items():
            self.tally.time(step, seconds, at)
        self.tally.retries.update(passage.retries)
        outcome = passage.outcome
        if outcome is None:
            self.tally.finish(at, "failed", passage.error)
        elif outcome.state == "scheduled":
            self.tally.finish(at, "scheduled", "")
        else:
            code = outcome.problem.code if outcome.problem else outcome.state
            self.tally.finish(at, "rejected", code)

    def _passage(self, number: int) -> Passage:
        return Passage(
            number=number,
            machine=self._fleet.machine(number),
            name=self._fleet.name(number),
            request_id=self._ids.of(number),
        )

    async def _all_ended(self) -> None:
        while self._travelling:
            await asyncio.wait(self._travelling)

    async def _cut_off(self) -> None:
        left = list(self._travelling)
        for task in left:
            task.cancel()
        for task in left:
            await end(task)
