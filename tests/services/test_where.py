"""Which site am I: the registry of sites, and what a machine is told by its network address."""

import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import subjects
from bus.buckets import prepare
from bus.caller import REQUEST_INFO
from bus.connection import Connection, ask
from bus.contract import WHERE
from bus.machines import machine_key
from bus.messages import Here, Where, encode
from bus.option_store import OptionStore
from bus.options import parse
from bus.problems import Problem, from_wire
from bus.sites import SiteEntry, SiteError, SiteMap, SiteStore, entries, make_entry
from services.auth.program import program as auth
from tests.buses import BusServer
from tests.guests import Entry, guest, secured
from tests.site import STAFF_0117, Asker, asker, eventually, running

KEY = machine_key(STAFF_0117)
LONDON = make_entry("london", ["tls://10.1.0.5:4222"], ["10.1.0.0/16", "2001:db8:1::/48"])
OSLO = make_entry("oslo", ["tls://10.2.0.5:4222"], ["10.2.0.0/16", "10.1.7.0/24"])


@pytest.fixture
async def client(bus: BusServer) -> AsyncIterator[Asker]:
    async with asker(bus.url, "main") as client:
        yield client


@pytest.fixture
async def entry(tmp_path: Path) -> AsyncIterator[Entry]:
    entry = secured(tmp_path)
    entry.server.start()
    try:
        yield entry
    finally:
        entry.server.stop()


async def where(connection: Connection, address: str | None = None) -> Here | str:
    """What this machine is told; the code of the problem if it is one.

    ``address`` is what a header says, which anybody can write.
    """
    headers = {REQUEST_INFO: json.dumps({"host": address})} if address else None
    subject = subjects.endpoint(subjects.ESTATE, "auth", "where", KEY)
    question = encode(Where(machine=STAFF_0117))
    reply = await connection.request(subject, question, timeout=5, headers=headers)
    if reply.headers:
        return from_wire(reply.data).code
    return WHERE.answered_decoder.decode(reply.data)


def test_the_smallest_subnet_that_holds_an_address_wins() -> None:
    sites = SiteMap([LONDON, OSLO])
    assert sites.site_of("10.1.6.255") == LONDON
    assert sites.site_of("10.1.7.1") == OSLO
    assert sites.site_of("::ffff:10.2.3.4") == OSLO
    assert sites.site_of("2001:db8:1:2::3%eth0") == LONDON
    assert sites.site_of("10.3.0.1") is None
    assert sites.site_of("2001:db8:2::1") is None
    assert sites.site_of("nonsense") is None


SUBNETS = st.builds(
    lambda address, length: str(ipaddress.ip_network((address, length), strict=False)),
    st.one_of(st.integers(0, 7), st.just(2**32 - 1)).map(ipaddress.IPv4Address),
    st.sampled_from([0, 28, 29, 30, 31, 32]),
) | st.builds(
    lambda address, length: str(ipaddress.ip_network((address, length), strict=False)),
    st.integers(0, 7).map(ipaddress.IPv6Address),
    st.sampled_from([0, 124, 126, 127, 128]),
)
ADDRESSES = st.one_of(
    st.integers(0, 9).map(ipaddress.IPv4Address), st.integers(0, 9).map(ipaddress.IPv6Address)
).map(str)


@given(st.lists(st.lists(SUBNETS, max_size=4, unique=True), max_size=4), ADDRESSES)
@settings(max_examples=200)
def test_a_site_is_found_as_one_finds_it_who_tries_every_subnet(
    subnets: list[list[str]], address: str
) -> None:
    found = [SiteEntry(name=f"s{n}", subnets=tuple(each)) for n, each in enumerate(subnets)]
    host = ipaddress.ip_address(address)
    holding = [
        (ipaddress.ip_network(subnet).prefixlen, site)
        for site in found
        for subnet in site.subnets
        if host in ipaddress.ip_network(subnet)
    ]
    longest = max((length for length, _ in holding), default=None)
    nearest = [site for length, site in holding if length == longest]
    # With the same subnet at two sites, neither is guessed.
    expected = nearest[0] if len(nearest) == 1 else None
    assert SiteMap(found).site_of(address) == expected


