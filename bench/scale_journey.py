"""What one journey costs the bus: messages by the kind of their subject, bytes, what is kept.

Somebody listens to all there is while machines go through one site, one after the other; the same
time of a site at rest is taken off.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from bench.harness import MeasureError, Say
from bench.scale_bus import BusCounts, Traffic, monitored, overheard
from bench.scale_sites import Serving, journeys, protect, serving

_JOURNEYS: Final = 100
_EACH: Final = 0.2
"""Seconds between two."""
_SETTLED: Final = 3.0


class Carried(Struct, frozen=True, kw_only=True):
    """What a journey sends over the bus, and what the streams keep of it; bytes."""

    messages: Mapping[str, float]
    bytes: Mapping[str, float]
    kept: Mapping[str, float]


def measured(say: Say) -> Carried:
    """What a journey costs the bus.

    Raises:
        MeasureError: the site does not start, or a journey failed.
    """
    with serving(1) as site:
        asyncio.run(protect(site.url, 1))
        time.sleep(_SETTLED)
        before = monitored(site.monitoring)
        loaded = asyncio.run(_overhear(site, travelling=True))
        after = monitored(site.monitoring)
        at_rest = asyncio.run(_overhear(site, travelling=False))
    found = a_journey(loaded, at_rest, before, after, _JOURNEYS)
    say(
        f"a journey: {sum(found.messages.values()):.1f} messages, "
        f"{sum(found.bytes.values()):.0f} bytes, {sum(found.kept.values()):.0f} bytes kept"
    )
    return found


async def _overhear(site: Serving, *, travelling: bool) -> Traffic:
    seconds = _JOURNEYS * _EACH
    async with overheard(site.url) as traffic:
        if travelling:
            done = await asyncio.to_thread(journeys, site.url, 1, _EACH, seconds)
            if done.scheduled < done.journeys:
                raise MeasureError(f"journeys failed: {done}")
            # What the monitor writes comes a moment later.
            await asyncio.sleep(_SETTLED)
        else:
            await asyncio.sleep(seconds + _SETTLED)
    return traffic


def a_journey(
    loaded: Traffic, at_rest: Traffic, before: BusCounts, after: BusCounts, count: int
) -> Carried:
    """What one of so many journeys took, beside what a site takes at rest. Pure."""
    return Carried(
        messages={
            kind: more / count
            for kind, found in loaded.messages.most_common()
            if (more := found - at_rest.messages[kind]) > 0
        },
        bytes={
            kind: more / count
            for kind, found in loaded.bytes.most_common()
            if (more := found - at_rest.bytes[kind]) > 0
        },
        kept={
            name: more / count
            for name, size in after.streams.items()
            if (more := size - before.streams.get(name, 0)) > 0
        },
    )
