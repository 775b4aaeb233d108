"""What the services count, read as Prometheus reads it."""

import asyncio
import math
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bus import contract
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.machines import machine_key
from bus.messages import Hello, encode
from bus.option_store import LiveOptions
from bus.options import Options
from bus.presence import wait_for_services
from engine.menu_rows import MenuRows, Wanted
from engine.tree import Job
from express.connection import DatabaseUnavailable
from express.database import Database, WriteConflict
from services.auth.program import program as auth
from services.database import DatabaseMetrics
from services.measures import SECONDS, RequestMetrics
from services.menu import lookout
from services.menu.keeper import MenuKeeper
from services.menu.metrics import MenuMetrics
from services.menu.program import program as menu
from services.menu.tally import Tally
from services.running import Program, Site
from services.scheduler.metrics import QueueMetrics
from services.scheduler.program import program as scheduler
from tests.buses import BusServer, free_port
from tests.guarded import RIGHT, WRONG, Guarded, protected
from tests.samba import ALICE, DOMAIN, DomainController
from tests.site import (
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    asker,
    eventually,
    new_machine,
    problem_of,
    refused,
    running,
)
from tests.watched import Seen, counted, read

on_sqlite = pytest.mark.parametrize("kind", ["sqlite"])


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
        seen = await asyncio.to_thread(read, port)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)
    assert seen["imageinvoker_logins_total", "success", "server"] == 1
    assert seen["imageinvoker_logins_total", "login_failed", "server"] == 3
    assert seen["imageinvoker_logins_total", "locked_out", "server"] == 1
    assert seen["imageinvoker_login_locks_total", "machine"] == 1
    # One that nobody knows the password of, made at the start; ann's; and one for each of bob's.
    assert seen["imageinvoker_password_hashes_total",] == 5


async def test_what_the_directory_says_is_timed(
    bus: BusServer, controller: DomainController
) -> None:
    registry = CollectorRegistry()
    async with asker(bus.url, "main") as client, protected(client, "domain") as site:
        await site.set("domain", DOMAIN)
        await site.set("domain_controllers", controller.address)
        await site.set("domain_ca", controller.ca_file)
        async with _running(bus.url, "main", registry, auth):
            await site.login(new_machine(1), controller.password_of(ALICE), ALICE)
            for machine in (2, 3):
                with refused("login_failed"):
                    await site.login(new_machine(machine), WRONG, ALICE)
            await site.set("domain_controllers", "127.0.0.1:9")
            await eventually(
                lambda: problem_of(
                    site.login(new_machine(4), controller.password_of(ALICE), ALICE)
                ),
                lambda code: code == "directory_unavailable",
            )
    seen = counted_by(registry)
    assert seen["imageinvoker_directory_seconds_count", "known"] >= 1
    assert seen["imageinvoker_directory_seconds_count", "refused"] == 2
    assert seen["imageinvoker_directory_seconds_count", "unavailable"] == 1
    assert seen["imageinvoker_logins_total", "login_failed", "domain"] == 2


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


