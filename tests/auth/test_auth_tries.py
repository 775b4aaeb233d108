"""Failed sign-ins are counted by the server, whatever copy is asked and whatever restarts."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import nats.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from nats.js.kv import KeyValue
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.messages import decoder, encode
from bus.problems import Problem
from bus.technicians import key_of
from services.auth.lockout import (
    LONGEST_LOCK,
    UNDECIDED,
    Count,
    Limits,
    Scope,
    fail,
    sound,
    take,
    withdraw,
)
from services.auth.tries import Attempt, Lock, LockedOut, Tries
from tests.buses import BusServer
from tests.echo import KEY, until

OTHER = "mac001b21aabbcc"
ANNA = "LAB\\anna*)(uid=*"
ADDRESS = "2001:db8::7"
DAY = 86_400.0
START = 1_800_000_000.0
WHOLE: Mapping[Scope, str] = {"machine": KEY, "account": ANNA, "address": ADDRESS}


class World:
    """What the counting is told from outside: the time and the limits. A test sets both."""

    def __init__(self) -> None:
        self.now = START
        self.limits = Limits()

    def clock(self) -> float:
        return self.now


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def tries(connection: Connection, world: World) -> Tries:
    return await tries_of(connection, world)


async def bucket_of(connection: Connection) -> KeyValue:
    await prepare(connection.jetstream())
    return await connection.jetstream().key_value(subjects.TRIES)


async def tries_of(connection: Connection, world: World, site: str = "main") -> Tries:
    bucket = await bucket_of(connection)
    return Tries(bucket, site, lambda: world.limits, world.clock)


Told = list[tuple[Scope, str, float]]


def told(locks: Iterable[Lock]) -> Told:
    """What is locked, and for how long."""
    return [(lock.scope, lock.name, lock.retry_after) for lock in locks]


async def wrong(tries: Tries, who: Mapping[Scope, str]) -> Told:
    """Signs in with a wrong password; the locks that this closes."""
    return told(await (await tries.take(who)).failed())


async def lock_machine(tries: Tries, machine: str = KEY) -> None:
    for _ in range(3):
        await wrong(tries, {"machine": machine})


async def refusal(tries: Tries, who: Mapping[Scope, str]) -> LockedOut:
    """How a locked-out try is refused."""
    with pytest.raises(LockedOut) as caught:
        await tries.take(who)
    assert caught.value.code == "locked_out"
    return caught.value


async def wait_of(tries: Tries, who: Mapping[Scope, str]) -> float | None:
    return (await refusal(tries, who)).details.retry_after


async def left_of(tries: Tries, machine: str = KEY) -> int:
    """How many tries a machine has; costs none."""
    attempt = await tries.take({"machine": machine})
    await attempt.withdraw()
    assert attempt.left is not None
    return attempt.left + 1


async def counted_for(connection: Connection, key: str) -> Count:
    """What the bucket holds for a key of the site."""
    entry = await (await bucket_of(connection)).get(f"main.{key}")
    return decoder(Count).decode(entry.value or b"")


# One after the other


async def test_the_third_wrong_password_at_a_machine_locks_it_for_a_minute(
    tries: Tries, world: World
) -> None:
    seen: list[tuple[int | None, Told]] = []
    for _ in range(3):
        attempt = await tries.take({"machine": KEY})
        seen.append((attempt.left, told(await attempt.failed())))
    assert seen == [(2, []), (1, []), (0, [("machine", KEY, 60.0)])]
    assert await wait_of(tries, {"machine": KEY}) == 60.0
    world.now += 59.5
    # Asking while it is locked does not lock it for longer.
    assert await wait_of(tries, {"machine": KEY}) == 0.5
    world.now += 0.5
    assert await left_of(tries) == 3


async def test_each_further_lock_is_twice_as_long(tries: Tries, world: World) -> None:
    lengths = []
    for _ in range(8):
        await wrong(tries, {"machine": KEY})
        await wrong(tries, {"machine": KEY})
        ((_, _, seconds),) = await wrong(tries, {"machine": KEY})
        lengths.append(seconds)
        world.now += seconds
    assert lengths == [60, 120, 240, 480, 960, 1920, LONGEST_LOCK, LONGEST_LOCK]


async def test_a_first_lock_longer_than_the_longest_does_not_grow(
    tries: Tries, world: World
) -> None:
    world.limits = Limits(machine=1, lock=7200)
    for _ in range(2):
        assert await wrong(tries, {"machine": KEY}) == [("machine", KEY, 7200)]
        world.now += 7200


async def test_a_good_sign_in_forgets_tries_and_earlier_locks(tries: Tries, world: World) -> None:
    await lock_machine(tries)
    world.now += 60
    await wrong(tries, {"machine": KEY})
    await (await tries.take({"machine": KEY})).succeeded()
    assert await left_of(tries) == 3
    await lock_machine(tries)
    assert await wait_of(tries, {"machine": KEY}) == 60


async def test_good_sign_ins_have_no_end(tries: Tries) -> None:
    for _ in range(5):
        attempt = await tries.take({"machine": KEY})
        assert attempt.left == 2
        await attempt.succeeded()


@pytest.mark.parametrize(("later", "length"), [(DAY - 1, 120.0), (DAY, 60.0)])
async def test_a_day_after_the_last_lock_it_is_forgotten(
    tries: Tries, world: World, later: float, length: float
) -> None:
    await lock_machine(tries)
    world.now += later
    await lock_machine(tries)
    assert await wait_of(tries, {"machine": KEY}) == length


async def test_failed_tries_count_as_long_as_the_window(tries: Tries, world: World) -> None:
    await wrong(tries, {"machine": KEY})
    world.now += 1
    await wrong(tries, {"machine": KEY})
    world.now += 598
    assert await left_of(tries) == 1
    world.now += 1
    assert await left_of(tries) == 2
    world.now += 1
    assert await left_of(tries) == 3


async def test_machines_and_sites_are_counted_apart(
    connection: Connection, tries: Tries, world: World
) -> None:
    await lock_machine(tries)
    assert await left_of(tries, OTHER) == 3
    assert await left_of(await tries_of(connection, world, "london")) == 3
    await refusal(tries, {"machine": KEY})


async def test_ten_wrong_passwords_lock_an_account_at_every_machine_however_it_is_spelt(
    tries: Tries,
) -> None:
    for number in range(9):
        assert not await wrong(tries, {"machine": f"mac{number:012x}", "account": ANNA})
    locks = await wrong(tries, {"machine": KEY, "account": ANNA.upper() + " "})
    assert locks == [("account", ANNA, 60.0)]
    problem = await refusal(tries, {"machine": OTHER, "account": ANNA})
    assert told(problem.locks) == locks
    assert problem.closed == []
    assert await left_of(tries, OTHER) == 3
    await tries.take({"machine": OTHER, "account": "berta"})


async def test_thirty_wrong_passwords_lock_an_address_for_every_account(tries: Tries) -> None:
    for number in range(29):
        assert not await wrong(tries, {"account": f"user{number}", "address": ADDRESS})
    assert await wrong(tries, {"address": ADDRESS}) == [("address", ADDRESS, 60.0)]
    await refusal(tries, WHOLE)
    await tries.take({**WHOLE, "address": "192.0.2.1"})


async def test_a_good_sign_in_forgets_machine_and_account_but_not_the_address(
    tries: Tries, world: World
) -> None:
    world.limits = Limits(machine=2, account=2, address=3)
    for _ in range(2):
        await wrong(tries, WHOLE)
        world.now += 60
        await (await tries.take(WHOLE)).succeeded()
    assert await wrong(tries, WHOLE) == [("address", ADDRESS, 60.0)]


async def test_withdrawn_tries_cost_nothing(tries: Tries, world: World) -> None:
    world.limits = Limits(machine=1, account=1, address=1)
    for _ in range(3):
        attempt = await tries.take(WHOLE)
        assert attempt.left == 0
        await attempt.withdraw()
        world.now += UNDECIDED
    assert len(await wrong(tries, WHOLE)) == 3


async def test_the_longest_of_several_locks_is_told(tries: Tries, world: World) -> None:
    world.limits = Limits(account=1, address=1)
    await wrong(tries, {"address": ADDRESS})
    world.now += 10
    await wrong(tries, {"account": ANNA})
    problem = await refusal(tries, WHOLE)
    assert problem.details.retry_after == 60
    assert told(problem.locks) == [("account", ANNA, 60), ("address", ADDRESS, 50)]


async def test_who_is_locked_out_costs_the_others_no_try_and_the_bus_no_write(
    connection: Connection, tries: Tries, world: World
) -> None:
    world.limits = Limits(account=1)
    await wrong(tries, {"account": ANNA})
    bucket = await bucket_of(connection)
    before = (await bucket.status()).stream_info.state.last_seq
    for _ in range(5):
        await refusal(tries, WHOLE)
    assert (await bucket.status()).stream_info.state.last_seq == before
    assert await left_of(tries) == 3


async def test_a_lowered_limit_counts_at_once_and_the_lock_is_told_once(
    tries: Tries, world: World
) -> None:
    world.limits = Limits(account=5)
    for _ in range(2):
        await wrong(tries, {"account": ANNA})
    world.limits = Limits(account=2)
    problem = await refusal(tries, WHOLE)
    assert told(problem.closed) == told(problem.locks) == [("account", ANNA, 60.0)]
    assert (await refusal(tries, WHOLE)).closed == []
    assert await left_of(tries) == 3


async def test_a_raised_limit_counts_at_once(tries: Tries, world: World) -> None:
    await wrong(tries, {"machine": KEY})
    await wrong(tries, {"machine": KEY})
    world.limits = Limits(machine=9)
    assert await left_of(tries) == 7


async def test_a_failure_after_a_good_sign_in_of_another_counts(tries: Tries) -> None:
    late, good = await tries.take(WHOLE), await tries.take(WHOLE)
    await good.succeeded()
    await late.failed()
    assert await left_of(tries) == 2


async def test_a_failure_of_a_try_from_before_the_lock_is_part_of_that_lock(
    tries: Tries, world: World
) -> None:
    late = await tries.take({"machine": KEY})
    await wrong(tries, {"machine": KEY})
    world.limits = Limits(machine=1)
    await refusal(tries, {"machine": KEY})
    assert await late.failed() == []
    world.now += 60
    world.limits = Limits()
    assert await late.failed() == []
    assert await left_of(tries) == 3


@pytest.mark.parametrize("machine", ["", "a.b", "a b", ">", "*", "ABC", "x" * 65, "abc\n", "ä"])
async def test_what_is_no_machine_key_never_becomes_a_key_of_the_bucket(
    tries: Tries, machine: str
) -> None:
    with pytest.raises(Problem, match="bad_machine"):
        await tries.take({"machine": machine})


@pytest.mark.parametrize("name", ["", ".", "*", ">", "ä\0ö", "x" * 10_000, "\u202e", "a b.c"])
async def test_accounts_and_addresses_may_have_any_characters(
    tries: Tries, world: World, name: str
) -> None:
    world.limits = Limits(account=1, address=1)
    locks = await wrong(tries, {"account": name, "address": name})
    assert locks == [("account", name, 60), ("address", name, 60)]


async def test_one_machine_costs_one_message_to_try_and_one_to_succeed(
    connection: Connection, tries: Tries
) -> None:
    sent = connection.stats["out_msgs"]
    attempt = await tries.take({"machine": KEY})
    assert connection.stats["out_msgs"] - sent == 1
    await attempt.succeeded()
    assert connection.stats["out_msgs"] - sent == 2


async def test_a_machine_alone_that_is_locked_out_costs_the_bus_no_write(
    connection: Connection, tries: Tries, world: World
) -> None:
    await lock_machine(tries)
    bucket = await bucket_of(connection)
    before = (await bucket.status()).stream_info.state
    copy = await tries_of(connection, world)
    for _ in range(5):
        assert await wait_of(copy, {"machine": KEY}) == 60
    after = (await bucket.status()).stream_info.state
    assert (after.last_seq, after.bytes) == (before.last_seq, before.bytes)


@pytest.mark.parametrize("known", ["failed", "forgotten", "undecided", "withdrawn"])
async def test_a_try_of_one_who_is_counted_already_is_added_to_the_count(
    connection: Connection, tries: Tries, world: World, known: str
) -> None:
    attempt = await tries.take({"machine": KEY})
    match known:
        case "failed":
            await attempt.failed()
        case "forgotten":
            await attempt.succeeded()
        case "withdrawn":
            await attempt.withdraw()
    copy = await tries_of(connection, world)
    second = await copy.take({"machine": KEY})
    assert second.left == (1 if known in {"failed", "undecided"} else 2)
    assert len((await counted_for(connection, f"machine.{KEY}")).tries) == 3 - second.left


# Operators


async def test_operators_see_what_is_locked_and_unlock_it(
    connection: Connection, tries: Tries, world: World
) -> None:
    assert told(await tries.locked()) == []
    world.limits = Limits(machine=1, account=1)
    london = await tries_of(connection, world, "london")
    await wrong(london, {"machine": OTHER})
    await wrong(tries, {"machine": KEY, "account": ANNA, "address": ADDRESS})
    world.now += 10
    locks = [("machine", KEY, 50), ("account", ANNA, 50)]
    assert told(await tries.locked()) == locks
    assert await tries.unlock("account", ANNA.swapcase())
    assert not await tries.unlock("account", ANNA)
    assert told(await tries.locked()) == locks[:1]
    assert await tries.unlock("machine", KEY)
    assert not await tries.unlock("machine", OTHER)
    assert await tries.unlock("address", ADDRESS)
    assert told(await tries.locked()) == []
    await wrong(tries, {"machine": KEY, "account": ANNA})
    # The first lock again, not the second.
    assert await wait_of(tries, {"machine": KEY, "account": ANNA}) == 60


async def test_a_lock_that_has_ended_is_not_shown_but_can_be_forgotten(
    tries: Tries, world: World
) -> None:
    await lock_machine(tries)
    world.now += 60
    assert told(await tries.locked()) == []
    assert await tries.unlock("machine", KEY)
    assert not await tries.unlock("machine", KEY)


async def test_many_locks_are_all_shown(tries: Tries, world: World) -> None:
    world.limits = Limits(account=1)
    names = [f"user{number:03}" for number in range(300)]
    await asyncio.gather(*(wrong(tries, {"account": name}) for name in names))
    assert [lock.name for lock in await tries.locked()] == names


# What else may stand in the bucket


async def test_what_the_previous_release_counted_is_not_read(
    connection: Connection, tries: Tries
) -> None:
    bucket = await bucket_of(connection)
    await bucket.put(f"main.{KEY}", b'{"tries":3,"last":1800000000.0}')
    with capture_logs() as lines:
        assert await left_of(tries) == 3
        assert told(await tries.locked()) == []
    assert lines == []


JUNK = [
    b"",
    b"junk",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"name":"x","more":' + b"[" * 100_000,
    b'{"tries":3,"last":1800000000.0}',
    b'{"name":"x","locks":-1}',
    b'{"name":"x","locked_until":1e300}',
    b'{"name":"x","locked_until":1e999}',
    b'{"name":"x","locked_at":1900000000,"locked_until":1900000001}',
    b'{"name":"x","tries":[{"id":"a","at":1e300},{"id":"b","at":1e300},{"id":"c","at":1e300}]}',
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_junk_counts_for_nothing_and_is_told_once_and_counting_goes_on(
    connection: Connection, tries: Tries, junk: bytes
) -> None:
    bucket = await bucket_of(connection)
    for key in (f"machine.{KEY}", f"account.{key_of(ANNA)}"):
        await bucket.put(f"main.{key}", junk)
    with capture_logs() as lines:
        assert told(await tries.locked()) == []
        assert told(await tries.locked()) == []
        for left in (2, 1, 0):
            attempt = await tries.take(WHOLE)
            assert attempt.left == left
            await attempt.failed()
    await refusal(tries, WHOLE)
    assert [line["log_level"] for line in lines] == ["error", "error"]
    assert len({line["key"] for line in lines}) == 2


async def test_purged_and_foreign_keys_do_no_harm(connection: Connection, tries: Tries) -> None:
    bucket = await bucket_of(connection)
    await lock_machine(tries)
    await bucket.purge(f"main.machine.{KEY}")
    await bucket.put("main.planet.mars", b"x")
    await bucket.put("main2.machine.abc", b"x")
    assert told(await tries.locked()) == []
    assert await left_of(tries) == 3


# Copies, restarts, and a bus that is gone


async def test_two_copies_count_together(
    bus: BusServer, connection: Connection, tries: Tries, world: World
) -> None:
    other = await connect(bus.url, "other")
    two = await tries_of(other, world)
    await wrong(tries, {"machine": KEY})
    await wrong(two, {"machine": KEY})
    assert await wrong(tries, {"machine": KEY}) == [("machine", KEY, 60)]
    await refusal(two, {"machine": KEY})
    assert await two.unlock("machine", KEY)
    assert await left_of(tries) == 3
    await other.close()


async def test_a_restart_of_everything_unlocks_nothing(tmp_path: Path, world: World) -> None:
    server = BusServer(tmp_path)
    server.start()
    connection = await connect(server.url, "before")
    await lock_machine(await tries_of(connection, world))
    await connection.close()
    server.stop()
    server.start()
    connection = await connect(server.url, "after")
    tries = await tries_of(connection, world)
    await refusal(tries, {"machine": KEY})
    assert told(await tries.locked()) == [("machine", KEY, 60)]
    await connection.close()
    server.stop()


async def test_without_the_bus_no_try_is_given(
    bus: BusServer, connection: Connection, tries: Tries
) -> None:
    attempt = await tries.take(WHOLE)
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    with pytest.raises(nats.errors.Error, match="outbound buffer"):
        await tries.take(WHOLE)
    for ending in (attempt.failed, attempt.succeeded, attempt.withdraw, tries.locked):
        with pytest.raises(nats.errors.Error, match="outbound buffer"):
            await ending()


# Many at once


async def test_undecided_tries_make_others_wait_and_then_be_overloaded_not_locked_out(
    tries: Tries,
) -> None:
    attempts = [await tries.take({"machine": KEY}) for _ in range(3)]
    with pytest.raises(Problem, match="overloaded") as caught:
        await tries.take(WHOLE)
    assert caught.value.details.retry_after
    assert told(await tries.locked()) == []
    await attempts[0].succeeded()
    assert await left_of(tries) == 3


@pytest.mark.parametrize("ending", ["succeeded", "withdraw", "failed"])
async def test_who_waits_is_let_on_as_soon_as_a_try_is_decided(tries: Tries, ending: str) -> None:
    attempts = [await tries.take({"machine": KEY}) for _ in range(3)]
    waiting = asyncio.create_task(tries.take({"machine": KEY}))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    for attempt in attempts:
        await {
            "succeeded": attempt.succeeded,
            "withdraw": attempt.withdraw,
            "failed": attempt.failed,
        }[ending]()
    if ending == "failed":
        with pytest.raises(LockedOut):
            await waiting
    else:
        assert (await waiting).left is not None


async def test_tries_of_a_copy_that_died_count_as_failed_until_the_window_has_passed(
    tries: Tries, world: World
) -> None:
    await tries.take({"machine": KEY})
    await tries.take({"machine": KEY})
    world.now += UNDECIDED
    assert await wrong(tries, {"machine": KEY}) == [("machine", KEY, 60)]
    await tries.take({"machine": OTHER})
    world.now += UNDECIDED + 599
    assert await left_of(tries, OTHER) == 2
    world.now += 1
    assert await left_of(tries, OTHER) == 3


async def test_a_lock_that_died_copies_left_due_is_closed_by_the_next_try_and_told_by_one(
    tries: Tries, world: World
) -> None:
    for _ in range(3):
        await tries.take({"machine": KEY})
    world.now += UNDECIDED
    answers = await asyncio.gather(
        *(tries.take({"machine": KEY}) for _ in range(20)), return_exceptions=True
    )
    problems = [answer for answer in answers if isinstance(answer, LockedOut)]
    assert len(problems) == 20
    assert told(lock for each in problems for lock in each.closed) == [("machine", KEY, 60)]
    world.now += 60
    assert await left_of(tries) == 3


async def test_a_technician_signs_in_at_thirty_machines_at_once(
    bus: BusServer, connection: Connection, tries: Tries, world: World
) -> None:
    other = await connect(bus.url, "other")
    copies = [tries, await tries_of(other, world)]

    async def sign_in(number: int) -> None:
        machine = f"mac{number:012x}"
        attempt = await copies[number % 2].take({**WHOLE, "machine": machine})
        await attempt.succeeded()

    await asyncio.gather(*(sign_in(number) for number in range(30)))
    assert (await counted_for(connection, f"address.{key_of(ADDRESS)}")).tries == ()
    await other.close()


@pytest.mark.parametrize(("number", "apart"), [(50, 0), (200, 0), (200, 0.0002)])
@pytest.mark.parametrize(("scope", "limit"), [("machine", 3), ("account", 10), ("address", 30)])
async def test_a_burst_of_guesses_gets_as_many_looks_as_the_limit_and_closes_one_lock(
    bus: BusServer,
    tries: Tries,
    world: World,
    number: int,
    apart: float,
    scope: Scope,
    limit: int,
) -> None:
    other = await connect(bus.url, "other")
    copies = [tries, await tries_of(other, world)]
    who: Mapping[Scope, str] = {scope: KEY}

    async def guess(each: int) -> list[Lock]:
        await asyncio.sleep(each * apart)
        attempt = await copies[each % 2].take(who)
        # Looking at a password takes a moment.
        await asyncio.sleep(0.01)
        return await attempt.failed()

    results = await asyncio.gather(*map(guess, range(number)), return_exceptions=True)
    looks = [each for each in results if isinstance(each, list)]
    assert len(looks) == limit
    assert told(lock for locks in looks for lock in locks) == [(scope, KEY, 60)]
    refused = [each for each in results if isinstance(each, Problem)]
    assert len(refused) == number - limit
    assert {each.code for each in refused} <= {"locked_out", "overloaded"}
    await other.close()


async def test_guesses_that_are_never_decided_get_no_more_looks_either(tries: Tries) -> None:
    results = await asyncio.gather(*(tries.take(WHOLE) for _ in range(50)), return_exceptions=True)
    taken = [each for each in results if isinstance(each, Attempt)]
    assert sorted(each.left or 0 for each in taken) == [0, 1, 2]
    assert {each.code for each in results if isinstance(each, Problem)} == {"overloaded"}
    for attempt in taken:
        await attempt.withdraw()
    # Those that were turned away have given back what they took elsewhere.
    assert not await tries.unlock("account", ANNA)
    assert not await tries.unlock("address", ADDRESS)


async def test_tries_at_three_scopes_at_once_are_all_or_nothing(tries: Tries, world: World) -> None:
    world.limits = Limits(machine=3, account=20, address=5)
    machines = [f"mac{number:012x}" for number in range(40)]

    async def guess(machine: str) -> Told:
        return await wrong(tries, {"machine": machine, "account": ANNA, "address": ADDRESS})

    results = await asyncio.gather(*map(guess, machines), return_exceptions=True)
    looks = sum(isinstance(each, list) for each in results)
    assert looks == 5
    world.limits = Limits(machine=3, account=looks + 1)
    assert await wrong(tries, {"account": ANNA}) == [("account", ANNA, 60)]
    lefts = [await left_of(tries, machine) for machine in machines]
    assert sorted(lefts) == [2] * looks + [3] * (len(machines) - looks)


async def test_no_try_is_lost_or_counted_twice_when_many_begin_and_end_in_any_order(
    bus: BusServer, connection: Connection, tries: Tries, world: World
) -> None:
    world.limits = Limits(account=1000)
    other = await connect(bus.url, "other")
    copies = [tries, await tries_of(other, world)]

    async def one(number: int) -> None:
        await asyncio.sleep(number % 17 / 1000)
        attempt = await copies[number % 2].take({"account": ANNA})
        await asyncio.sleep(number % 5 / 1000)
        await (attempt.failed() if number % 3 else attempt.withdraw())

    await asyncio.gather(*map(one, range(150)))
    counted = await counted_for(connection, f"account.{key_of(ANNA)}")
    assert [each.failed for each in counted.tries] == [True] * 100
    assert len({each.id for each in counted.tries}) == 100
    await other.close()


async def test_a_try_that_looks_while_another_fails_does_not_undo_that(
    connection: Connection, tries: Tries
) -> None:
    for ending in ("failed", "withdraw"):
        first = await tries.take({"machine": KEY})
        late = await tries.take({"machine": KEY})
        ended = late.failed() if ending == "failed" else late.withdraw()
        # The first holds the line; the look of the second and the end of the third wait in it.
        _, attempt, _ = await asyncio.gather(first.withdraw(), tries.take({"machine": KEY}), ended)
        await attempt.withdraw()
        counted = await counted_for(connection, f"machine.{KEY}")
        assert [each.failed for each in counted.tries] == [True]


async def test_tries_that_are_called_off_stand_in_nobodys_way(
    connection: Connection, tries: Tries, world: World
) -> None:
    world.limits = Limits(machine=1000)
    for number in range(20):
        working = [asyncio.create_task(tries.take({"machine": KEY})) for _ in range(10)]
        # Whatever they have come to by then.
        await asyncio.wait(working, timeout=number / 5_000)
        called_off = working[::2]
        for each in called_off:
            each.cancel()
        await asyncio.gather(*called_off, return_exceptions=True)
        await asyncio.gather(*working[1::2])
    counted = await counted_for(connection, f"machine.{KEY}")
    assert 100 <= len(counted.tries) <= 200
    assert len({each.id for each in counted.tries}) == len(counted.tries)


# The rule, against a slow reference that keeps every try and lock and looks them through


class Record(Struct):
    """Everything the reference knows of one try."""

    id: str
    taken: float
    failed: float | None = None
    void: bool = False


class Reference:
    """The rule as one would tell it, with the whole history at hand."""

    def __init__(self) -> None:
        self.history: list[Record] = []
        self.locks: list[tuple[float, float]] = []

    def locked_until(self) -> float:
        return max((end for _, end in self.locks), default=0.0)

    def failures(self, now: float, limits: Limits) -> list[Record]:
        return [
            each
            for each in self.history
            if not each.void and 0 <= now - self._bad_since(each) < limits.window
        ]

    def undecided(self, now: float) -> list[Record]:
        return [each for each in self.history if not each.void and now < self._bad_since(each)]

    def close_if_due(self, now: float, limits: Limits) -> None:
        if now < self.locked_until() or len(self.failures(now, limits)) < limits.machine:
            return
        last = max((start for start, _ in self.locks), default=0.0)
        if now - last >= DAY:
            self.locks.clear()
        length = limits.lock
        for _ in self.locks:
            length = min(2 * length, max(LONGEST_LOCK, limits.lock))
        self.locks.append((now, now + length))
        for each in self.history:
            each.void = True

    def take(self, name: str, now: float, limits: Limits) -> bool:
        self.close_if_due(now, limits)
        used = len(self.failures(now, limits)) + len(self.undecided(now))
        if now < self.locked_until() or used >= limits.machine:
            return False
        self.history.append(Record(name, now))
        return True

    def fail(self, record: Record, now: float, limits: Limits) -> None:
        if any(start >= record.taken and now - start < DAY for start, _ in self.locks):
            return
        record.failed, record.void = now, False
        self.close_if_due(now, limits)

    def forget(self) -> None:
        self.locks.clear()
        for each in self.history:
            each.void = True

    def _bad_since(self, each: Record) -> float:
        return each.taken + UNDECIDED if each.failed is None else each.failed


limits_of_a_site = st.builds(
    Limits,
    machine=st.integers(1, 4),
    window=st.sampled_from([30.0, 600.0]),
    lock=st.sampled_from([1.0, 60.0, 1000.0, 7200.0]),
)
steps = st.one_of(
    st.just("take"),
    st.just("take"),
    st.tuples(st.sampled_from(["fail", "fail", "withdraw", "forget"]), st.integers(0, 9)),
    st.sampled_from([0.5, UNDECIDED, 30.0, 61.0, 600.0, 4000.0, DAY]),
    limits_of_a_site,
)


@given(limits_of_a_site, st.lists(steps, max_size=60))
@settings(max_examples=200, deadline=None)
def test_counting_agrees_with_the_reference(
    limits: Limits, sequence: list[str | tuple[str, int] | float | Limits]
) -> None:
    count, reference, now = Count(name="x"), Reference(), START
    open_tries: list[Record] = []
    for number, step in enumerate(sequence):
        match step:
            case Limits():
                # The reference forgets nothing; what a short window has forgotten is gone.
                limits = replace(step, window=min(step.window, limits.window))
            case float():
                now += step
            case "take":
                count = take(count, str(number), now, limits.machine, limits)
                taken = any(each.id == str(number) for each in count.tries)
                assert taken == reference.take(str(number), now, limits)
                if taken:
                    open_tries.append(reference.history[-1])
            case (ending, which) if open_tries:
                record = open_tries.pop(int(which) % len(open_tries))
                if ending == "fail":
                    count = fail(count, record.id, record.taken, now, limits.machine, limits)
                    reference.fail(record, now, limits)
                elif ending == "withdraw":
                    count = withdraw(count, record.id)
                    record.void = True
                else:
                    count = Count(name="x")
                    reference.forget()
        assert max(0, count.locked_until - now) == max(0, reference.locked_until() - now)
        assert sound(count, now)
        assert decoder(Count).decode(encode(count)) == count


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_never_are_more_tries_out_than_the_limit(limit: int, order: list[bool]) -> None:
    limits = Limits(machine=limit)
    count = Count(name="x")
    looks = 0
    out: list[str] = []
    for number, taking in enumerate(order):
        if taking:
            count = take(count, str(number), START, limit, limits)
            if any(each.id == str(number) for each in count.tries):
                out.append(str(number))
                looks += 1
        elif out:
            count = fail(count, out.pop(), START, START, limit, limits)
    assert looks <= limit
