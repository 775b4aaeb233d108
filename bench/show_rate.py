"""How fast and how cheaply the menu service shows a menu, against a bare echo of the same bytes.

Real processes: the site as `imageinvoker up` runs it, the echo, and this one, which asks both in
turn over one connection, with as many requests in flight. One run makes three figures: how many
answers a second come, how long the slowest hundredth of them takes, and how much processor time
the answering process takes for each.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import nats
import uvloop
from nats.aio.client import Client

from bench.echoing import echo, until_heard
from bench.harness import (
    Figure,
    MeasureError,
    Reach,
    Rounds,
    Run,
    Say,
    microseconds,
    milliseconds,
    per_second,
    share,
)
from bench.processes import processor_time, taken_by_service
from bench.site import MACHINE, Site, running_site
from bus import contract, subjects
from bus.machines import machine_key
from bus.messages import Machine, ShowMenu, encode
from bus.problems import CODE_HEADER

IN_FLIGHT: Final = 64
_BLOCKS: Final = 6
_ROUNDS: Final = 7
"""Of one block. In a block each side is asked for about a second, so that the menu service looks
for changes in every block; the slowest answers are those of a block."""
_REQUESTS: Final = 3_200
"""Of one round: few, so that whatever else the machine does is alike on both sides of a ratio."""
_WARM_UP: Final = 3_200
_TIMEOUT: Final = 10.0
_ECHO: Final = "bench.echo.show"


@dataclass(frozen=True)
class Exchange:
    """A question for a menu by the machine of this key, and the answer to it."""

    machine: str
    question: bytes
    answer: bytes

    @property
    def items(self) -> int:
        """How many entries the menu has."""
        return len(contract.SHOW.answered_decoder.decode(self.answer).entries)


@dataclass(frozen=True)
class Burst:
    """Some requests: how many a second were answered, and the seconds each waited."""

    rate: float
    waits: list[float]


@dataclass(frozen=True)
class Comparison:
    """What the menu service takes / what the echo takes.

    ``rate`` is the median of the rounds; ``p99``, of the seconds that 99 of 100 answers do not
    exceed, that of the blocks; ``processor`` is of all rounds together, since the system counts
    processor time in hundredths of a second.
    """

    rate: float
    p99: float
    processor: float


def _make(say: Say) -> Mapping[str, float]:
    with running_site() as site:
        compared = uvloop.run(_measure(site, say))
    return {
        _RATE.name: compared.rate,
        _P99.name: compared.p99,
        _PROCESSOR.name: compared.processor,
    }


async def _measure(site: Site, say: Say) -> Comparison:
    connection = await nats.connect(site.url)
    try:
        shown = await show(connection, site.name, MACHINE)
        say(f"a menu of {shown.items} items, {len(shown.answer)} bytes")
        return await compare(connection, site, [shown], say)
    finally:
        await connection.close()


async def show(
    connection: Client, site: str, machine: Machine, token: str | None = None
) -> Exchange:
    """Asks the menu service of a site once.

    Raises:
        MeasureError: it answers a problem.
    """
    key = machine_key(machine)
    question = encode(ShowMenu(machine=machine, token=token))
    answer = await connection.request(_menu(site, key), question, timeout=_TIMEOUT)
    if answer.headers and CODE_HEADER in answer.headers:
        raise MeasureError(f"the menu service answers {answer.data.decode()}")
    return Exchange(key, question, answer.data)


async def compare(
    connection: Client, site: Site, exchanges: Sequence[Exchange], say: Say
) -> Comparison:
    """The menu service against the echo, both asked these questions in turn.

    Raises:
        MeasureError: an answer was another one than in its exchange.
    """
    say(f"{IN_FLIGHT} requests in flight")
    rates = Rounds(say, "show", "echo", per_second)
    slowest = Rounds(say, "show p99", "echo p99", milliseconds)
    menu = _menu(site.name, "")
    echoes = f"{_ECHO}."
    with echo(site, _ECHO, {each.machine: each.answer for each in exchanges}) as pid:
        await until_heard(connection, echoes + exchanges[0].machine)
        await burst(connection, menu, exchanges, _WARM_UP)
        await burst(connection, echoes, exchanges, _WARM_UP)
        before = await _processor_times(site, pid)
        for _ in range(_BLOCKS):
            showing: list[float] = []
            echoing: list[float] = []
            for _ in range(_ROUNDS):
                shown = await burst(connection, menu, exchanges, _REQUESTS)
                echoed = await burst(connection, echoes, exchanges, _REQUESTS)
                rates.add(shown.rate, echoed.rate)
                showing += shown.waits
                echoing += echoed.waits
            slowest.add(share(showing, 0.99), share(echoing, 0.99))
        after = await _processor_times(site, pid)
    answers = _BLOCKS * _ROUNDS * _REQUESTS
    of_show, of_echo = ((late - early) / answers for early, late in zip(before, after, strict=True))
    say(f"processor time of a show {microseconds(of_show)}, of an echo {microseconds(of_echo)}")
    return Comparison(rates.median(), slowest.median(), of_show / of_echo)


async def _processor_times(site: Site, pid: int) -> tuple[float, float]:
    """The seconds of processor time that the menu service and the echo have taken so far."""
    taken = await asyncio.to_thread(taken_by_service, site.metrics["menu"])
    return taken.processor, processor_time(pid)


def _menu(site: str, machine: str) -> str:
    return subjects.endpoint(site, "menu", contract.SHOW.verb, machine)


async def burst(
    connection: Client, subject: str, exchanges: Sequence[Exchange], count: int
) -> Burst:
    """Asks ``count`` times, one exchange after the other, with a fixed number in flight.

    Raises:
        MeasureError: an answer was another one than in its exchange.
    """
    waits: list[float] = []
    asked = itertools.islice(itertools.cycle(exchanges), count)

    async def ask() -> None:
        for each in asked:
            began = time.perf_counter()
            answer = await connection.request(
                subject + each.machine, each.question, timeout=_TIMEOUT
            )
            waits.append(time.perf_counter() - began)
            if answer.data != each.answer:
                raise MeasureError(f"{subject} gave another answer: {answer.data[:200]!r}")

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
    return Burst(len(waits) / (time.perf_counter() - began), waits)


_RATE: Final = Figure(
    name="show_rate",
    about=f"rate of showing an unchanged menu / rate of a bare echo, {IN_FLIGHT} in flight",
    reach=Reach(">=", 0.9),
)
_P99: Final = Figure(
    name="show_p99",
    about="the same: p99 of the time to an answer / the echo's",
    reach=Reach("<=", 1.5),
)
_PROCESSOR: Final = Figure(
    name="show_cpu",
    about="the same: processor time of the menu service for an answer / the echo's",
    reach=Reach("<=", 1.4),
)
RUN: Final = Run((_RATE, _P99, _PROCESSOR), _make)