@on_sqlite
async def test_questions_are_counted_by_endpoint_and_code(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    registry = CollectorRegistry()
    async with _running(url, name, registry, menu(dsn)):
        assert counted_by(registry)["imageinvoker_requests_total", "ok", "show", "menu"] == 0
        for _ in range(3):
            await client.show(STAFF_0117)
        await client.welcome(STAFF_0117)
        await client.raw(contract.SHOW, machine_key(STAFF_0117), b"no json")
        await client.raw(contract.WELCOME, "mac0", encode(Hello(machine=STAFF_0117)))
        seen = counted_by(registry)
    answers = {key[1:3]: n for key, n in seen.items() if key[0] == "imageinvoker_requests_total"}
    assert {key: n for key, n in answers.items() if n} == {
        ("ok", "show"): 3,
        ("bad_request", "show"): 1,
        ("ok", "welcome"): 1,
        ("bad_machine", "welcome"): 1,
    }
    # Every answer of the contract is there from the start, so that Prometheus sees it rise.
    assert answers.keys() == {
        (code, endpoint.verb)
        for endpoint in (contract.WELCOME, contract.SHOW)
        for code in ("ok", *endpoint.problems)
    }
    assert seen["imageinvoker_request_seconds_count", "show", "menu"] == 4
    assert 0 < seen["imageinvoker_request_seconds_sum", "show", "menu"] < 60
    assert seen["imageinvoker_database_seconds_count", "express", "menu", "connection"] >= 2
    assert seen["imageinvoker_database_seconds_count", "express", "menu", "statement"] >= 4
    assert seen["imageinvoker_database_failures_total", "express", "menu", "statement"] == 0


def test_who_is_turned_away_is_counted_but_makes_no_service_seem_quick() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics("main", "menu")
    registry.register(metrics)
    metrics.observe("show", "overloaded", 0.0)
    metrics.observe("show", "a_code_from_tomorrow", 1.5)
    seen = counted_by(registry)
    assert seen["imageinvoker_requests_total", "overloaded", "show", "menu"] == 1
    assert seen["imageinvoker_requests_total", "a_code_from_tomorrow", "show", "menu"] == 1
    assert seen["imageinvoker_request_seconds_count", "show", "menu"] == 1
    assert seen["imageinvoker_request_seconds_sum", "show", "menu"] == 1.5


@given(st.lists(st.floats(0, 20), max_size=30))
def test_times_fall_into_the_same_buckets_as_those_of_the_library(times: list[float]) -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics("main", "menu")
    registry.register(metrics)
    library = Histogram("library", "", registry=registry, buckets=SECONDS)
    for seconds in times:
        metrics.observe("show", None, seconds)
        library.observe(seconds)
    seen = counted_by(registry)
    ours = {
        key[2]: n
        for key, n in seen.items()
        if key[:2] == ("imageinvoker_request_seconds_bucket", "show")
    }
    assert ours == {key[1]: n for key, n in seen.items() if key[0] == "library_bucket"}
    count = seen["imageinvoker_request_seconds_count", "show", "menu"]
    assert count == seen["library_count",] == len(times)
    assert seen["imageinvoker_request_seconds_sum", "show", "menu"] == seen["library_sum",]


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_statement_that_is_given_up_is_a_failure_and_one_in_the_way_of_another_is_none(
    dsn: str,
) -> None:
    registry = CollectorRegistry()
    measured = DatabaseMetrics(registry, "main", "menu")
    database = Database(dsn, observe=measured.observer("express"))
    with pytest.raises(WriteConflict):
        await database.transact(
            lambda transaction: transaction.insert("ii_lock", ["lock_key"], [["once"], ["once"]])
        )
    assert not _failures(registry)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await database.transact(lambda transaction: transaction.fetch("SELECT pg_sleep(30)"))
    assert _failures(registry) == {"statement": 1}
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await database.sign_of_life()
    assert _failures(registry) == {"statement": 1, "connection": 1}


async def test_menus_that_were_ready_that_waited_and_that_are_out_of_date_are_counted() -> None:
    now = 100.0
    gone = False

    tally = Tally()

    async def look(wanted: Wanted, last: lookout.Seen | None) -> lookout.Seen:
        if gone:
            raise DatabaseUnavailable("it is switched off")
        tally.readings += last is None
        rows = last.rows if last else MenuRows([Job(1, None, "First (MI)", "")], [], {})
        return lookout.Seen(rows, wanted, "1", now, now + 0.5)

    keeper = MenuKeeper(look, Options, frozenset, tally, lambda: now)
    registry = CollectorRegistry()
    registry.register(MenuMetrics(tally, "main"))
    assert counted_by(registry)["imageinvoker_menu_cache_hits_total",] == 0
    await keeper.show()
    now += 0.25
    await keeper.show()
    await keeper.show()
    assert _menus(registry) == {"hits": 2, "misses": 1, "stale": 0, "builds": 1, "readings": 1}
    assert counted_by(registry)["imageinvoker_menu_age_seconds",] == 0.25
    gone = True
    now += 9.75
    await keeper.show()
    assert _menus(registry) == {"hits": 2, "misses": 2, "stale": 1, "builds": 1, "readings": 1}
    assert counted_by(registry)["imageinvoker_menu_failed_readings_total",] == 1
    assert counted_by(registry)["imageinvoker_menu_age_seconds",] == 10
    await keeper.close()


async def test_a_menu_that_was_never_read_has_no_age() -> None:
    async def nothing(_wanted: Wanted, _last: lookout.Seen | None) -> lookout.Seen:
        raise DatabaseUnavailable("it is switched off")

    tally = Tally()
    keeper = MenuKeeper(nothing, Options, frozenset, tally)
    registry = CollectorRegistry()
    registry.register(MenuMetrics(tally, "main"))
    with refused("deployment_server_unavailable"):
        await keeper.show()
    assert math.isnan(counted_by(registry)["imageinvoker_menu_age_seconds",])
    await keeper.close()


@on_sqlite
async def test_requests_that_wait_are_counted_and_the_age_of_the_oldest_is_told(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    registry = CollectorRegistry()
    # Its own would look again only after a while.
    queue = QueueMetrics(registry, client.connection, name)
    assert all(math.isnan(value) for value in counted_by(registry).values())
    machine = new_machine(1)

    async def seen() -> Seen:
        return counted_by(registry)

    async with running(url, name, scheduler(dsn)):
        with express.busy(machine):
            accepted = await client.schedule(machine, MEMORY_TEST)
            assert accepted.state == "accepted"
            queue.start()
            found = await eventually(seen, lambda s: s["imageinvoker_queue_requests",] == 1)
            assert 1 < found["imageinvoker_queue_oldest_seconds",] < 60
            await queue.stop()
        await client.settled(machine, accepted.request_id)
        queue.start()
        await eventually(seen, lambda s: s["imageinvoker_queue_requests",] == 0)
        assert (await seen())["imageinvoker_queue_oldest_seconds",] == 0
        await queue.stop()


async def test_the_queue_has_no_number_while_the_bus_is_away(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    registry = CollectorRegistry()
    queue = QueueMetrics(registry, connection, "main")
    bus.stop()
    queue.start()
    await asyncio.sleep(0)
    assert all(math.isnan(value) for value in counted_by(registry).values())
    await queue.stop()
    bus.start()


def _failures(registry: CollectorRegistry) -> dict[str, float]:
    """How often each step failed that did."""
    name = "imageinvoker_database_failures_total"
    return {key[3]: n for key, n in counted_by(registry).items() if key[0] == name and n}


def _menus(registry: CollectorRegistry) -> dict[str, float]:
    seen = counted_by(registry)
    return {
        "hits": seen["imageinvoker_menu_cache_hits_total",],
        "misses": seen["imageinvoker_menu_cache_misses_total",],
        "stale": seen["imageinvoker_menu_stale_answers_total",],
        "builds": seen["imageinvoker_menu_builds_total",],
        "readings": seen["imageinvoker_menu_readings_total",],
    }


def counted_by(registry: CollectorRegistry) -> Seen:
    return counted(generate_latest(registry).decode())


@asynccontextmanager
async def _running(
    url: str, name: str, registry: CollectorRegistry, program: Program
) -> AsyncIterator[None]:
    """A service that counts in a registry of the test's."""
    connection = await connect(url, f"copy-{name}")
    options = LiveOptions(connection, name)
    await options.start()
    try:
        async with program(Site(name, connection, options, registry)):
            yield
    finally:
        await options.stop()
        await connection.close()
