"""How many menus a second the menu service shows, against a bare echo of the same bytes.

Real processes: the site as `imageinvoker up` runs it, the echo, and this one, which asks both in
turn over one connection, with as many requests in flight.
"""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import nats
import nats.errors
import uvloop
from nats.aio.client import Client

from bench.harness import (
    Figure,
    MeasureError,
    Reach,
    Rounds,
    Say,
    milliseconds,
    per_second,
    share,
)
from bench.site import MACHINE, Site, end, running_site
from bus import contract, subjects
from bus.machines import machine_key
from bus.messages import Machine, ShowMenu, encode
from bus.problems import CODE_HEADER

IN_FLIGHT: Final = 64
_ROUNDS: Final = 41
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


def _make(say: Say) -> float:
    with running_site() as site:
        return uvloop.run(_measure(site, say))


async def _measure(site: Site, say: Say) -> float:
    connection = await nats.connect(site.url)
    try:
        shown = await show(connection, site, MACHINE)
        say(f"a menu of {shown.items} items, {len(shown.answer)} bytes")
        return await compare(connection, site, [shown], say)
    finally:
        await connection.close()


async def show(
    connection: Client, site: Site, machine: Machine, token: str | None = None
) -> Exchange:
    """Asks the menu service once.

    Raises:
        MeasureError: it answers a problem.
    """
    key = machine_key(machine)
    question = encode(ShowMenu(machine=machine, token=token))
    answer = await connection.request(_menu(site, key), question, timeout=_TIMEOUT)
    if answer.headers and CODE_HEADER in answer.headers:
        raise MeasureError(f"the menu service answers {answer.data.decode()}")
    return Exchange(key, question, answer.data)


async def compare(connection: Client, site: Site, exchanges: Sequence[Exchange], say: Say) -> float:
    """The rate of the menu service / the rate of the echo, both asked these questions in turn.

    Raises:
        MeasureError: an answer was another one than in its exchange.
    """
    say(f"{IN_FLIGHT} requests in flight")
    rounds = Rounds(say, "show", "echo", per_second)
    waits: dict[str, list[float]] = {"show": [], "echo": []}
    menu = _menu(site, "")
    echo = f"{_ECHO}."
    with _echo(site, exchanges):
        await _until_heard(connection, echo + exchanges[0].machine)
        await _burst(connection, menu, exchanges, _WARM_UP)
        await _burst(connection, echo, exchanges, _WARM_UP)
        for _ in range(_ROUNDS):
            shown = await _burst(connection, menu, exchanges, _REQUESTS)
            echoed = await _burst(connection, echo, exchanges, _REQUESTS)
            rounds.add(shown.rate, echoed.rate)
            waits["show"] += shown.waits
            waits["echo"] += echoed.waits
    for name, seconds in waits.items():
        p50, p99 = share(seconds, 0.5), share(seconds, 0.99)
        say(f"{name} answers: p50 {milliseconds(p50)}, p99 {milliseconds(p99)}")
    return rounds.median()


def _menu(site: Site, machine: str) -> str:
    return subjects.endpoint(site.name, "menu", contract.SHOW.verb, machine)


@contextlib.contextmanager
def _echo(site: Site, exchanges: Sequence[Exchange]) -> Iterator[None]:
    folder = site.folder / "answers"
    folder.mkdir()
    for each in exchanges:
        (folder / each.machine).write_bytes(each.answer)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", site.url, _ECHO, str(folder)], env=site.environment
    )
    try:
        yield
    finally:
        end(process)


async def _until_heard(connection: Client, subject: str) -> None:
    give_up = time.monotonic() + _TIMEOUT
    while time.monotonic() < give_up:
        try:
            await connection.request(subject, timeout=_TIMEOUT)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
        else:
            return
    raise MeasureError("the echo did not start")


async def _burst(
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


FIGURE: Final = Figure(
    name="show_rate",
    about=f"rate of showing an unchanged menu / rate of a bare echo, {IN_FLIGHT} in flight",
    reach=Reach(">=", 0.7),
    make=_make,
)
