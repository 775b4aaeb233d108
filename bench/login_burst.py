"""What it costs when 1,000 machines sign in with the shared password at once, in password hashes.

All questions are in flight before the first answer comes, and all must be answered with a session.
The hashes are those that the auth service says it has made. The burst comes twice: a second time,
the password is still known to be right. The figure is the cost of the dearer burst. It is no ratio:
a hash is made so that it is slow, and alone decides how long a burst takes on an idle machine.
"""

import asyncio
import time
from collections import Counter
from typing import Final

import uvloop
from argon2 import PasswordHasher

from bench.harness import MeasureError, Reach, Say, milliseconds, one_figure, share
from bench.processes import counters
from bench.site import Site, new_machine, protect, running_site
from bus import contract
from bus.connection import BusUnavailableError, Connection, ask, connect
from bus.machines import machine_key
from bus.messages import Login, Machine
from bus.option_store import OptionStore
from bus.options import PASSWORD
from bus.problems import Problem

_MACHINES: Final = 1000
_BURSTS: Final = 2
_SHARED: Final = "Zuckerdose-1138"
_HASHES: Final = "imageinvoker_password_hashes_total"
_TIMEOUT: Final = 60.0


def _make(say: Say) -> float:
    with running_site() as site:
        return uvloop.run(_measure(site, say))


async def _measure(site: Site, say: Say) -> float:
    connection = await connect(site.url, "bench")
    try:
        store = await OptionStore.open(connection, site.name)
        await store.write(PASSWORD, PasswordHasher().hash(_SHARED).encode())
        await protect(connection, site, "hash")
        costs = [await _burst(connection, site, say) for _ in range(_BURSTS)]
    finally:
        await connection.close()
    if not costs[0]:
        raise MeasureError("nobody has verified the password")
    return max(costs)


async def _burst(connection: Connection, site: Site, say: Say) -> float:
    """The hashes that one burst costs.

    Raises:
        MeasureError: somebody was not let in.
    """
    before = await asyncio.to_thread(_hashes, site)
    began = time.perf_counter()
    machines = [new_machine(number) for number in range(_MACHINES)]
    answers = await asyncio.gather(*(_login(connection, site, each) for each in machines))
    seconds = time.perf_counter() - began
    refused = Counter(answer for answer in answers if isinstance(answer, str))
    if refused:
        raise MeasureError(f"of {_MACHINES:,} machines some were answered {dict(refused)}")
    cost = await asyncio.to_thread(_hashes, site) - before
    waits = [answer for answer in answers if isinstance(answer, float)]
    say(
        f"{_MACHINES:,} machines signed in within {seconds:.2f} s, "
        f"{milliseconds(seconds / _MACHINES)} each; "
        f"they waited p50 {milliseconds(share(waits, 0.5))}, p99 {milliseconds(share(waits, 0.99))}"
        f"; {cost:.0f} hashes"
    )
    return cost


async def _login(connection: Connection, site: Site, machine: Machine) -> float | str:
    """The seconds until the session came, or what came instead."""
    login = Login(machine=machine, password=_SHARED)
    key = machine_key(machine)
    began = time.perf_counter()
    try:
        await ask(connection, site.name, contract.LOGIN, key, login, timeout=_TIMEOUT)
    except Problem as problem:
        return problem.code
    except BusUnavailableError as error:
        return str(error)
    return time.perf_counter() - began


def _hashes(site: Site) -> float:
    """How many hashes the auth service has made since it started.

    Raises:
        MeasureError: it does not say so.
    """
    told = counters(site.metrics["auth"], site=site.name)
    if _HASHES not in told:
        raise MeasureError(f"the auth service does not tell {_HASHES}")
    return told[_HASHES]


RUN: Final = one_figure(
    name="login_burst",
    about=f"password hashes that {_MACHINES:,} sign-ins at once with the shared password cost",
    reach=Reach("<=", 2),
    make=_make,
)
