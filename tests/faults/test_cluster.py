"""A bus of three servers, each of which dies while machines go through the portal."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.buckets import prepare
from bus.connection import connect
from tests.clusters import SIZE, Cluster
from tests.faults.conftest import Size
from tests.faults.estate import estate
from tests.faults.machines import STEPS, Progress, go, planned
from tests.faults.reckoning import Before, described, reckon


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    found = Cluster(tmp_path)
    found.start()
    try:
        await found.ready()
        connection = await connect(found.url, "first")
        await prepare(connection.jetstream(), replicas=SIZE)
        await connection.close()
        yield found
    finally:
        found.stop()


@pytest.mark.parametrize("kind", ["postgres"])
async def test_whichever_server_of_the_bus_dies_nothing_is_lost_or_doubled(
    cluster: Cluster, name: str, dsn: str, tmp_path: Path, size: Size, chance: random.Random
) -> None:
    async with estate(cluster, name, dsn, tmp_path) as site:
        before = Before.of(site.express)
        visits = []
        for round_, member in enumerate(cluster.members):
            coming, progress = planned(chance, size.machines, round_), Progress()
            visits += coming
            began = time.monotonic()
            going = asyncio.create_task(go(cluster.url, name, coming, chance, progress))
            await progress.reached(chance.randrange(size.machines * (STEPS - 1)))
            member.kill()
            await going
            sys.stdout.write(f"round {round_}: {time.monotonic() - began:.1f} s\n")
            await asyncio.to_thread(member.start)
            await cluster.ready()
        await site.settled()
        await site.leave()
        books = await reckon(site, before, visits)
        sys.stdout.write(f"{described(books)}\n")
