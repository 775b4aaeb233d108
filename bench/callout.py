"""What it costs that the auth service decides who comes on the bus, against names and passwords.

Both servers encrypt. At one the auth service, a process of its own, is asked for each connection;
the other has one user with a password in its settings. A connection is made to the first answer of
the server and closed: nothing but the handshake, the login and a ping, by a bare client.

First as many as will, 64 at a time, in turn at either server: the figures are the ratio of the
rates, the rate, and the processor time that bus and auth service take for one: with 4 ms two cores
carry 500 a second. Then 500 begin each second, evenly, at the one that asks: the figure is the time
that all but one of a hundred wait for the server, from their login to its answer. The client takes
a third of all processor time itself, so the second and the last figure want an idle machine.
"""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.harness import (
    Figure,
    MeasureError,
    Reach,
    Rounds,
    Run,
    Say,
    middle,
    milliseconds,
    per_second,
    share,
)
from bench.processes import processor_time
from bench.site import clean_environment, end, new_machine
from bus.machines import machine_key
from tests.buses import BusServer
from tests.guests import Entry, secured

_ROUNDS: Final = 5
_CONNECTIONS: Final = 1500
_AT_ONCE: Final = 64
_PACE: Final = 500.0
"""Connections that are begun each second where they are paced."""
_STARTS_WITHIN: Final = 30.0
_TIMEOUT: Final = 10.0
_USER: Final = "somebody"
_PASSWORD: Final = "Teelicht-4711"

_RATE: Final = Figure(
    "callout_rate",
    f"connections a second, decided on by the auth service / by name and password, "
    f"{_AT_ONCE} at a time",
    Reach(">=", 0.5),
)
_MANY: Final = Figure(
    "callout_connections",
    "connections a second that the auth service decides on",
    Reach(">=", 500),
)
_TIME: Final = Figure(
    "callout_time",
    "milliseconds of processor time that bus and auth service take for a connection",
    Reach("<", 4),
)
_WAIT: Final = Figure(
    "callout_wait",
    f"milliseconds from login to answer that 99 of 100 wait at most, {_PACE:.0f} begun a second",
    Reach("<", 50),
)


@dataclass(frozen=True)
class _Target:
    """A server that lets in who says this."""

    port: int
    context: ssl.SSLContext
    token: str | None
    process: int

    def login(self, number: int) -> bytes:
        """What a client says once the line is encrypted."""
        user = machine_key(new_machine(number)) if self.token else _USER
        said = {
            "verbose": False, "pedantic": False, "lang": "bench", "version": "1", "protocol": 1,
            "user": user, "pass": self.token or _PASSWORD,
        }  # fmt: skip
        return b"CONNECT " + json.dumps(said).encode() + b"\r\nPING\r\n"


def _measure(say: Say) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="ii-bench-") as asking,
        tempfile.TemporaryDirectory(prefix="ii-bench-") as plain,
    ):
        entry = secured(Path(asking))
        bare = _plain_server(Path(plain), entry)
        entry.server.start()
        bare.start()
        try:
            with _auth(entry) as auth:
                return uvloop.run(_compare(entry, bare, auth, say))
        finally:
            bare.stop()
            entry.server.stop()


async def _compare(entry: Entry, bare: BusServer, auth: int, say: Say) -> dict[str, float]:
    # Whether it is the right server is no matter here, and would cost the client its time.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    decided = _Target(entry.server.port, context, entry.issue(), entry.server.pid)
    named = _Target(bare.port, context, None, 0)
    await _until_let_in(decided)
    await _until_let_in(named)
    rates: list[float] = []
    times: list[float] = []
    rounds = Rounds(say, "by the auth service", "by name", per_second)
    for _ in range(_ROUNDS):
        before = processor_time(auth), processor_time(decided.process)
        rate = await _crowd(decided)
        after = processor_time(auth), processor_time(decided.process)
        took = [(b - a) / _CONNECTIONS for a, b in zip(before, after, strict=True)]
        rates.append(rate)
        times.append(sum(took) * 1000)
        rounds.add(rate, await _crowd(named))
        say(f"    of processors, each: auth {milliseconds(took[0])}, bus {milliseconds(took[1])}")
    waits: list[float] = []
    for _ in range(_ROUNDS):
        found = await _paced(decided)
        lost = found.count(_TIMEOUT)
        if lost:
            say(f"{lost} were given up")
        waits.append(share(found, 0.99) * 1000)
        say(f"paced: p50 {milliseconds(share(found, 0.5))}, p99 {milliseconds(share(found, 0.99))}")
    return {
        _RATE.name: rounds.median(),
        _MANY.name: middle(say, "connections a second", rates, 0),
        _TIME.name: middle(say, "milliseconds of processors", times),
        _WAIT.name: middle(say, "p99, milliseconds", waits, 1),
    }


async def _crowd(target: _Target) -> float:
    """How many come in a second when as many as will come, some at a time."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with turns:
            await _come(target, number)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(_CONNECTIONS)))
    return _CONNECTIONS / (time.perf_counter() - began)


async def _paced(target: _Target) -> list[float]:
    """How long each waits for the server when they begin evenly, whoever is still waiting.

    One that is given up, since the server had to wait for too long, counts with the time-out.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    coming: list[asyncio.Task[float]] = []
    for number in range(_CONNECTIONS):
        await asyncio.sleep(max(0.0, began + number / _PACE - loop.time()))
        coming.append(asyncio.create_task(_come(target, number)))
    found = await asyncio.gather(*coming, return_exceptions=True)
    return [each if isinstance(each, float) else _TIMEOUT for each in found]


async def _come(target: _Target, number: int) -> float:
    """The seconds from the login to the answer.

    Raises:
        MeasureError: it is not let in.
    """
    async with asyncio.timeout(_TIMEOUT), _line(target) as (reader, writer):
        began = time.perf_counter()
        writer.write(target.login(number))
        while (said := await reader.readline()).startswith((b"INFO", b"PING")):
            pass
        if said != b"PONG\r\n":
            raise MeasureError(f"a connection is refused: {said!r}")
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def _line(
    target: _Target,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        await reader.readline()
        await writer.start_tls(target.context, server_hostname="127.0.0.1")
        yield reader, writer
    finally:
        writer.transport.abort()


async def _until_let_in(target: _Target) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < give_up:
        try:
            await _come(target, 0)
        except (MeasureError, OSError, TimeoutError):
            await asyncio.sleep(0.1)
        else:
            return
    raise MeasureError("nobody is let in")


def _plain_server(folder: Path, entry: Entry) -> BusServer:
    files = entry.server.folder / "server.pem", entry.server.folder / "server.key"
    return BusServer(
        folder,
        more=f'tls {{ cert_file: "{files[0]}", key_file: "{files[1]}" }}\n'
        f"authorization {{ user: {_USER}, password: {_PASSWORD} }}",
    )


@contextlib.contextmanager
def _auth(entry: Entry) -> Iterator[int]:
    """The auth service as a process; its id."""
    told = {
        "IMAGEINVOKER_SERVER": entry.server.url,
        "IMAGEINVOKER_SITE": entry.site,
        "IMAGEINVOKER_CREDENTIALS": str(entry.server.credentials("auth")),
        "IMAGEINVOKER_CA": str(entry.server.ca),
        "IMAGEINVOKER_CALLOUT_KEYS": str(entry.folder),
    }
    with (entry.server.folder / "auth.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "auth"],
            env=clean_environment(entry.server.folder) | told,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        end(process)


RUN: Final = Run((_RATE, _MANY, _TIME, _WAIT), _measure)
