"""What the hub of an estate keeps: the events of all its sites, and what it gives to them.

The events of a site stand in a stream at the site. The hub's stream has each of these as a source:
NATS copies it, in order and once, and goes on where it was when a line is back. Only what is of the
site is taken from it, so that no site can speak for another.
"""

from collections.abc import Iterable
from typing import Final

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ExternalStream, StorageType, StreamConfig, StreamSource

from bus import subjects
from bus.buckets import prepare_hub

DOMAIN: Final = "hub"
"""The JetStream domain of the hub; that of a site is called as the site."""
_MAX_AGE: Final = 90 * 86_400.0


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
    if _sites(there) != _sites(wanted) or there.num_replicas != replicas:
        await stream.update_stream(wanted)


def _events(sites: Iterable[str], replicas: int) -> StreamConfig:
    return StreamConfig(
        name=subjects.EVENTS,
        # What is told of the estate itself; what is told of a site comes from there.
        subjects=[subjects.event(subjects.ESTATE)],
        description="What happened at all sites",
        storage=StorageType.FILE,
        max_age=_MAX_AGE,
        num_replicas=replicas,
        sources=[_source(site) for site in sorted(set(sites))],
    )


def _source(site: str) -> StreamSource:
    return StreamSource(
        name=subjects.EVENTS,
        filter_subject=subjects.event(site),
        external=ExternalStream(api=f"$JS.{site}.API"),
    )


def _sites(config: StreamConfig) -> set[str | None]:
    return {source.filter_subject for source in config.sources or []}
