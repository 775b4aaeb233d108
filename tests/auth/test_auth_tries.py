"""Failed sign-ins are counted by the server, whatever copy is asked and whatever restarts."""

import asyncio
from pathlib import Path

import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.problems import Problem
from services.auth.tries import LIMIT, LOCKED_FOR, Tries
from tests.buses import BusServer
from tests.echo import KEY, until

OTHER = "mac001b21aabbcc"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def _tries(connection: Connection, clock: Clock, site: str = "main") -> Tries:
    await prepare(connection.jetstream())
    return Tries(await connection.jetstream().key_value(subjects.TRIES), site, clock)


async def _locked(tries: Tries) -> float:
    with pytest.raises(Problem) as caught:
        await tries.take(KEY)
    assert caught.value.code == "locked_out"
    assert caught.value.details.retry_after is not None
    return caught.value.details.retry_after


async def test_three_tries_then_no_entry_for_ten_minutes(connection: Connection) -> None:
    clock = Clock()
    tries = await _tries(connection, clock)
    assert (LIMIT, LOCKED_FOR) == (3, 600.0)
    assert [await tries.take(KEY) for _ in range(LIMIT)] == [2, 1, 0]
    assert await _locked(tries) == 600.0
    clock.now += 599.5
    # Asking while it is locked does not lock it for longer.
    assert await _locked(tries) == 0.5
    clock.now += 0.5
    assert await tries.take(KEY) == 2


async def test_tries_of_long_ago_do_not_count(connection: Connection) -> None:
    clock = Clock()
    tries = await _tries(connection, clock)
    await tries.take(KEY)
    await tries.take(KEY)
    clock.now += LOCKED_FOR
    assert await tries.take(KEY) == 2


async def test_a_good_sign_in_forgets_and_counting_begins_anew(connection: Connection) -> None:
    tries = await _tries(connection, Clock())
    for _ in range(3):
        assert [await tries.take(KEY), await tries.take(KEY)] == [2, 1]
        await tries.forget(KEY)
    await tries.forget(KEY)
    assert await tries.take(KEY) == 2


async def test_machines_and_sites_are_counted_apart(connection: Connection) -> None:
    clock = Clock()
    tries = await _tries(connection, clock)
    for _ in range(LIMIT):
        await tries.take(KEY)
    assert await tries.take(OTHER) == 2
    assert await (await _tries(connection, clock, "london")).take(KEY) == 2
    await _locked(tries)


async def test_two_copies_count_together(bus: BusServer, connection: Connection) -> None:
    clock = Clock()
    other = await connect(bus.url, "other")
    one, two = await _tries(connection, clock), await _tries(other, clock)
    assert [await one.take(KEY), await two.take(KEY), await one.take(KEY)] == [2, 1, 0]
    await _locked(two)
    await _locked(one)
    await other.close()


async def test_a_restart_of_everything_unlocks_nothing(tmp_path: Path) -> None:
    clock = Clock()
    server = BusServer(tmp_path)
    server.start()
    connection = await connect(server.url, "before")
    tries = await _tries(connection, clock)
    for _ in range(LIMIT):
        await tries.take(KEY)
    await connection.close()
    server.stop()
    server.start()
    connection = await connect(server.url, "after")
    await _locked(await _tries(connection, clock))
    await connection.close()
    server.stop()


async def test_a_burst_gets_three_tries_whatever_copy_it_asks(
    bus: BusServer, connection: Connection
) -> None:
    clock = Clock()
    other = await connect(bus.url, "other")
    copies = [await _tries(connection, clock), await _tries(other, clock)]
    results = await asyncio.gather(
        *(copies[number % 2].take(KEY) for number in range(50)), return_exceptions=True
    )
    assert sorted(each for each in results if isinstance(each, int)) == [0, 1, 2]
    refused = [each for each in results if isinstance(each, Problem)]
    assert {each.code for each in refused} == {"locked_out"}
    assert len(refused) == 47
    await other.close()


async def test_without_the_bus_no_try_is_given(bus: BusServer, connection: Connection) -> None:
    tries = await _tries(connection, Clock())
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    with pytest.raises(Exception, match="outbound buffer"):
        await tries.take(KEY)
