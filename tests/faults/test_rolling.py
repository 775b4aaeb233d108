"""Copies of another release take the places of those that run, while machines come all the time."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from bus import subjects
from bus.presence import present
from tests.faults.conftest import Size
from tests.faults.estate import SERVICES, Copy, Estate, SafeBus, estate
from tests.faults.machines import Visit, go, planned
from tests.faults.reckoning import Before, reckon


class Release(Copy):
    """A copy of a service as the release with this version of the contract has it."""

    def __init__(self, version: int, service: str, like: Estate, dsn: str, folder: Path) -> None:
        super().__init__(service, like.bus.url, like.name, dsn, folder)
        self._command = [sys.executable, "-m", "tests.faults.release", str(version), service]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_release_is_replaced_by_a_later_one_and_by_the_one_before_without_a_failed_request(
    bus: SafeBus, name: str, dsn: str, tmp_path: Path, size: Size, chance: random.Random
) -> None:
    async with estate(bus, name, dsn, tmp_path) as site:
        before = Before.of(site.express)
        visits: list[Visit] = []
        replaced = asyncio.Event()

        async def machines() -> None:
            round_ = 0
            while not replaced.is_set():
                coming = planned(chance, size.machines // 2, round_)
                visits.extend(coming)
                await go(bus.url, name, coming, chance)
                round_ += 1

        coming = asyncio.create_task(machines())
        for version in (subjects.VERSION + 1, subjects.VERSION - 1):
            old, site.copies[:] = list(site.copies), []
            for number in (0, 1):
                folder = tmp_path / f"release{version}-{number}"
                folder.mkdir()
                for service in SERVICES:
                    new = Release(version, service, site, dsn, folder)
                    site.copies.append(new)
                    new.start()
                    await new.serving()
            contracts = {
                each.metadata["contract"] for each in await present(site.client.connection, name)
            }
            assert len(contracts) == 2, contracts
            for each in old:
                each.terminate()
                assert await each.status() == 0
            assert not coming.done() or coming.result() is None
        replaced.set()
        await coming
        await site.settled()
        await site.leave()
        await reckon(site, before, visits)
        events = await site.client.kept(subjects.EVENTS, subjects.event(site.name))
        assert any(b"of_a_later_release" in each for each in events)
