"""What the hub of an estate keeps: the events of all its sites, and what it gives to them.

The events of a site stand in a stream at the site. The hub's stream has each of these as a source:
NATS copies it, in order and once, and goes on where it was when a line is back. Only what is of the
site is taken from it, so that no site can speak for another.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ExternalStream, StorageType, StreamConfig, StreamSource

from bus import subjects
from bus.buckets import prepare_hub

DOMAIN: Final = "hub"
"""The JetStream domain of the hub; that of a site is called as the site."""
KEPT: Final = timedelta(days=90)
"""How long the hub keeps an event."""
_FIRST: Final = 1
"""Where a source begins of which the hub has no event. Unless it is told, NATS begins at the time
of the hub's newest event once the hub's oldest have gone: what waited at the site would be lost."""


async def prepare(stream: JetStreamContext, sites: Iterable[str], replicas: int = 1) -> None:
    """Has the hub keep the events of these sites from now on, and of no others; those that it has
    stay.

    ``replicas`` of each stream are kept, on as many servers of the hub.

    Raises:
        nats.errors.Error: the bus does not answer, or has too few servers.
    """
    await prepare_hub(stream, replicas)
    wanted = _events(sites, replicas)
    try:
        there = (await stream.stream_info(subjects.EVENTS)).config
    except nats.js.errors.NotFoundError:
        await stream.add_stream(wanted)
        return
    if _sources(there) != _sources(wanted) or there.num_replicas != replicas:
        # All else may be an operator's wish, such as to keep events for longer.
        await stream.update_stream(there.evolve(sources=wanted.sources, num_replicas=replicas))


def _events(sites: Iterable[str], replicas: int) -> StreamConfig:
    return StreamConfig(
        name=subjects.EVENTS,
        # What is told of the estate itself; what is told of a site comes from there.
        subjects=[subjects.event(subjects.ESTATE)],
        description="What happened at all sites",
        storage=StorageType.FILE,
        max_age=KEPT.total_seconds(),
        num_replicas=replicas,
        sources=[_source(site) for site in sorted(set(sites))],
    )


def _source(site: str) -> StreamSource:
    return StreamSource(
        name=subjects.EVENTS,
        opt_start_seq=_FIRST,
        filter_subject=subjects.event(site),
        external=ExternalStream(api=f"$JS.{site}.API"),
    )


def _sources(config: StreamConfig) -> set[tuple[str | None, int | None]]:
    return {(source.filter_subject, source.opt_start_seq) for source in config.sources or []}
