"""Real servers with the configuration that was made for them: a hub, its sites, and strangers."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus import credentials, hub, subjects
from bus.buckets import prepare, prepare_hub
from bus.claims import User, sign
from bus.connection import Connection, connect
from bus.credentials import Credentials
from bus.door import Door
from bus.event_stream import read
from bus.events import EventLog
from bus.machines import machine_key
from bus.nkeys import KeyPair
from bus.option_store import LiveOptions
from bus.sites import SiteStore
from estate.folder import EstateFolder
from estate.keyring import Keyring
from estate.permissions import SERVICES
from express.connection import sqlite_dsn
from tests.estate.servers import (
    HERE,
    EstateServer,
    add_site,
    hub_servers,
    new_estate,
    site_server,
)
from tests.estate.whole_site import COMMAND
from tests.site import STAFF_0117, eventually

KEY = machine_key(STAFF_0117)


@contextmanager
def started(servers: Sequence[EstateServer]) -> Iterator[None]:
    """The servers run."""
    try:
        for each in servers:
            each.start()
        yield
    finally:
        for each in servers:
            each.stop()


async def come_in(server: EstateServer, credentials: str, name: str) -> Connection:
    """On the bus with credentials that were made for a server."""
    return await asyncio.wait_for(connect(server.url, name, door=server.door(credentials)), 10)


class TwoSites:
    """An estate of a hub and two sites."""

    def __init__(self, folder: Path, *, servers: int = 1) -> None:
        self.estate: EstateFolder = new_estate(folder / "estate", hub=servers)
        for name in ("campus", "lab"):
            add_site(self.estate, name)
        self.hub = hub_servers(self.estate)
        self.campus = site_server(self.estate, "campus")
        self.lab = site_server(self.estate, "lab")
        self.all = (*self.hub, self.campus, self.lab)

    async def lines(self, wanted: int = 2, away: EstateServer | None = None) -> None:
        """Returns when so many sites have their line to the hub, one of whose servers is away."""

        async def up() -> int:
            return sum(
                len(found) if isinstance(found := each.monitoring("leafz")["leafs"], list) else 0
                for each in self.hub
                if each is not away
            )

        await eventually(up, lambda found: found == wanted, 20)


@pytest.fixture
async def two_sites(tmp_path: Path) -> AsyncIterator[TwoSites]:
    """The estate runs, and all lines are up."""
    estate = TwoSites(tmp_path)
    with started(estate.all):
        await estate.lines()
        yield estate


async def test_events_of_all_sites_reach_the_hub_and_its_registry_reaches_all_sites(
    two_sites: TwoSites,
) -> None:
    collecting = await come_in(two_sites.hub[0], "monitor", "monitor-estate")
    operator = await come_in(two_sites.hub[0], "operator", "command")
    sites = {
        "campus": await come_in(two_sites.campus, "menu", "menu-campus"),
        "lab": await come_in(two_sites.lab, "menu", "menu-lab"),
    }
    try:
        await prepare_hub(collecting.jetstream(), 1)
        for name, connection in sites.items():
            await prepare(connection.jetstream(), hub=hub.DOMAIN)
            await EventLog(connection, name).record("menu_shown", machine=KEY, of=f"of {name}")
        await hub.prepare(collecting.jetstream(), sites)

        async def arrived() -> set[str]:
            found = set()
            for name in sites:
                async for event in read(collecting, name):
                    found.add(event.site)
            return found

        await eventually(arrived, lambda found: found == set(sites), 60)

        # What the hub knows of the sites, each site knows as well.
        for site in two_sites.estate.record.sites:
            await (await SiteStore.open(operator)).write(site.entry)
        at_campus = await come_in(two_sites.campus, "operator", "command")
        try:
            known = await SiteStore.open(at_campus)

            async def names() -> list[str]:
                return [each.name for each in await known.read()]

            await eventually(names, lambda found: found == ["campus", "lab"], 60)
        finally:
            await at_campus.close()
    finally:
        for each in (collecting, operator, *sites.values()):
            await each.close()
    assert [each.violations() for each in two_sites.all] == [[], [], []]


async def test_what_a_site_says_in_anothers_name_does_not_leave_it(two_sites: TwoSites) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    keys = Keyring(two_sites.estate.folder / "keys")
    # Whoever has stolen all of a site may say what he likes there: as no service may.
    thief = await _everything_at(two_sites.lab, keys.site("lab").account)
    menu = await come_in(two_sites.campus, "menu", "menu-campus")
    # And at the hub somebody listens to whatever might come, as no operator may.
    listener = await _everything_at(two_sites.hub[0], keys.estate().hub)
    said = (
        subjects.endpoint("campus", "menu", "show", KEY),
        subjects.event("campus", KEY, "menu_shown"),
        subjects.event("lab", KEY, "menu_shown"),
        subjects.request("campus", KEY),
        "$JS.campus.API.STREAM.PURGE.IMAGING_EVENTS",
        "$JS.hub.API.STREAM.DELETE.IMAGING_EVENTS",
        f"$KV.{subjects.SITES}.estate.campus",
        # Forged answers, to somebody at the hub.
        "_INBOX_command.mine",
        "_INBOX_doctor.mine",
        "_INBOX_monitor-estate.mine",
        # The one that passes: a part of how a stream is copied.
        "$JSC.R.mine",
    )
    try:
        await menu.subscribe(subjects.endpoint("campus", "menu", "*"), cb=hear)
        await menu.flush()
        for subject in said:
            await listener.subscribe(subject, cb=hear)
        await listener.flush()

        async def say_all() -> list[str]:
            # Again and again: who listens at the hub must first be heard of at the site.
            for subject in said:
                await thief.publish(subject, b"")
            await thief.flush()
            return heard

        await eventually(say_all, lambda found: found.count(said[-1]) > 10, 20)
    finally:
        for each in (thief, menu, listener):
            await each.close()
    assert set(heard) == {said[-1]}


async def test_nobody_at_the_hub_asks_or_tells_a_site_anything(two_sites: TwoSites) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    keys = Keyring(two_sites.estate.folder / "keys")
    speaker = await _everything_at(two_sites.hub[0], keys.estate().hub)
    listener = await _everything_at(two_sites.campus, keys.site("campus").account)
    said = (
        subjects.endpoint("campus", "menu", "show", KEY),
        subjects.endpoint("campus", "scheduler", "schedule", KEY),
        subjects.request("campus", KEY),
        f"$KV.{subjects.OPTIONS}.campus.protection",
        "_INBOX_command.mine",
        "$JSC.R.mine",
    )
    try:
        for subject in said:
            await listener.subscribe(subject, cb=hear)
        await listener.flush()

        async def say_all() -> list[str]:
            for subject in said:
                await speaker.publish(subject, b"")
            await speaker.flush()
            return heard

        await eventually(say_all, lambda found: found.count(said[-1]) > 10, 20)
    finally:
        for each in (speaker, listener):
            await each.close()
    assert set(heard) == {said[-1]}


async def test_a_site_works_on_while_the_hub_is_away(two_sites: TwoSites) -> None:
    two_sites.hub[0].stop()
    menu = await come_in(two_sites.campus, "menu", "menu-campus")
    try:
        await prepare(menu.jetstream(), hub=hub.DOMAIN)
        await EventLog(menu, "campus").record("menu_shown", machine=KEY)
    finally:
        await menu.close()
    two_sites.hub[0].start()
    await two_sites.lines()


async def test_a_hub_of_three_servers_stays_up_without_any_one_of_them(tmp_path: Path) -> None:
    estate = TwoSites(tmp_path, servers=3)
    with started(estate.all):
        await estate.lines()
        url = ",".join(each.url for each in estate.hub)
        door = estate.hub[0].door("monitor")
        monitor = await asyncio.wait_for(connect(url, "monitor-estate", door=door), 10)
        try:

            async def made() -> str:
                try:
                    await prepare_hub(monitor.jetstream(), 3)
                except Exception as error:  # noqa: BLE001 (the cluster is still electing)
                    return repr(error)
                return ""

            await eventually(made, lambda trouble: not trouble, 30)
            bucket = await monitor.jetstream().key_value(subjects.LIVE)
            for number, server in enumerate(estate.hub):
                server.stop()

                async def written(value: int = number) -> bool:
                    try:
                        await bucket.put("campus.m", str(value).encode())
                    except Exception:  # noqa: BLE001 (whatever it is: it is tried again)
                        return False
                    return True

                await eventually(written, bool, 30)
                await estate.lines(away=server)
                server.start()
                await eventually(made, lambda trouble: not trouble, 30)
        finally:
            await monitor.close()


async def test_a_sites_certificate_makes_nobody_a_server_of_the_hub(tmp_path: Path) -> None:
    estate = TwoSites(tmp_path, servers=3)
    thief = tmp_path / "thief"
    real = estate.estate.record.hub.servers[2]
    shutil.copytree(estate.hub[2].ready, thief)
    for file in ("server.pem", "server.key"):
        shutil.copy(estate.campus.ready / "tls" / file, thief / "tls" / file)
    settings = thief / "nats.conf"
    settings.write_text(settings.read_text().replace(real.place.folder, str(thief)))
    posing = EstateServer(thief, real.place)
    with started((*estate.hub[:2], posing)):

        async def refused() -> int:
            return estate.hub[0].log().count("tls: failed to verify certificate")

        await eventually(refused, lambda times: times > 0, 20)
        routes = estate.hub[0].monitoring("routez")["routes"]
        assert isinstance(routes, list)
        assert "hub-3" not in {each["remote_name"] for each in routes}


async def test_renewing_interrupts_nobody_and_the_old_credentials_stay_good(
    tmp_path: Path,
) -> None:
    estate = TwoSites(tmp_path)
    campus = estate.campus
    with started((campus,)):
        before = tmp_path / "before.creds"
        shutil.copy2(campus.ready / "creds" / "menu.creds", before)
        menu = await come_in(campus, "menu", "menu-campus")
        lost: list[bool] = []
        menu.on_disconnect(lambda: lost.append(True))
        shown = await _shown(campus)
        estate.estate.renew(["campus"])
        assert before.read_bytes() != (campus.ready / "creds" / "menu.creds").read_bytes()
        campus.reload()
        assert await _shown(campus) != shown
        await menu.flush()
        again = await come_in(campus, "menu", "menu-campus")
        door = campus.door("menu")
        old = await asyncio.wait_for(
            connect(campus.url, "menu-campus", door=Door(door.ca, before)), 10
        )
        assert lost == []
        for each in (menu, again, old):
            await each.flush()
            await each.close()


@pytest.mark.parametrize("credential", [*SERVICES, "operator", "callout", "system"])
async def test_revoked_credentials_are_refused_and_new_ones_take_their_place(
    tmp_path: Path, credential: str
) -> None:
    estate = TwoSites(tmp_path)
    campus = estate.campus
    with started((campus,)):
        door = campus.door(credential)
        assert door.credentials
        stolen = tmp_path / "stolen.creds"
        shutil.copy2(door.credentials, stolen)
        theirs = Door(door.ca, stolen)
        thief = await asyncio.wait_for(connect(campus.url, "thief", door=theirs), 10)
        ended = asyncio.Event()
        thief.on_disconnect(ended.set)
        estate.estate.revoke("campus", credential)
        campus.reload()
        await asyncio.wait_for(ended.wait(), 10)
        await thief.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(campus.url, "thief", door=theirs), 1)
        ours = await come_in(campus, credential, credential)
        await ours.close()


async def test_the_line_of_a_site_is_cut_when_its_leaf_credentials_are_revoked(
    two_sites: TwoSites, tmp_path: Path
) -> None:
    stolen = tmp_path / "leaf.creds"
    leaf = two_sites.campus.ready / "creds" / "leaf.creds"
    shutil.copy2(leaf, stolen)
    two_sites.estate.revoke("campus", "leaf")
    ours = leaf.read_bytes()
    shutil.copy2(stolen, leaf)
    two_sites.hub[0].reload()
    await two_sites.lines(1)
    # The new ones are taken at the next try, without a word to the site's server.
    leaf.write_bytes(ours)
    await two_sites.lines(2)


async def _everything_at(server: EstateServer, account: KeyPair) -> Connection:
    """Somebody with the key of an account of a server, who can allow himself everything in it."""
    own = KeyPair.generate("user")
    body = User(version=2, subs=-1, payload=-1, data=-1)
    file = server.ready / f"{own.public}.creds"
    credentials.write(file, Credentials.of(sign(account, own.public, body, name="thief"), own))
    door = Door(ca=server.ready / "tls" / "ca.pem", credentials=file)
    return await asyncio.wait_for(connect(server.url, "thief", door=door), 10)


async def _shown(server: EstateServer) -> bytes:
    """The certificate that a server shows."""
    trusting = ssl.create_default_context(cafile=server.ready / "tls" / "ca.pem")
    reader, writer = await asyncio.open_connection(HERE, server.port)
    try:
        await reader.readline()
        await writer.start_tls(trusting, server_hostname=HERE)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()


async def test_the_estates_monitor_does_its_work_at_the_hub_and_nothing_of_it_is_refused(
    two_sites: TwoSites, tmp_path: Path
) -> None:
    at_hub = two_sites.hub[0]
    told = (at_hub.ready / "environment").read_text().splitlines()
    environment = (
        {key: value for key, value in os.environ.items() if not key.startswith("IMAGEINVOKER")}
        | dict(line.split("=", 1) for line in told)
        | {
            "IMAGEINVOKER_ESTATE": str(two_sites.estate.folder),
            "IMAGEINVOKER_HISTORY": sqlite_dsn(tmp_path / "history.db"),
            "XDG_DATA_HOME": str(tmp_path / "home"),
        }
    )

    async def type_(*arguments: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, [*COMMAND, *arguments], env=environment, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout if done.returncode == 0 else done.stderr

    with (tmp_path / "monitor.log").open("wb") as log:
        monitor = await asyncio.create_subprocess_exec(
            *COMMAND, "monitor", "--estate", env=environment, stdout=log, stderr=log
        )
    campus = await come_in(two_sites.campus, "menu", "menu-campus")
    try:
        registry = str(at_hub.ready / "registry.json")
        await eventually(
            lambda: type_("site", "register", registry), lambda said: "2 sites" in said, 30
        )
        await prepare(campus.jetstream(), hub=hub.DOMAIN)
        await EventLog(campus, "campus").record("menu_shown", machine=KEY)
        # A source that finds its site away is tried again by NATS after some 40 s.
        await eventually(lambda: type_("live", "--site", "campus"), lambda said: KEY in said, 90)
        assert "timeout" in await type_("options", "set", "timeout", "9", "--estate")

        options = LiveOptions(campus, "campus")
        await options.start()

        async def at_campus() -> int:
            return options.current.timeout

        try:
            await eventually(at_campus, lambda found: found == 9, 60)
        finally:
            await options.stop()
        assert "is revoked" in await type_("pki", "boot", "revoke", "winpe")
    finally:
        await campus.close()
        monitor.terminate()
        await asyncio.wait_for(monitor.wait(), 30)
    assert [each.violations() for each in two_sites.all] == [[], [], []]