@pytest.mark.parametrize(
    ("name", "servers", "subnets", "says"),
    [
        ("estate", [], [], "no name of a site"),
        ("London", [], [], "no name of a site"),
        ("", [], [], "no name of a site"),
        ("london", ["10.1.0.5"], [], "tls://HOST:PORT"),
        ("london", ["tls://user:secret@host:4222"], [], "without a secret"),
        ("london", ["tls://host:4222,tls://other:4222"], [], "tls://HOST:PORT"),
        ("london", ["tls://host:99999"], [], "tls://HOST:PORT"),
        ("london", [], ["10.1"], "is no subnet"),
        ("london", [], ["10.1.0.5/16"], "say 10.1.0.0/16"),
        ("london", [], ["10.1.0.0/33"], "is no subnet"),
    ],
)
def test_what_is_no_site_is_refused_with_the_cure(
    name: str, servers: list[str], subnets: list[str], says: str
) -> None:
    with pytest.raises(SiteError, match=says) as info:
        make_entry(name, servers, subnets)
    assert "secret@" not in str(info.value)


def test_an_entry_that_cannot_be_read_hides_no_other() -> None:
    values = {"oslo": encode(OSLO), "junk": b"{", "london": encode(OSLO), "bad": b"[]"}
    assert entries(values) == [OSLO]


async def test_a_subnet_belongs_to_one_site(connection: Connection) -> None:
    await prepare(connection.jetstream())
    store = await SiteStore.open(connection)
    assert await store.read() == []
    await store.write(LONDON)
    with pytest.raises(SiteError, match=r"10\.1\.0\.0/16 is one of site 'london'"):
        await store.write(make_entry("paris", [], ["10.3.0.0/16", "10.1.0.0/16"]))
    await store.write(OSLO)
    await store.write(make_entry("london", ["tls://10.1.0.6:4222"], LONDON.subnets))
    found = await store.read()
    assert [each.name for each in found] == ["london", "oslo"]
    assert found[0].servers == ("tls://10.1.0.6:4222",)
    assert await store.remove("london")
    assert not await store.remove("london")
    assert await store.read() == [OSLO]


async def test_a_bus_of_one_site_says_that_it_is_that_one(bus: BusServer, client: Asker) -> None:
    async with running(bus.url, "main", auth):
        assert await where(client.connection) == Here(site="main")
        here = await ask(client.connection, subjects.ESTATE, WHERE, KEY, Where(machine=STAFF_0117))
        assert here.site == "main"


async def test_a_bus_that_tells_no_address_guesses_at_no_site(
    bus: BusServer, client: Asker
) -> None:
    async with running(bus.url, "main", auth):
        await (await SiteStore.open(client.connection)).write(LONDON)
        await eventually(lambda: where(client.connection), lambda told: told == "unknown_site")
        # What anybody can write is not believed.
        assert await where(client.connection, "10.1.2.3") == "unknown_site"


async def test_an_address_that_the_bus_tells_says_which_site_it_is(
    bus: BusServer, client: Asker
) -> None:
    async with running(bus.url, "main", auth):
        options = await OptionStore.open(client.connection, "main")
        await options.write("trust_request_info", parse("trust_request_info", "true"))
        store = await SiteStore.open(client.connection)
        await store.write(LONDON)
        await store.write(OSLO)
        london = Here(site="london", servers=LONDON.servers)
        await eventually(lambda: where(client.connection, "10.1.2.3"), lambda t: t == london)
        assert await where(client.connection, "10.1.7.3") == Here(site="oslo", servers=OSLO.servers)
        assert await where(client.connection, "192.168.1.1") == "unknown_site"


async def test_a_boot_client_is_told_its_site_by_the_address_that_it_has_come_from(
    entry: Entry,
) -> None:
    async with entry.insider() as insider, entry.open(copies=2), guest(entry) as machine:
        asked = Where(machine=machine.machine)

        async def told() -> str:
            try:
                here = await ask(machine.connection, subjects.ESTATE, WHERE, machine.key, asked)
            except Problem as problem:
                return problem.message
            return here.site

        assert await told() == "main"
        store = await SiteStore.open(insider)
        await store.write(LONDON)
        unknown = await eventually(told, lambda found: found != "main")
        assert "at no known site" in unknown
        assert "127.0.0.1" in unknown
        await store.write(make_entry("here", [], ["127.0.0.0/8"]))
        # All copies know from where the machine has come, whichever has let it in.
        for _ in range(5):
            await eventually(told, lambda found: found == "here")
