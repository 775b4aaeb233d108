"""What a welcome costs where the database knows 100,000 computers, against 1,000.

Two sites, whose processes have the same settings, are asked in turn over one connection each, one
question at a time. The machines that ask are known ones, spread over all, and none of the
100,000 asks twice.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import uvloop

from bench.estate import add_computers, known_machine, spread
from bench.harness import MeasureError, Reach, Rounds, Say, microseconds, one_figure
from bench.served import served
from bench.site import Site, running_site
from bus import contract
from bus.connection import Connection, ask, connect
from bus.machines import machine_key
from bus.messages import Hello

_MANY: Final = 100_000
_FEW: Final = 1_000
_ROUNDS: Final = 31
_QUESTIONS: Final = 100
"""Of one round, to each site."""


def _make(sites: Callable[[int], contextlib.AbstractContextManager[Site]], say: Say) -> float:
    with sites(_FEW) as small, sites(_MANY) as large:
        return uvloop.run(_compare(small, large, say))


@contextlib.contextmanager
def _on_postgres(computers: int) -> Iterator[Site]:
    with served({"menu": 1}, lambda dsn: asyncio.run(add_computers(dsn, computers))) as (site, _):
        yield site


@contextlib.contextmanager
def _on_sqlite(computers: int) -> Iterator[Site]:
    with running_site(lambda dsn: asyncio.run(add_computers(dsn, computers, sample=True))) as site:
        yield site


async def _compare(small: Site, large: Site, say: Say) -> float:
    rounds = Rounds(say, f"of {_MANY:,}", f"of {_FEW:,}", microseconds)
    few, many = await asyncio.gather(connect(small.url, "bench"), connect(large.url, "bench"))
    try:
        for number in range(_ROUNDS + 1):
            of_many = await _waits(many, large, spread(_MANY, _QUESTIONS, number))
            of_few = await _waits(few, small, spread(_FEW, _QUESTIONS, number))
            if number:  # The first round warms both sides up.
                rounds.add(statistics.median(of_many), statistics.median(of_few))
    finally:
        await few.close()
        await many.close()
    return rounds.median()


async def _waits(connection: Connection, site: Site, numbers: list[int]) -> list[float]:
    """The seconds until each of these machines was welcomed.

    Raises:
        MeasureError: one was not known.
    """
    waits: list[float] = []
    for number in numbers:
        machine = known_machine(number)
        hello, key = Hello(machine=machine), machine_key(machine)
        began = time.perf_counter()
        welcome = await ask(connection, site.name, contract.WELCOME, key, hello)
        waits.append(time.perf_counter() - began)
        if welcome.computer is None:
            raise MeasureError(f"computer {number} of {site.name} is not known")
    return waits


_ABOUT: Final = f"time to welcome a known machine, of {_MANY:,} computers / of {_FEW:,}"
_REACH: Final = Reach("<=", 1.1)
ON_POSTGRES: Final = one_figure(
    "welcome_computers", f"{_ABOUT}, PostgreSQL", _REACH, partial(_make, _on_postgres)
)
ON_SQLITE: Final = one_figure(
    "welcome_computers_sqlite", f"{_ABOUT}, SQLite", _REACH, partial(_make, _on_sqlite)
)
