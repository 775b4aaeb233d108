"""`imageinvoker site change|remove`: what follows from them, and what does not."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from bus import credentials, hub, subjects
from bus.buckets import prepare
from bus.connection import connect
from bus.events import EventLog
from bus.sites import SiteStore
from estate.folder import EstateFolder
from tests.estate.desk import CAMPUS, Type, contents
from tests.estate.servers import add_site, hub_servers, new_estate, site_server
from tests.estate.whole_site import WholeSite
from tests.site import eventually


def changed(folder: Path, before: dict[str, bytes]) -> set[str]:
    """The files that are others than before, or are there no longer."""
    now = contents(folder)
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}


REGISTRIES = {f"{place}/registry.json" for place in ("sites/campus", "sites/lab", "hub/hub-1")}


def test_other_subnets_change_the_registry_and_nothing_else(known: Type, folder: Path) -> None:
    before = contents(folder)
    said = known("site", "change", "campus", "--subnet", "10.1.0.0/16,10.7.0.0/16").stdout
    assert "site register registry.json" in said
    assert "reload" not in said
    assert changed(folder, before) == {"estate.json", *REGISTRIES}
    told = json.loads((folder / "sites/lab/registry.json").read_text())
    assert told["sites"][0]["subnets"] == ["10.1.0.0/16", "10.7.0.0/16"]
    shown = known("site", "change", "campus", "--subnet", "", "--json").stdout
    assert json.loads(shown)["subnets"] == []


def test_other_addresses_change_the_certificate_too(known: Type, folder: Path) -> None:
    before = contents(folder)
    said = known("site", "change", "campus", "--address", "new.example,192.0.2.11").stdout
    assert "reload" in said
    assert changed(folder, before) == {
        "estate.json",
        *(f"sites/campus/{name}" for name in ("environment", "README")),
        *(f"sites/campus/tls/{name}" for name in ("server.pem", "server.key")),
        *REGISTRIES,
    }
    pem = (folder / "sites/campus/tls/server.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName)[0] == "new.example"
    assert "tls://new.example:4222" in (folder / "sites/campus/environment").read_text()
    assert json.loads(known("site", "show", "campus", "--json").stdout)["servers"] == [
        "tls://new.example:4222",
        "tls://192.0.2.11:4222",
    ]


def test_what_is_so_already_is_not_changed(known: Type, folder: Path) -> None:
    before = contents(folder)
    said = known("site", "change", "campus", "--subnet", "10.1.0.0/16").stdout
    assert "nothing was changed" in said
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("change", "campus"), "What is to be changed?"),
        (("change", "nowhere", "--subnet", "10.9.0.0/16"), "no site 'nowhere': campus, lab"),
        (("change", "campus", "--subnet", "10.2.0.0/16"), "site 'lab'"),
        (("change", "campus", "--subnet", "10.2.3.0/24"), "--nested"),
        (("change", "campus", "--subnet", "10.2"), "no subnet"),
        (("change", "campus", "--address", "a b"), "no address"),
        (("change", "campus", "--address", ""), "--address"),
        (("remove", "nowhere", "--yes"), "no site 'nowhere': campus, lab"),
        (("remove", "campus"), "--yes"),
        (("add", "depot", "--address", "a.example", "--health-port", "0"), "no port"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    known: Type, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    before = contents(folder)
    assert said in known("site", *arguments, status=2).stderr
    assert contents(folder) == before


def test_a_site_within_anothers_network_may_be_given_another_address(
    known: Type, folder: Path
) -> None:
    known("site", "add", "cell", "--address", "a.example", "--subnet", "10.1.2.0/24", "--nested")
    known("site", "change", "cell", "--address", "b.example")
    assert EstateFolder.open(folder).site("cell").addresses == ("b.example",)
    # Nor does it stand in the way of who is around it.
    known("site", "change", "campus", "--address", "c.example")


def test_a_site_that_is_removed_leaves_nothing_but_its_revocation(
    known: Type, folder: Path
) -> None:
    leaf = {
        each.public
        for each in EstateFolder.open(folder).site("campus").credentials
        if each.name == "leaf"
    }
    known("pki", "revoke", "campus", "leaf")
    leaf |= {
        each.public
        for each in EstateFolder.open(folder).site("campus").credentials
        if each.name == "leaf"
    }
    assert len(leaf) == 2
    said = known("site", "remove", "campus", "--yes").stdout
    for word in ("hub-1", "reload", "site register registry.json", "at the site"):
        assert word in said
    assert not [name for name in contents(folder) if "campus" in name]
    record = EstateFolder.open(folder).record
    assert [each.name for each in record.sites] == ["lab"]
    assert {each.public for gone in record.gone for each in gone.credentials} == leaf
    assert all(each.revoked_at for gone in record.gone for each in gone.credentials)
    told = json.loads((folder / "hub/hub-1/registry.json").read_text())
    assert [each["name"] for each in told["sites"]] == ["lab"]
    assert told["removed"] == ["campus"]
    assert "was removed already" in known("site", "remove", "campus", "--yes").stdout


def test_the_name_and_the_subnet_of_a_removed_site_can_be_given_again(
    known: Type, folder: Path
) -> None:
    old = (folder / "sites/campus/keys/account.pub").read_bytes()
    known("site", "remove", "campus", "--yes")
    assert "is added" in known(*CAMPUS).stdout
    assert (folder / "sites/campus/keys/account.pub").read_bytes() != old
    told = json.loads((folder / "hub/hub-1/registry.json").read_text())
    assert told["removed"] == []
    # The line of the one that is gone stays revoked.
    assert EstateFolder.open(folder).record.gone[0].credentials[0].revoked_at


def test_what_a_removal_left_when_it_was_cut_off_goes_with_the_next(
    known: Type, folder: Path
) -> None:
    site = (folder / "sites/campus", folder / "keys/sites/campus")
    kept = [contents(each) for each in site]
    told = folder / "hub/hub-1/nats.conf"
    before = told.read_bytes()
    known("site", "remove", "campus", "--yes")
    told.write_bytes(before)
    for place, files in zip(site, kept, strict=True):
        for name, content in files.items():
            if content != b"a folder":
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
    known("site", "remove", "campus", "--yes")
    assert not any(each.exists() for each in site)
    assert told.read_bytes() != before


@pytest.mark.parametrize(("typed", "status"), [("campus", 0), ("lab", 2), ("", 2), ("y", 2)])
def test_whoever_removes_a_site_at_a_terminal_is_asked_for_its_name(
    known: Type, folder: Path, typed: str, status: int
) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{typed}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "cli", "site", "remove", "campus", "--folder", str(folder)],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Remove the site campus of the estate acme?" in done.stderr
    assert done.returncode == status
    assert (folder / "sites/campus").exists() == (status != 0)
    assert known("site", "list").stdout.count("tls://") == (1 if status == 0 else 3)


async def test_a_bus_forgets_removed_sites_and_lets_subnets_change_hands(tmp_path: Path) -> None:
    estate = new_estate(tmp_path / "estate")
    for name, subnet in (("campus", "10.1.0.0/16"), ("lab", "10.2.0.0/16"), ("old", "10.3.0.0/16")):
        add_site(estate, name, subnet)
    site = WholeSite(estate, "campus", tmp_path)
    registry = str(site.server.ready / "registry.json")
    async with site.working("menu"):
        assert "3 sites" in await site.type("site", "register", registry)
        # First to nobody: in the folder, too, a subnet is of one site at a time.
        estate.change_site("campus", subnets=())
        estate.change_site("lab", subnets=["10.1.0.0/16"])
        estate.remove_site("old")
        estate.change_site("campus", subnets=["10.2.0.0/16", "10.3.0.0/16"])
        assert "2 sites" in await site.type("site", "register", registry)
        operator = await connect(site.server.url, "command", door=site.server.door("operator"))
        try:
            known = await (await SiteStore.open(operator)).read()
        finally:
            await operator.close()
    assert {each.name: each.subnets for each in known} == {
        "campus": ("10.2.0.0/16", "10.3.0.0/16"),
        "lab": ("10.1.0.0/16",),
    }
    assert site.server.violations() == []


async def test_the_line_of_a_removed_site_is_cut_when_the_hub_reads_of_it(tmp_path: Path) -> None:
    estate = new_estate(tmp_path / "estate", hub=1)
    add_site(estate, "campus")
    (at_hub,), campus = hub_servers(estate), site_server(estate, "campus")
    at_hub.start()
    campus.start()
    try:

        async def lines() -> int:
            found = at_hub.monitoring("leafz")["leafs"]
            return len(found) if isinstance(found, list) else 0

        await eventually(lines, lambda count: count == 1, 20)
        file = campus.ready / "creds" / "leaf.creds"
        kept = credentials.read(file)
        estate.remove_site("campus")
        # Whatever is done with the estate's folder, the site has what it has.
        file.parent.mkdir(parents=True)
        credentials.write(file, kept)
        at_hub.reload()
        await eventually(lines, lambda count: count == 0, 20)

        async def refused() -> bool:
            return "authentication error" in at_hub.log().rpartition("Reloaded")[2].lower()

        # It comes again, and is refused.
        await eventually(refused, bool, 20)
        assert await lines() == 0
    finally:
        campus.stop()
        at_hub.stop()


async def test_the_events_of_a_site_that_has_a_removed_ones_name_reach_the_hub_too(
    tmp_path: Path,
) -> None:
    estate = new_estate(tmp_path / "estate", hub=1)
    (at_hub,) = hub_servers(estate)
    at_hub.start()
    try:
        collecting = await connect(
            at_hub.url, f"monitor-{subjects.ESTATE}", door=at_hub.door("monitor")
        )

        async def kept() -> int:
            return (await collecting.jetstream().stream_info(subjects.EVENTS)).state.messages

        for turn, wanted in ((3, 3), (2, 5)):
            add_site(estate, "campus")
            server = site_server(estate, "campus")
            server.start()
            try:
                menu = await connect(server.url, "menu-campus", door=server.door("menu"))
                await hub.prepare(collecting.jetstream(), ["campus"])
                await prepare(menu.jetstream(), hub=hub.DOMAIN)
                for _ in range(turn):
                    await EventLog(menu, "campus").record("menu_shown", machine="m")
                # A source that finds its site away is tried again by NATS after some 40 s.
                await eventually(kept, lambda found, wanted=wanted: found == wanted, 90)
                await menu.close()
            finally:
                server.stop()
            await hub.prepare(collecting.jetstream(), [])
            estate.remove_site("campus")
            at_hub.reload()
            shutil.rmtree(server.store)
        await collecting.close()
    finally:
        at_hub.stop()
