"""A service that leaves the bus loses no question, and never takes for ever."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats.errors
import pytest

from bus import contract
from bus.buckets import prepare
from bus.caller import Caller
from bus.connection import Connection, ask, connect
from bus.messages import Login, Session
from bus.presence import present
from bus.problems import Problem
from bus.service import Service
from tests.buses import BusServer
from tests.echo import ECHO, KEY, MACHINE, Said, Say, echo, say, until

IN_FLIGHT = 64
ROUNDS = 8
PER_ROUND = 500


class Load:
    """Many callers on a connection of their own, until told to stop; every question is counted."""

    def __init__(self, question: Callable[[int], Awaitable[None]]) -> None:
        self._question = question
        self._numbers = itertools.count()
        self._stop = False
        self._callers: list[asyncio.Task[None]] = []
        self.answered = 0
        self.lost: list[Exception] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        self._callers = [asyncio.create_task(self._call()) for _ in range(IN_FLIGHT)]
        yield self
        self._stop = True
        await asyncio.gather(*self._callers)

    async def _call(self) -> None:
        while not self._stop:
            try:
                await self._question(next(self._numbers))
            except Exception as error:  # noqa: BLE001 (whatever it is, it is not an answer)
                self.lost.append(error)
            else:
                self.answered += 1


def _service(connection: Connection, handler: Callable[[Say, Caller], Awaitable[Said]]) -> Service:
    service = Service(
        connection, site="main", name="echo", version="1.0.0", description="Says it again"
    )
    service.serve(ECHO, handler)
    return service


async def _slow_echo(asked: Say, caller: Caller) -> Said:
    await asyncio.sleep(0.003)
    return await echo(asked, caller)


@pytest.mark.parametrize("handler", [echo, _slow_echo], ids=["at once", "after a while"])
async def test_every_question_is_answered_while_copies_come_and_go_under_load(
    bus: BusServer, handler: Callable[[Say, Caller], Awaitable[Said]]
) -> None:
    async def question(number: int) -> None:
        said = await ask(caller, "main", ECHO, KEY, say(str(number)), timeout=5)
        assert said.text == str(number)

    async def join() -> tuple[Connection, Service]:
        connection = await connect(bus.url, "copy")
        service = _service(connection, handler)
        await service.start()
        return connection, service

    caller = await connect(bus.url, "caller")
    copies = [await join(), await join()]
    async with Load(question).running() as load:
        for round_ in range(1, ROUNDS + 1):
            await until(lambda goal=round_ * PER_ROUND: load.answered + len(load.lost) > goal)  # type: ignore[misc]
            connection, service = copies.pop(0)
            await service.leave()
            assert service.running == 0
            await connection.close()
            copies.append(await join())
    for connection, service in copies:
        await service.leave()
        await connection.close()
    await caller.close()
    assert load.lost == []
    assert load.answered > ROUNDS * PER_ROUND


async def _auth_process(bus: BusServer) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "auth", "--server", bus.url, "--site", "main",
        stdout=DEVNULL, stderr=DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


async def test_a_process_told_to_end_under_load_answers_everything_and_exits_clean(
    bus: BusServer, connection: Connection
) -> None:
    async def question(_number: int) -> None:
        login = Login(machine=MACHINE, password="")
        session = await ask(connection, "main", contract.LOGIN, KEY, login, timeout=5)
        assert isinstance(session, Session)

    async def here() -> int:
        return len(await present(connection, "main", 0.1))

    await prepare(connection.jetstream())
    processes = [await _auth_process(bus), await _auth_process(bus)]
    try:
        async with asyncio.timeout(15):
            while await here() < len(processes):
                pass
        async with Load(question).running() as load:
            await until(lambda: load.answered > 1000)
            processes[0].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(processes[0].wait(), 10) == 0
            goal = load.answered + 300
            await until(lambda: load.answered > goal)
        assert load.lost == []
        assert await here() == 1
        processes[1].send_signal(signal.SIGINT)
        assert await asyncio.wait_for(processes[1].wait(), 10) == 0
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_a_question_that_runs_is_answered_before_the_service_is_gone(
    bus: BusServer, connection: Connection
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(question: Say, _caller: Caller) -> Said:
        asked.set()
        await go_on.wait()
        return Said(text=question.text)

    caller = await connect(bus.url, "caller")
    service = _service(connection, wait)
    await service.start()
    asking = asyncio.create_task(ask(caller, "main", ECHO, KEY, say("last")))
    await asked.wait()
    leaving = asyncio.create_task(service.leave())
    # Gone for everybody else at once: the bus knows nobody to ask, not even after its name.
    while await present(caller, "main", 0.05):
        pass
    with pytest.raises(nats.errors.NoRespondersError):
        await caller.request("$SRV.PING.echo", b"")
    assert not leaving.done()
    go_on.set()
    await leaving
    assert (await asking).text == "last"
    await caller.close()


async def test_a_question_that_hangs_is_refused_after_the_time_out(
    bus: BusServer, connection: Connection
) -> None:
    asked = asyncio.Event()
    cancelled = asyncio.Event()

    async def hang(_asked: Say, _caller: Caller) -> Said:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    caller = await connect(bus.url, "caller")
    service = _service(connection, hang)
    await service.start()
    asking = asyncio.create_task(ask(caller, "main", ECHO, KEY, say(), timeout=10))
    await asked.wait()
    await asyncio.wait_for(service.leave(timeout=0.05), 2)
    with pytest.raises(Problem) as caught:
        await asking
    assert caught.value.code == "overloaded"
    assert cancelled.is_set()
    assert service.running == 0
    await caller.close()


async def test_even_a_question_that_will_not_be_cancelled_does_not_hold_the_service_for_ever(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.service._CANCEL_TIMEOUT", 0.05)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def stubborn(_asked: Say, _caller: Caller) -> Said:
        asked.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        return Said(text="at last")

    service = _service(connection, stubborn)
    await service.start()
    asking = asyncio.create_task(ask(connection, "main", ECHO, KEY, say()))
    await asked.wait()
    await asyncio.wait_for(service.leave(timeout=0.05), 2)
    assert service.running == 1
    go_on.set()
    assert (await asking).text == "at last"


async def test_leaving_can_itself_be_called_off(connection: Connection) -> None:
    asked = asyncio.Event()

    async def hang(_asked: Say, _caller: Caller) -> Said:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    service = _service(connection, hang)
    await service.start()
    asking = asyncio.create_task(ask(connection, "main", ECHO, KEY, say(), timeout=10))
    await asked.wait()
    leaving = asyncio.create_task(service.leave())
    await asyncio.sleep(0.02)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await service.leave(timeout=0)
    with pytest.raises(Problem, match="overloaded"):
        await asking


async def test_leaving_works_without_a_bus(bus: BusServer, connection: Connection) -> None:
    service = _service(connection, echo)
    await service.start()
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    await asyncio.wait_for(service.leave(), 2)


async def test_a_line_that_breaks_while_leaving_still_ends_what_runs(
    bus: BusServer, connection: Connection
) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def hang(_asked: Say, _caller: Caller) -> Said:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    service = _service(connection, hang)
    await service.start()
    asking = asyncio.create_task(ask(connection, "main", ECHO, KEY, say(), timeout=10))
    await asked.wait()
    bus.kill()
    assert connection.is_connected
    await asyncio.wait_for(service.leave(timeout=0.2), 2)
    assert ended.is_set()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
