"""How many menus a second the menu service shows, against a bare echo of the same bytes.

Real processes: the site as `imageinvoker up` runs it, the echo, and this one, which asks both in
turn over one connection, with as many requests in flight.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
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
from bus.messages import ShowMenu, encode
from bus.problems import CODE_HEADER

_IN_FLIGHT: Final = 64
_ROUNDS: Final = 41
_REQUESTS: Final = 3_200
"""Of one round: few, so that whatever else the machine does is alike on both sides of a ratio."""
_WARM_UP: Final = 3_200
_TIMEOUT: Final = 10.0
_ECHO: Final = "bench.echo.show"


@dataclass(frozen=True)
class Burst:
    """Some requests: how many a second were answered, and the seconds each waited."""

    rate: float
    waits: list[float]


def _make(say: Say) -> float:
    with running_site() as site:
        return uvloop.run(_compare(site, say))


async def _compare(site: Site, say: Say) -> float:
    connection = await nats.connect(site.url)
    try:
        subject = subjects.endpoint(site.name, "menu", contract.SHOW.verb, machine_key(MACHINE))
        question = encode(ShowMenu(machine=MACHINE))
        answer = await connection.request(subject, question, timeout=_TIMEOUT)
        if answer.headers and CODE_HEADER in answer.headers:
            raise MeasureError(f"the menu service answers {answer.data.decode()}")
        items = len(contract.SHOW.answered_decoder.decode(answer.data).entries)
        say(f"a menu of {items} items, {len(answer.data)} bytes; {_IN_FLIGHT} requests in flight")
        with _echo(site, answer.data):
            await _until_heard(connection, question)
            await _burst(connection, subject, question, answer.data, _WARM_UP)
            await _burst(connection, _ECHO, question, answer.data, _WARM_UP)
            rounds = Rounds(say, "show", "echo", per_second)
            waits: dict[str, list[float]] = {"show": [], "echo": []}
            for _ in range(_ROUNDS):
                show = await _burst(connection, subject, question, answer.data, _REQUESTS)
                echo = await _burst(connection, _ECHO, question, answer.data, _REQUESTS)
                rounds.add(show.rate, echo.rate)
                waits["show"] += show.waits
                waits["echo"] += echo.waits
        for name, seconds in waits.items():
            p50, p99 = share(seconds, 0.5), share(seconds, 0.99)
            say(f"{name} answers: p50 {milliseconds(p50)}, p99 {milliseconds(p99)}")
        return rounds.median()
    finally:
        await connection.close()


@contextlib.contextmanager
def _echo(site: Site, answer: bytes) -> Iterator[None]:
    file = site.folder / "answer"
    file.write_bytes(answer)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", site.url, _ECHO, str(file)], env=site.environment
    )
    try:
        yield
    finally:
        end(process)


async def _until_heard(connection: Client, question: bytes) -> None:
    give_up = time.monotonic() + _TIMEOUT
    while time.monotonic() < give_up:
        try:
            await connection.request(_ECHO, question, timeout=_TIMEOUT)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
        else:
            return
    raise MeasureError("the echo did not start")


async def _burst(
    connection: Client, subject: str, question: bytes, expected: bytes, count: int
) -> Burst:
    """Asks ``count`` times, with a fixed number of questions in flight.

    Raises:
        MeasureError: an answer was another one than the menu.
    """
    waits: list[float] = []

    async def ask() -> None:
        for _ in range(count // _IN_FLIGHT):
            began = time.perf_counter()
            answer = await connection.request(subject, question, timeout=_TIMEOUT)
            waits.append(time.perf_counter() - began)
            if answer.data != expected:
                raise MeasureError(f"{subject} gave another answer: {answer.data[:200]!r}")

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(_IN_FLIGHT)))
    return Burst(len(waits) / (time.perf_counter() - began), waits)


FIGURE: Final = Figure(
    name="show_rate",
    about=f"rate of showing an unchanged menu / rate of a bare echo, {_IN_FLIGHT} in flight",
    reach=Reach(">=", 0.7),
    make=_make,
)
