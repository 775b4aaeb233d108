"""What the hub collects from the sites, and what it gives to them, also over lines that are cut."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest

from bus import hub, subjects
from bus.buckets import Mirror, OwnBucketError, prepare
from bus.connection import Connection
from bus.event_stream import read
from bus.events import EventLog
from bus.option_store import LiveOptions, OptionStore
from bus.sites import SiteEntry, SiteStore
from tests.echo import until
from tests.hubs import Estate, estate_of
from tests.site import eventually

SITES = ("campus", "depot")
PATIENCE = 60.0
"""Seconds: a server that asked a site over a line that was cut asks anew after 40."""


@pytest.fixture
async def estate(tmp_path: Path) -> AsyncIterator[Estate]:
    async with estate_of(tmp_path, SITES) as made:
        yield made


async def events_at_hub(estate: Estate, site: str) -> list[str]:
    """What the hub has of a site, by what each event was of, in order."""
    return [str(event.details["number"]) async for event in read(estate.hub, site)]


async def told(connection: Connection, site: str, numbers: range) -> None:
    log = EventLog(connection, site)
    for number in numbers:
        await log.record("option_changed", of=str(number), details={"number": number})


async def test_the_events_of_all_sites_reach_the_hub_once_and_in_order_also_over_a_line_that_is_cut(
    estate: Estate,
) -> None:
    await told(estate.at["campus"], "campus", range(20))
    await hub.prepare(estate.hub.jetstream(), SITES)
    await told(estate.at["depot"], "depot", range(20))

    async def collected(last: int) -> None:
        for site in SITES:
            await eventually(
                lambda site=site: events_at_hub(estate, site),
                lambda found: str(last) in found,
                PATIENCE,
            )
            assert await events_at_hub(estate, site) == [str(each) for each in range(last + 1)]

    await collected(19)
    for line in estate.lines.values():
        await line.cut()
    for site in SITES:
        await told(estate.at[site], site, range(20, 40))
    # A site that had a second way to the hub would have taken it by then.
    await asyncio.sleep(1)
    await collected(19)
    for line in estate.lines.values():
        await line.mend()
    await collected(39)


async def test_what_waits_at_a_site_is_collected_also_when_the_hubs_oldest_events_have_gone(
    estate: Estate,
) -> None:
    """Of a site that is new, or was quiet for longer than the hub keeps events."""
    stream = estate.hub.jetstream()
    await hub.prepare(stream, ["campus"])
    await told(estate.at["campus"], "campus", range(2))
    await eventually(lambda: events_at_hub(estate, "campus"), lambda found: "1" in found, PATIENCE)
    await told(estate.at["depot"], "depot", range(3))
    await told(estate.at["campus"], "campus", range(2, 4))
    await eventually(lambda: events_at_hub(estate, "campus"), lambda found: "3" in found, PATIENCE)
    await stream.purge_stream(subjects.EVENTS, keep=1)
    await hub.prepare(stream, SITES)
    await eventually(
        lambda: events_at_hub(estate, "depot"), lambda found: found == ["0", "1", "2"], PATIENCE
    )


async def test_how_long_the_hub_keeps_events_stays_as_an_operator_has_set_it(
    estate: Estate,
) -> None:
    stream = estate.hub.jetstream()
    config = (await stream.stream_info(subjects.EVENTS)).config
    await stream.update_stream(config.evolve(max_age=400 * 86_400.0))
    for sites in (SITES, SITES[:1], ()):
        await hub.prepare(stream, sites)
        config = (await stream.stream_info(subjects.EVENTS)).config
        assert (config.max_age, len(config.sources or [])) == (400 * 86_400.0, len(sites))


async def test_a_site_cannot_speak_for_another_one_by_its_own_stream(estate: Estate) -> None:
    await told(estate.at["campus"], "depot", range(1))
    await told(estate.at["campus"], "campus", range(1))
    await hub.prepare(estate.hub.jetstream(), SITES)
    await eventually(lambda: events_at_hub(estate, "campus"), bool, PATIENCE)
    assert await events_at_hub(estate, "depot") == []


async def test_a_site_that_has_left_the_estate_is_collected_from_no_more_and_what_is_there_stays(
    estate: Estate,
) -> None:
    stream = estate.hub.jetstream()
    await hub.prepare(stream, SITES)
    await told(estate.at["campus"], "campus", range(1))
    await eventually(lambda: events_at_hub(estate, "campus"), bool, PATIENCE)
    await hub.prepare(stream, ["depot"])
    (source,) = (await stream.stream_info(subjects.EVENTS)).config.sources or []
    assert source.filter_subject == subjects.event("depot")
    assert await events_at_hub(estate, "campus") == ["0"]


async def test_what_is_written_at_the_hub_is_read_at_each_site_also_when_the_line_is_cut(
    estate: Estate,
) -> None:
    store = await SiteStore.open(estate.hub)
    await store.write(SiteEntry(name="campus", subnets=("10.1.0.0/16",)))
    seen: dict[str, dict[str, bytes]] = {}
    mirrors = [
        Mirror(
            estate.at[site],
            subjects.SITES,
            subjects.ESTATE,
            lambda values, site=site: seen.__setitem__(site, dict(values)),
        )
        for site in SITES
    ]
    for mirror in mirrors:
        await mirror.start()
    try:
        await until(lambda: all("campus" in seen.get(site, {}) for site in SITES), PATIENCE)
        await estate.lines["campus"].cut()
        assert [entry.name for entry in await (await SiteStore.open(estate.at["campus"])).read()]
        await store.write(SiteEntry(name="depot", subnets=("10.2.0.0/16",)))
        await until(lambda: "depot" in seen["depot"], PATIENCE)
        assert "depot" not in seen["campus"]
        await estate.lines["campus"].mend()
        await until(lambda: "depot" in seen["campus"], PATIENCE)
    finally:
        for mirror in mirrors:
            await mirror.stop()


async def test_an_option_of_the_estate_reaches_a_site_and_cannot_be_written_there(
    estate: Estate,
) -> None:
    live = LiveOptions(estate.at["depot"], "depot")
    await live.start()
    try:
        await (await OptionStore.of_estate(estate.hub, "default")).write("timeout", b"9")
        await until(lambda: live.current.timeout == 9, PATIENCE)
        with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
            await (await OptionStore.of_estate(estate.at["depot"], "default")).write(
                "timeout", b"1"
            )
        assert live.current.timeout == 9
    finally:
        await live.stop()


async def test_what_a_site_has_said_itself_does_not_vanish_when_it_joins_an_estate(
    estate: Estate,
) -> None:
    """Which boot images are revoked, as it may be: an operator is told what to do first."""
    stream = estate.at["depot"].jetstream()
    await stream.delete_stream(f"KV_{subjects.SITES}")
    await prepare(stream)
    own = await SiteStore.open(estate.at["depot"])
    await own.write(SiteEntry(name="own"))
    with pytest.raises(OwnBucketError, match=f"{subjects.SITES} was made here .* at the hub"):
        await prepare(stream, hub=hub.DOMAIN)
    assert [entry.name for entry in await own.read()] == ["own"]
    await stream.delete_stream(f"KV_{subjects.SITES}")
    await prepare(stream, hub=hub.DOMAIN)
    assert (await stream.stream_info(f"KV_{subjects.SITES}")).config.mirror
