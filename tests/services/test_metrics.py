"""What the auth service counts, read as Prometheus reads it."""

import asyncio
import os
import signal
import sys
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE

from prometheus_client.parser import text_string_to_metric_families

from bus.buckets import prepare
from bus.connection import Connection
from bus.presence import wait_for_services
from tests.buses import BusServer, free_port
from tests.guarded import RIGHT, WRONG, Guarded, protected
from tests.site import Asker, new_machine, refused


def _read(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "site")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def _sign_in_and_fail(site: Guarded) -> None:
    await site.employ("ann")
    await site.login(new_machine(1), RIGHT, "ann")
    for _ in range(3):
        with refused("login_failed"):
            await site.login(new_machine(2), WRONG, "bob")
    with refused("locked_out"):
        await site.login(new_machine(2), RIGHT, "ann")


async def test_sign_ins_locks_and_hashes_are_counted(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "auth", "--server", bus.url, "--site", "main",
        "--metrics", f"127.0.0.1:{port}",
        stdout=DEVNULL, stderr=DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        await asyncio.wait_for(wait_for_services(connection, "main", ["auth"]), 20)
        async with protected(Asker(connection, "main")) as site:
            await _sign_in_and_fail(site)
        seen = await asyncio.to_thread(_read, port)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)
    assert seen["imageinvoker_logins_total", "success", "server"] == 1
    assert seen["imageinvoker_logins_total", "login_failed", "server"] == 3
    assert seen["imageinvoker_logins_total", "locked_out", "server"] == 1
    assert seen["imageinvoker_login_locks_total", "machine"] == 1
    # One that nobody knows the password of, made at the start; ann's; and one for each of bob's.
    assert seen["imageinvoker_password_hashes_total",] == 5


async def test_metrics_that_cannot_be_served_are_a_sentence(bus: BusServer) -> None:
    for address, said in (
        ("nowhere", "say HOST:PORT"),
        (f"127.0.0.1:{bus.port}", "cannot be served"),
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", "auth", "--server", bus.url, "--site", "main",
            "--metrics", address, stdout=DEVNULL, stderr=PIPE,
        )  # fmt: skip
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 2
        assert said in errors.decode()
        assert "Traceback" not in errors.decode()
