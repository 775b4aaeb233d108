"""Signing in with accounts of the site: refusals, locks, and what they do not tell."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from bus import contract, subjects
from bus.buckets import prepare
from bus.caller import REQUEST_INFO
from bus.machines import machine_key
from bus.messages import Login, encode
from bus.problems import CODE_HEADER, Problem, from_wire
from services.auth.program import program as auth
from tests.guarded import RIGHT, WRONG, Guarded, by_chance, protected
from tests.site import (
    STAFF_0117,
    Asker,
    eventually,
    new_machine,
    refused,
    running,
)

KEY = machine_key(STAFF_0117)


@pytest.fixture
async def guarded(url: str, name: str, client: Asker) -> AsyncIterator[Guarded]:
    """A site with an auth service, where accounts of its own are asked for."""
    async with protected(client) as site, running(url, name, auth):
        yield site


NASTY = {
    "no user name": ("", RIGHT),
    "blank user name": ("  ", RIGHT),
    "empty password": ("ann", ""),
    "NUL in the password": ("ann", RIGHT + "\0"),
    "NUL in the user name": ("ann\0", RIGHT),
    "a password of 10 kB": ("ann", "x" * 10_240),
    "a filter": ("*)(uid=*", RIGHT),
    "another realm": ("ann@elsewhere.example", RIGHT),
    "another domain": ("ELSEWHERE\\ann", RIGHT),
    "a long user name": ("a" * 1000, RIGHT),
    "half a character": ("ann", "\N{PILE OF POO}" * 300),
}


@pytest.mark.parametrize("what", NASTY)
async def test_bad_input_is_refused_told_of_and_leaks_nothing(guarded: Guarded, what: str) -> None:
    await guarded.employ("ann")
    username, password = NASTY[what]
    machine = new_machine(abs(hash(what)) % 10_000)
    with capture_logs() as lines, pytest.raises(Problem) as caught:
        await guarded.login(machine, password, username)
    assert caught.value.code == "login_failed"
    (event,) = await guarded.events("login_failed")
    assert event.machine == machine_key(machine)
    assert len(encode(event)) < 2000
    if password:
        assert password not in str(lines) + repr(event)


async def test_a_login_without_a_user_name_is_refused(guarded: Guarded) -> None:
    with refused("login_failed"):
        await guarded.login(STAFF_0117, RIGHT)


async def test_failed_sign_ins_lock_an_account_at_every_machine_known_or_not(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")
    await guarded.set("tries_per_account", "4")
    answers: dict[str, list[tuple[str, object]]] = {}
    for name in ("ann", "nobody"):
        answers[name] = []
        for number in range(6):
            machine = new_machine(number + (100 if name == "ann" else 200))
            with pytest.raises(Problem) as caught:
                await guarded.login(machine, RIGHT if number == 5 else WRONG, name.upper())
            details = caught.value.details
            answers[name].append((caught.value.code, details.attempts_left))
    # Whether there is such an account cannot be told from the answers.
    assert answers["ann"] == answers["nobody"]
    assert [code for code, _ in answers["ann"]] == ["login_failed"] * 4 + ["locked_out"] * 2
    locked = await guarded.events("login_locked")
    assert [(e.technician, e.details["locked"]) for e in locked] == [
        ("ANN", "account"),
        ("NOBODY", "account"),
    ]


async def test_a_good_sign_in_says_nothing_of_the_tries_of_others(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.employ("bob")
    for _ in range(2):
        with refused("login_failed"):
            await guarded.login(STAFF_0117, WRONG, "bob")
        await guarded.enter("ann")
    with refused("login_failed") as caught:
        await guarded.login(STAFF_0117, WRONG, "bob")
    assert caught[0].details.attempts_left == 2


async def _login_from(guarded: Guarded, number: int, address: str) -> Problem | None:
    machine = new_machine(number)
    key = machine_key(machine)
    subject = subjects.endpoint(guarded.site, "auth", contract.LOGIN.verb, key)
    reply: Msg = await guarded.connection.request(
        subject,
        encode(Login(machine=machine, username=f"guess{number}", password=WRONG)),
        timeout=10,
        headers={REQUEST_INFO: json.dumps({"host": address})},
    )
    return from_wire(reply.data) if reply.headers and CODE_HEADER in reply.headers else None


async def test_where_the_bus_tells_addresses_they_are_locked_too(guarded: Guarded) -> None:
    await guarded.set("tries_per_address", "3")
    await guarded.set("trust_request_info", "true")
    codes = []
    for number in range(5):
        problem = await _login_from(guarded, number, "192.0.2.7")
        codes.append(problem and problem.code)
    assert codes == ["login_failed"] * 3 + ["locked_out"] * 2
    other = await _login_from(guarded, 9, "192.0.2.8")
    assert other is not None
    assert other.code == "login_failed"
    (locked,) = await guarded.events("login_locked")
    assert (locked.details["locked"], locked.details["address"]) == ("address", "192.0.2.7")


async def test_an_address_that_a_caller_may_have_made_up_counts_for_nothing(
    guarded: Guarded,
) -> None:
    await guarded.set("tries_per_address", "1")
    for number in range(3):
        problem = await _login_from(guarded, number, "192.0.2.7")
        assert problem is not None
        assert problem.code == "login_failed"
    assert "192.0.2.7" not in repr(await guarded.events())


async def _times(guarded: Guarded, order: random.Random) -> dict[str, list[float]]:
    """Seconds until a refusal, of pairs that are asked one after the other in either order."""
    taken: dict[str, list[float]] = {"ann": [], "nobody": []}
    for number in range(16):
        for name in order.sample(sorted(taken), 2):
            began = time.perf_counter()
            with refused("login_failed"):
                await guarded.login(new_machine(number), WRONG, name)
            taken[name].append(time.perf_counter() - began)
    return taken


async def test_the_time_an_answer_takes_does_not_tell_whether_there_is_an_account(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")
    for option in ("tries_per_machine", "tries_per_account"):
        await guarded.set(option, "100")
    order = random.Random(4)
    shares = []
    # Once in a hundred times it looks as if by mere chance; hardly three times in a row.
    while len(shares) < 3 and (not shares or shares[-1] < 0.01):
        taken = await _times(guarded, order)
        shares.append(by_chance(taken["ann"], taken["nobody"], order))
    assert shares[-1] >= 0.01, f"differences as great come by chance in {shares} of all cases"


async def test_a_sign_in_that_cannot_be_told_of_lets_nobody_in(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")
    await guarded.connection.jetstream().delete_stream(subjects.EVENTS)
    try:
        with refused("overloaded"):
            await guarded.enter("ann")
    finally:
        await prepare(guarded.connection.jetstream())
    assert await guarded.enter("ann")


async def test_the_options_of_a_session_are_in_force_at_once(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.set("session_lifetime", "90")

    async def lifetime() -> float:
        session = await guarded.login(STAFF_0117, RIGHT, "ann")
        return session.expires_at.timestamp() - time.time()

    assert 80 < await eventually(lifetime, lambda seconds: seconds < 100) <= 90


async def test_thirty_machines_may_be_signed_in_to_at_once_with_one_account(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")

    async def enter(number: int) -> str:
        while True:
            try:
                return (await guarded.login(new_machine(number), RIGHT, "ann")).token
            except Problem as problem:
                if problem.code != "overloaded":
                    raise
                await asyncio.sleep(0.1)

    assert len(set(await asyncio.gather(*(enter(n) for n in range(30))))) == 30
