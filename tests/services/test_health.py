"""Whether a service is alive and ready, asked from outside."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from bus.connection import Connection
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from services.health import Health
from services.metrics import AT_ONCE, served
from tests.buses import BusServer, free_port
from tests.site import eventually
from tests.watched import ask, read


@contextmanager
def service(name: str, bus: BusServer, dsn: str, port: int) -> Iterator[None]:
    """A real process of a service that is watched at a port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", name, "--metrics", f"127.0.0.1:{port}"],
        env=os.environ
        | {
            "IMAGEINVOKER_SERVER": bus.url,
            "IMAGEINVOKER_SITE": "main",
            "IMAGEINVOKER_DATABASE": dsn,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


async def says(port: int, status: int, text: str, path: str = "/readyz") -> None:
    """Returns when this is the answer."""

    async def look() -> tuple[int, str]:
        try:
            return await asyncio.to_thread(ask, port, path)
        except OSError as error:
            return 0, str(error)

    await eventually(look, lambda seen: seen == (status, text + "\n"), 20)


async def test_a_service_is_ready_while_the_bus_answers_and_alive_without_it(
    bus: BusServer,
) -> None:
    bus.stop()
    port = free_port()
    with service("auth", bus, "", port):
        await says(port, 503, "the service is starting or leaving")
        await says(port, 200, "alive", "/healthz")
        bus.start()
        await says(port, 200, "ready")
        assert (await asyncio.to_thread(read, port))["imageinvoker_bus_connected", "auth"] == 1
        bus.stop()
        await says(port, 503, "the bus does not answer")
        await says(port, 200, "alive", "/healthz")
        assert (await asyncio.to_thread(read, port))["imageinvoker_bus_connected", "auth"] == 0
        bus.start()
        await says(port, 200, "ready")


async def test_a_bus_that_hangs_for_a_while_is_named_and_the_service_goes_on_with_it(
    bus: BusServer,
) -> None:
    port = free_port()
    with service("auth", bus, "", port):
        await says(port, 200, "ready")
        with bus.frozen():
            await says(port, 503, "the bus does not answer")
        # Late answers, of which some were given up, end no connection.
        await says(port, 200, "ready")
        assert (await asyncio.to_thread(read, port))["imageinvoker_bus_connected", "auth"] == 1


async def test_a_service_is_not_ready_while_its_deployment_server_does_not_answer(
    bus: BusServer, tmp_path: Path
) -> None:
    file = tmp_path / "express.db"
    dsn = sqlite_dsn(file)
    menu, scheduler = free_port(), free_port()
    with service("menu", bus, dsn, menu), service("scheduler", bus, dsn, scheduler):
        await says(menu, 503, "the deployment server does not answer")
        await says(scheduler, 503, "the deployment server does not answer")
        database = Database(dsn, create=True)
        await create_embedded(database, sample=True)
        await database.close()
        await says(menu, 200, "ready")
        await says(scheduler, 200, "ready")
        seen = await asyncio.to_thread(read, menu)
        assert seen["imageinvoker_database_failures_total", "express", "menu", "connection"] > 0
        assert seen["imageinvoker_database_seconds_count", "express", "menu", "statement"] > 0


async def test_only_three_paths_are_there_and_only_to_be_read() -> None:
    port = free_port()
    with served(CollectorRegistry(), f"127.0.0.1:{port}", Health()):
        for path in ("/", "/metrics/", "/metricsz", "/healthz/..", "/x" * 5000):
            assert (await asyncio.to_thread(ask, port, path))[0] == 404
        for path in ("/metrics", "/healthz", "/readyz"):
            assert (await asyncio.to_thread(ask, port, path, "POST"))[0] == 405


async def test_metrics_are_read_over_both_kinds_of_loopback_address() -> None:
    registry = CollectorRegistry()
    Gauge("known", "A number", registry=registry).set(7)
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        port = free_port()
        with (
            served(registry, f"{host}:{port}" if "." in host else f"[{host}]:{port}", Health()),
            socket.socket(family) as caller,
        ):
            caller.connect((host, port))
            caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"known 7.0" in await asyncio.to_thread(_all_of, caller)


async def test_whoever_connects_and_says_nothing_holds_up_nobody() -> None:
    port = free_port()
    health = Health()
    with served(CollectorRegistry(), f"127.0.0.1:{port}", health), socket.socket() as silent:
        silent.connect(("127.0.0.1", port))
        silent.sendall(b"GET /heal")
        async with health.answered():
            assert await asyncio.to_thread(ask, port, "/healthz") == (200, "alive\n")


async def test_a_crowd_that_says_nothing_takes_some_threads_and_the_rest_are_sent_away() -> None:
    port = free_port()
    health = Health()
    with served(CollectorRegistry(), f"127.0.0.1:{port}", health), ExitStack() as crowd:
        silent = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            for _ in range(AT_ONCE + 2)
        ]
        for each in silent[AT_ONCE:]:
            assert await asyncio.to_thread(each.recv, 1) == b""
        busy = [each for each in threading.enumerate() if "process_request_thread" in each.name]
        assert len(busy) == AT_ONCE
        silent[0].close()
        async with health.answered():
            assert await asyncio.to_thread(ask, port, "/healthz") == (200, "alive\n")


