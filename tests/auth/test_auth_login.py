"""Signing in, asked over a real bus."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from argon2 import PasswordHasher
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bus import contract, subjects
from bus.buckets import prepare
from bus.caller import Caller
from bus.connection import Connection, ask, connect
from bus.event_stream import read
from bus.events import Event, EventLog, Kind
from bus.messages import Login, Session
from bus.option_store import LiveOptions, OptionStore
from bus.options import PASSWORD
from bus.presence import wait_for_services
from bus.problems import Problem
from bus.service import Service
from bus.sessions import Signer, Verifier
from services.auth.door import Door
from services.auth.lockout import Limits
from services.auth.metrics import LoginMetrics
from services.auth.passwords import Passwords, old_hash
from services.auth.program import limits_of, program
from services.auth.shared_password import SharedPassword
from services.auth.tries import Tries
from services.running import Site
from tests.buses import BusServer
from tests.echo import KEY, MACHINE, until

RIGHT = "Geheim-4711"
WRONG = "Ratespiel-0815"


@pytest.fixture
async def store(connection: Connection) -> OptionStore:
    await prepare(connection.jetstream())
    return await OptionStore.open(connection, "main")


@asynccontextmanager
async def auth(bus: BusServer) -> AsyncIterator[LiveOptions]:
    """A copy of the whole service, with a connection of its own."""
    connection = await connect(bus.url, "auth-main")
    options = LiveOptions(connection, "main")
    await options.start()
    try:
        async with program(Site("main", connection, options)):
            yield options
    finally:
        await options.stop()
        await connection.close()


RIGHT_HASH = PasswordHasher().hash(RIGHT)
OTHER_HASH = PasswordHasher().hash("another")


async def protect(store: OptionStore, known: str = RIGHT_HASH) -> None:
    """Protects the site by a password, given as its hash; before the service starts."""
    await store.write(PASSWORD, known.encode())
    await store.write("protection", b'"hash"')


async def sign_in(connection: Connection, password: str) -> Session:
    login = Login(machine=MACHINE, password=password)
    return await ask(connection, "main", contract.LOGIN, KEY, login, timeout=10)


async def refusal(connection: Connection, password: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await sign_in(connection, password)
    return caught.value


async def tries_left(connection: Connection) -> int:
    """How many tries the machine has, which costs one."""
    bucket = await connection.jetstream().key_value(subjects.TRIES)
    attempt = await Tries(bucket, "main", Limits).take({"machine": KEY})
    assert attempt.left is not None
    return attempt.left + 1


async def test_the_right_password_gets_a_session_that_is_good_here(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    verifier = Verifier(connection, "main")
    await verifier.start()
    async with auth(bus):
        session = await sign_in(connection, RIGHT)
        claims = await verifier.admit(session.token, KEY, "hash")
        assert claims is not None
        assert claims.username is None
    # A session outlives the copy that signed it.
    assert await verifier.admit(session.token, KEY, "hash")
    await verifier.stop()


async def test_an_unprotected_site_lets_everybody_in_and_counts_nothing(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    async with auth(bus):
        for _ in range(5):
            assert (await sign_in(connection, WRONG)).token
    assert await tries_left(connection) == 3


async def test_a_directory_that_is_not_there_lets_nobody_in_and_costs_no_try(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await store.write("protection", b'"domain"')
    async with auth(bus):
        for _ in range(4):
            assert (await refusal(connection, RIGHT)).code == "directory_unavailable"
    assert await tries_left(connection) == 3


async def test_a_password_that_nobody_has_set_lets_nobody_in(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await store.write("protection", b'"hash"')
    with capture_logs() as lines:
        async with auth(bus):
            assert (await refusal(connection, WRONG)).code == "login_failed"
    assert "nobody has set" in str([line for line in lines if line["log_level"] == "error"])


async def test_three_wrong_passwords_lock_entry_even_for_the_right_one(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    async with auth(bus):
        for left in (2, 1, 0):
            problem = await refusal(connection, WRONG)
            assert (problem.code, problem.details.attempts_left) == ("login_failed", left)
        problem = await refusal(connection, RIGHT)
        assert problem.code == "locked_out"
        assert problem.number == 423
        assert problem.details.retry_after == pytest.approx(60, abs=30)


async def test_the_lock_holds_for_another_copy_and_after_a_restart(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    async with auth(bus), auth(bus):
        for _ in range(3):
            assert (await refusal(connection, WRONG)).code == "login_failed"
        for _ in range(8):
            assert (await refusal(connection, RIGHT)).code == "locked_out"
    bus.stop()
    await until(lambda: connection.is_reconnecting)
    bus.start()
    await until(lambda: connection.is_connected)
    async with auth(bus):
        assert (await refusal(connection, RIGHT)).code == "locked_out"


async def test_a_good_sign_in_forgets_the_failed_ones(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    async with auth(bus):
        for _ in range(2):
            await refusal(connection, WRONG)
            await refusal(connection, WRONG)
            await sign_in(connection, RIGHT)
        assert (await refusal(connection, WRONG)).details.attempts_left == 2


async def test_a_new_password_counts_at_once(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    async with auth(bus) as options:
        await sign_in(connection, RIGHT)
        before = options.password_hash
        await protect(store, OTHER_HASH)
        await until(lambda: options.password_hash != before)
        assert (await refusal(connection, RIGHT)).code == "login_failed"
        await sign_in(connection, "another")


async def test_an_old_hash_serves_once_and_is_replaced(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    await store.write(PASSWORD, old_hash(RIGHT).encode())
    async with auth(bus) as options:
        await refusal(connection, WRONG)
        assert (await store.read())[PASSWORD] == old_hash(RIGHT).encode()
        await sign_in(connection, RIGHT)
        fresh = (await store.read())[PASSWORD]
        assert fresh.startswith(b"$argon2id$")
        await until(lambda: options.password_hash == fresh.decode())
        await sign_in(connection, RIGHT)
        assert (await store.read())[PASSWORD] == fresh


class WatchedPasswords(Passwords):
    """Counts what is verified, and lets a test step in while a hash is made."""

    def __init__(self) -> None:
        super().__init__()
        self.verified = 0
        self.hashing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def verify(self, known: str, password: str, account: str = "") -> bool:
        self.verified += 1
        return await super().verify(known, password, account)

    async def hash(self, password: str) -> str:
        self.hashing.set()
        await self.go_on.wait()
        return await super().hash(password)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def door(
    bus: BusServer, store: OptionStore, passwords: Passwords, clock: Clock
) -> AsyncIterator[Door]:
    """The door alone on the bus, with a clock and passwords that a test holds."""
    connection = await connect(bus.url, "auth-main")
    options = LiveOptions(connection, "main")
    await options.start()
    signer = Signer("main")
    await signer.publish(connection)
    events = EventLog(connection, "main")
    bucket = await connection.jetstream().key_value(subjects.TRIES)
    tries = Tries(bucket, "main", lambda: limits_of(options.current), clock)
    way = SharedPassword(options, store, passwords, events)
    metrics = LoginMetrics(CollectorRegistry(), "main")
    door = Door(options, {"hash": way}, tries, signer, events, metrics, lambda _caller: None)
    service = Service(connection, site="main", name="auth", version="1.0.0", description="")
    service.serve(contract.LOGIN, door.login)
    await service.start()
    try:
        yield door
    finally:
        await service.leave()
        await options.stop()
        await connection.close()
        await passwords.close()


async def test_a_burst_of_guesses_gets_at_most_three_looks_at_the_password(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    clock = Clock()
    one, two = WatchedPasswords(), WatchedPasswords()
    async with door(bus, store, one, clock), door(bus, store, two, clock):
        problems = await asyncio.gather(*(refusal(connection, WRONG) for _ in range(50)))
    assert one.verified + two.verified == 3
    codes = [problem.code for problem in problems]
    assert (codes.count("login_failed"), codes.count("locked_out")) == (3, 47)


async def test_a_lock_of_a_copy_that_died_is_told_of_once_by_those_who_meet_it(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    clock = Clock()
    one, two = WatchedPasswords(), WatchedPasswords()
    async with door(bus, store, one, clock), door(bus, store, two, clock):
        for lock in range(2):
            bucket = await connection.jetstream().key_value(subjects.TRIES)
            died = Tries(bucket, "main", Limits, clock)
            closed = [await (await died.take({"machine": KEY})).failed() for _ in range(3)]
            assert len(closed[-1]) == 1
            assert len(await locks_told(connection)) == lock
            clock.now += 7
            for _ in range(6):
                assert (await refusal(connection, RIGHT)).code == "locked_out"
            *_, told = await locks_told(connection)
            assert (told.machine, told.details["locked"]) == (KEY, "machine")
            assert told.details["seconds"] == 60 * 2**lock
            assert len(await locks_told(connection)) == lock + 1
            clock.now += 60 * 2**lock


async def locks_told(connection: Connection) -> list[Event]:
    """What has been told of locks."""
    locked: Kind = "login_locked"
    found = read(connection, "main", kinds=(locked,))
    async with contextlib.aclosing(found):
        return [event async for event in found]


async def test_entry_is_unlocked_after_its_time(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    clock = Clock()
    async with door(bus, store, WatchedPasswords(), clock):
        for _ in range(3):
            await refusal(connection, WRONG)
        clock.now += 59
        assert (await refusal(connection, RIGHT)).details.retry_after == 1.0
        clock.now += 1
        await sign_in(connection, RIGHT)


async def test_a_password_changed_while_an_old_hash_is_replaced_wins(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    await store.write(PASSWORD, old_hash(RIGHT).encode())
    passwords = WatchedPasswords()
    passwords.go_on.clear()
    async with door(bus, store, passwords, Clock()):
        signing_in = asyncio.create_task(sign_in(connection, RIGHT))
        await passwords.hashing.wait()
        await protect(store, OTHER_HASH)
        changed = (await store.read())[PASSWORD]
        passwords.go_on.set()
        assert (await signing_in).token
        assert (await store.read())[PASSWORD] == changed


async def test_without_the_bus_nobody_comes_in_uncounted(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    passwords = WatchedPasswords()
    async with door(bus, store, passwords, Clock()) as way_in:
        bus.kill()
        await until(lambda: connection.is_reconnecting)
        with pytest.raises(Problem, match="overloaded"):
            await asyncio.wait_for(
                way_in.login(Login(machine=MACHINE, password=RIGHT), Caller(KEY)), 10
            )
    assert passwords.verified == 0


async def test_the_key_is_published_again_while_the_service_runs(
    bus: BusServer, connection: Connection, store: OptionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    signers: list[Signer] = []

    def remembered(site: str) -> Signer:
        signers.append(Signer(site))
        return signers[-1]

    monkeypatch.setattr("services.auth.program.Signer", remembered)
    monkeypatch.setattr("services.auth.program.PUBLISH_EVERY", 0.05)
    async with auth(bus):
        key = subjects.site_key("main", signers[0].key_id)
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            await heard.put(message.data)

        await connection.subscribe(f"$KV.{subjects.KEYS}.{key}", cb=hear)
        for _ in range(3):
            published = await asyncio.wait_for(heard.get(), 5)
            assert b"expires_at" in published


async def test_nothing_of_the_service_is_left_when_it_has_gone(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    async with auth(bus):
        await sign_in(connection, RIGHT)
    await until(lambda: not [each for each in threading.enumerate() if "argon2" in each.name])
    assert not [task for task in asyncio.all_tasks() if "_publish_again" in repr(task)]


async def test_no_log_line_holds_a_password_or_a_token(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    with capture_logs() as lines:
        async with auth(bus):
            session = await sign_in(connection, RIGHT)
            for _ in range(4):
                await refusal(connection, WRONG)
    assert {"login succeeded", "login failed"} <= {line["event"] for line in lines}
    assert all(line["machine"] == KEY for line in lines if line["event"].startswith("login"))
    logged = str(lines)
    for secret in (RIGHT, WRONG, session.token, session.token.split(".")[2], "argon2id"):
        assert secret not in logged


async def test_not_even_the_detailed_log_holds_a_password(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    await protect(store)
    await store.write("detailed_logging", b"true")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "auth", "--server", bus.url, "--site", "main",
        stdout=DEVNULL, stderr=PIPE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        await asyncio.wait_for(wait_for_services(connection, "main", ["auth"]), 15)
        await refusal(connection, WRONG)
        session = await sign_in(connection, RIGHT)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 10)
    lines = log.decode()
    assert "a question was answered" in lines
    assert "login succeeded" in lines
    for secret in (RIGHT, WRONG, session.token, "$argon2id$"):
        assert secret not in lines
