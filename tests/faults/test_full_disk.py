"""There is no room left for what the bus should keep."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nats.js.errors
import pytest
from nats.js.api import StreamConfig

from tests.faults.conftest import Size
from tests.faults.estate import PASSWORD, SafeBus, SmallDisk, estate
from tests.faults.machines import Progress, Visit, go
from tests.faults.reckoning import Before, reckon
from tests.site import DESKTOP, STAFF_0117, Asker, new_machine, problem_of

_MIB: Final = 1024 * 1024
_BALLAST: Final = "BALLAST"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system for the bus alone."""
    found = SmallDisk(tmp_path / "store", "16m")
    yield found
    found.remove()


def visits(size: Size) -> list[Visit]:
    """A visit of half of the machines."""
    return [Visit(new_machine(number), DESKTOP, None) for number in range(size.machines // 2)]


async def taken_until_refused(client: Asker, token: str) -> list[Visit]:
    """Asks until the bus has no room for a request; those before that one.

    A full disk still has room in the blocks that are begun, and what the bus gives up makes room.
    """
    taken: list[Visit] = []
    async with asyncio.timeout(30):
        while True:
            visit = Visit(STAFF_0117, DESKTOP, None, "vanishes", sent=True)
            asking = client.schedule(STAFF_0117, DESKTOP, request_id=visit.request_id, token=token)
            if await problem_of(asking) == "overloaded":
                return taken
            taken.append(visit)


async def fill(client: Asker) -> None:
    """Leaves no room in what JetStream may use."""
    stream = client.connection.jetstream()
    await stream.add_stream(StreamConfig(name=_BALLAST, subjects=["ballast"]))
    piece = _MIB // 4
    while piece:
        try:
            await stream.publish("ballast", b"\0" * piece)
        except nats.js.errors.APIError:
            piece //= 4


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_room_nothing_is_accepted_and_with_room_again_everything_is_done(
    tmp_path: Path, name: str, dsn: str, size: Size, chance: random.Random
) -> None:
    bus = SafeBus(tmp_path, room=8 * _MIB)
    bus.start()
    try:
        async with estate(bus, name, dsn, tmp_path, copies=1) as site:
            before = Before.of(site.express)
            token = (await site.client.login(STAFF_0117, PASSWORD)).token
            coming, progress = visits(size), Progress()
            going = asyncio.create_task(go(bus.url, name, coming, chance, progress))
            await progress.reached(chance.randrange(size.machines // 4, size.machines))
            await fill(site.client)
            coming += await taken_until_refused(site.client, token)
            await site.client.connection.jetstream().delete_stream(_BALLAST)
            await going
            await site.settled()
            await site.leave()
            await reckon(site, before, coming, every_visit_is_told=False)
    finally:
        bus.stop()


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_bus_whose_disk_was_full_goes_on_with_all_it_has_accepted_once_it_is_restarted(
    tmp_path: Path, name: str, dsn: str, size: Size, chance: random.Random, disk: SmallDisk
) -> None:
    bus = SafeBus(tmp_path, disk=disk)
    bus.start()
    try:
        async with estate(bus, name, dsn, tmp_path, copies=1) as site:
            before = Before.of(site.express)
            token = (await site.client.login(STAFF_0117, PASSWORD)).token
            coming, progress = visits(size), Progress()
            going = asyncio.create_task(go(bus.url, name, coming, chance, progress))
            await progress.reached(chance.randrange(size.machines // 4, size.machines))
            disk.fill()
            coming += await taken_until_refused(site.client, token)
            disk.free()
            # The server uses its disk no more once that was full: whoever makes room restarts it.
            await site.restart_bus()
            await going
            await site.settled()
            await site.leave()
            await reckon(site, before, coming, every_visit_is_told=False)
    finally:
        bus.stop()