async def test_a_loop_that_hangs_is_not_alive_though_its_counters_can_be_read() -> None:
    health = Health()
    port = free_port()
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        go_on.wait(30)

    async def other_loop() -> None:
        async with health.answered():
            asyncio.get_running_loop().call_soon(hang)
            await asyncio.sleep(0.01)
            assert await asyncio.to_thread(ask, port, "/healthz") == (200, "alive\n")

    with served(CollectorRegistry(), f"127.0.0.1:{port}", health):
        other = threading.Thread(target=asyncio.run, args=(other_loop(),))
        other.start()
        assert await asyncio.to_thread(hanging.wait, 10)
        for path in ("/healthz", "/readyz"):
            seen = await asyncio.to_thread(ask, port, path)
            assert seen == (503, "the service does not answer\n")
        assert (await asyncio.to_thread(ask, port, "/metrics"))[0] == 200
        go_on.set()
        await asyncio.to_thread(other.join, 20)
        assert not other.is_alive()
        assert (await asyncio.to_thread(ask, port, "/healthz"))[0] == 503


async def test_what_hangs_is_named_and_what_answers_is_not() -> None:
    health = Health()
    health.serving = True
    cancelled = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def fails() -> None:
        raise OSError("a reason with a secret in it")

    async def answers() -> None:
        return

    health.needs("the bus", answers)
    health.needs("the database", hangs)
    health.needs("the directory", fails)
    async with health.answered():
        missing = await asyncio.to_thread(health.missing)
    assert missing == ["the database does not answer", "the directory does not answer"]
    assert cancelled.is_set()


async def test_however_many_ask_at_once_what_is_needed_is_asked_once() -> None:
    health = Health()
    health.serving = True
    asked = 0
    go_on = asyncio.Event()

    async def check() -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()

    async def everybody_has_asked() -> int:
        return len(asyncio.all_tasks())

    health.needs("the bus", check)
    async with health.answered():
        before = len(asyncio.all_tasks())
        asking = [asyncio.create_task(asyncio.to_thread(health.missing)) for _ in range(5)]
        # Theirs, one in the loop for each, and the one that they share with its check.
        await eventually(everybody_has_asked, lambda count: count >= before + 5 + 5 + 2)
        go_on.set()
        assert await asyncio.gather(*asking) == [[]] * 5
    assert asked == 1


async def test_a_look_that_is_under_way_ends_with_the_service() -> None:
    health = Health()
    health.serving = True
    begun, ended = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    health.needs("the bus", check)
    async with health.answered():
        asking = asyncio.create_task(asyncio.to_thread(health.missing))
        await begun.wait()
    assert ended.is_set()
    assert await asking == ["the service does not answer"]


async def test_a_service_that_leaves_is_not_ready(connection: Connection) -> None:
    health = Health()
    health.needs("the bus", connection.flush)
    async with health.answered():
        assert await asyncio.to_thread(health.missing) == ["the service is starting or leaving"]
        health.serving = True
        assert await asyncio.to_thread(health.missing) == []
        health.serving = False
        assert await asyncio.to_thread(health.missing) == ["the service is starting or leaving"]


def _all_of(caller: socket.socket) -> bytes:
    caller.settimeout(10)
    found = b""
    while part := caller.recv(65536):
        found += part
    return found
