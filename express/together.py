"""Questions to a database that come while others are under way share a transaction.

To begin and to commit costs a database more than a small question does, and many are answered by
one statement as fast as one is. Who comes alone goes at once. Who comes in a crowd waits a moment
for others to share a transaction with; so the busier a database is, the less each question costs.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from bus.waiting import end
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction

MOST: Final = 16
"""Questions that share a transaction; all of their keys fit into one statement."""
GATHER: Final = 0.02
"""Seconds from one transaction of a crowd to the next, unless so many wait that it is full."""

_Asked = TypeVar("_Asked")
_Answered = TypeVar("_Answered")


class _Place(Generic[_Asked, _Answered]):
    """A question's place in the line, and the answer to it."""

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.answer: asyncio.Future[_Answered] = asyncio.get_running_loop().create_future()

    def end(self, answer: _Answered | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Together(Generic[_Asked, _Answered]):
    """A line of questions of one kind."""

    def __init__(
        self,
        database: Database,
        work: Callable[[Transaction, Sequence[_Asked]], Sequence[_Answered | Exception]],
        *,
        turns: int,
        gather: float = GATHER,
    ) -> None:
        """Takes what answers several questions in a transaction, and how many there may be at once.

        ``gather`` is the seconds from one transaction of a crowd to the next.

        An exception that ``work`` returns is that question's own answer, and breaks nothing.
        """
        self._database = database
        self._work = work
        self._turns = turns
        self._gather = gather
        self._line: deque[_Place[_Asked, _Answered]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._next_at = 0.0
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    async def ask(self, asked: _Asked) -> _Answered:
        """The answer to a question.

        Raises:
            DatabaseUnavailable: the database does not answer, or is not asked any more.
            Exception: whatever ``work`` returned or raised for this question.
        """
        if self._closed:
            raise DatabaseUnavailable("it is closed")
        place = _Place[_Asked, _Answered](asked)
        self._line.append(place)
        self._begin()
        try:
            return await place.answer
        finally:
            # Of who gives up while he stands in the line, nothing is asked any more.
            place.answer.cancel()

    async def close(self) -> None:
        """Breaks off what is under way, and what waits for it; nothing is asked any more."""
        self._closed = True
        if self._pause:
            self._pause.cancel()
        _break_off(self._line)
        for task in list(self._running):
            await end(task)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._running) < self._turns and self._line:
            if len(self._line) < MOST and loop.time() < self._next_at:
                self._pause = self._pause or loop.call_at(self._next_at, self._gathered)
                return
            if not (places := self._next()):
                return
            crowd = len(places) > 1 or self._running
            self._next_at = loop.time() + self._gather if crowd else 0.0
            task = asyncio.create_task(self._answer(places))
            self._running.add(task)
            task.add_done_callback(partial(self._ended, places))

    def _gathered(self) -> None:
        self._pause = None
        self._begin()

    def _ended(self, places: Sequence[_Place[_Asked, _Answered]], task: asyncio.Task[None]) -> None:
        _break_off(places)
        self._running.discard(task)
        self._begin()

    def _next(self) -> list[_Place[_Asked, _Answered]]:
        places: list[_Place[_Asked, _Answered]] = []
        while self._line and len(places) < MOST:
            place = self._line.popleft()
            if not place.answer.done():
                places.append(place)
        return places

    async def _answer(self, places: Sequence[_Place[_Asked, _Answered]]) -> None:
        questions = [place.asked for place in places]
        try:
            answers = await self._database.transact(lambda tx: self._work(tx, questions))
        except DatabaseUnavailable as error:
            for place in places:
                place.end(DatabaseUnavailable(error.reason, error.message))
        except Exception as error:  # noqa: BLE001 (each is told of his own)
            if len(places) == 1:
                places[0].end(error)
                return
            # It was one of them, and the others shall not suffer from it.
            for place in places:
                await self._answer([place])
        else:
            for place, answer in zip(places, answers, strict=True):
                place.end(answer)


def _break_off(places: Iterable[_Place[_Asked, _Answered]]) -> None:
    """Tells those who have no answer yet that they get none."""
    for place in places:
        place.end(DatabaseUnavailable("it was broken off"))
