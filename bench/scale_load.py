"""`python -m bench.scale_load SERVER SITES EACH SECONDS`: journeys through many sites, evenly.

Every ``EACH`` seconds one new machine goes all the way through the portal of one of the first
SITES sites, in turn. What came of it is said as JSON.
"""

import asyncio
import sys
from typing import Final

import msgspec
import uvloop
from msgspec import Struct

from bench.scale_host import site_name
from bus.messages import encode
from cli.storm.descriptors import allow_connections
from cli.storm.journeys import Errand, Passage, travel
from cli.storm.machines import Fleet, RequestIds
from cli.storm.tally import Histogram

PASSWORD: Final = "Zuckerdose-1138"
_ENDS_WITHIN: Final = 90.0
"""Seconds that the last machines have."""


class Travelled(Struct, frozen=True, kw_only=True):
    """What came of it; times are seconds, those of whole journeys."""

    journeys: int
    scheduled: int
    p50: float
    p99: float


travelled_decoder: Final = msgspec.json.Decoder(Travelled)


async def _travel(server: str, sites: int, each: float, seconds: float) -> Travelled:
    fleet, ids = Fleet(5, "SCALE"), RequestIds.new()
    journeys = max(1, round(seconds / each))
    allow_connections(journeys)
    passages: list[Passage] = []

    async def one(number: int) -> None:
        passage = Passage(
            number=number,
            machine=fleet.machine(number),
            name=fleet.name(number),
            request_id=ids.of(number),
        )
        passages.append(passage)
        await asyncio.sleep((number - 1) * each)
        site = site_name(1 + (number - 1) % sites)
        errand = Errand(server=server, site=site, item=None, username=None, password=PASSWORD)
        await travel(errand, passage)

    async with asyncio.timeout(seconds + _ENDS_WITHIN), asyncio.TaskGroup() as machines:
        for number in range(1, journeys + 1):
            machines.create_task(one(number))
    times = Histogram()
    for passage in passages:
        if passage.outcome and passage.outcome.state == "scheduled":
            times.add(passage.times["journey"])
    return Travelled(
        journeys=journeys,
        scheduled=times.count,
        p50=times.percentile(0.5),
        p99=times.percentile(0.99),
    )


if __name__ == "__main__":
    result = uvloop.run(
        _travel(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    )
    sys.stdout.write(encode(result).decode() + "\n")
