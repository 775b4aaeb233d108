"""The authority of an estate gives way to a new one: who believes whom, in real handshakes."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from bus.certificates import why
from bus.connection import connect
from bus.door import Door
from estate.keyring import Keyring
from tests.estate.desk import Type, contents
from tests.estate.servers import HERE, EstateServer, add_site, hub_servers, new_estate, site_server
from tests.site import eventually


async def believed(ca: Path, ready: Path) -> str:
    """Why a client with this ``ca.pem`` does not believe a server of that folder; else nothing."""
    showing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    showing.load_cert_chain(ready / "tls" / "server.pem", ready / "tls" / "server.key")

    async def meet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(meet, HERE, 0, ssl=showing)
    try:
        trusting = Door(ca=ca).context()
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(HERE, port, ssl=trusting, server_hostname=HERE)
    except ssl.SSLCertVerificationError as error:
        return why(error)
    else:
        writer.close()
        return ""
    finally:
        server.close()


async def test_old_and_new_believe_one_another_until_the_old_authority_is_dropped(
    campus: Type, folder: Path, tmp_path: Path
) -> None:
    site = folder / "sites" / "campus"
    old, new, alone = (tmp_path / name for name in ("old", "new", "alone"))
    shutil.copytree(site, old)
    assert "authority" in campus("pki", "authority", "renew").stdout
    shutil.copytree(site, new)
    campus("pki", "authority", "drop")
    shutil.copytree(site, alone)
    found = {
        (client.name, server.name): await believed(client / "tls" / "ca.pem", server)
        for client in (old, new, alone)
        for server in (old, new, alone)
    }
    assert found == {
        ("old", "old"): "",
        ("old", "new"): "",
        ("new", "old"): "",
        ("new", "new"): "",
        ("new", "alone"): "",
        ("alone", "new"): "",
        ("alone", "alone"): "",
        # What has waited until it is too late.
        ("old", "alone"): "other_authority",
        ("alone", "old"): "other_authority",
    }


async def test_it_can_be_done_again_and_each_time_the_one_before_is_believed(
    campus: Type, folder: Path, tmp_path: Path
) -> None:
    site = folder / "sites" / "campus"
    for turn in range(2):
        before = tmp_path / str(turn)
        shutil.copytree(site, before)
        campus("pki", "authority", "renew")
        assert await believed(before / "tls" / "ca.pem", site) == ""
        assert await believed(site / "tls" / "ca.pem", before) == ""
        campus("pki", "authority", "drop")
    assert await believed(tmp_path / "0" / "tls" / "ca.pem", site) == "other_authority"


def test_all_certificates_are_of_the_new_authority_and_nothing_else_changes(
    campus: Type, folder: Path
) -> None:
    before = contents(folder)
    campus("pki", "authority", "renew")
    now = contents(folder)
    places = ("sites/campus", "hub/hub-1")
    assert {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)} == {
        "ca.pem",
        "keys/authority.pem",
        *(f"{place}/tls/{name}" for place in places for name in
            ("ca.pem", "server.pem", "server.key")),
    }  # fmt: skip
    authority = x509.load_pem_x509_certificate(now["ca.pem"])
    for place in places:
        assert now[f"{place}/tls/ca.pem"] == now["ca.pem"]
        server = x509.load_pem_x509_certificate(now[f"{place}/tls/server.pem"])
        server.verify_directly_issued_by(authority)
    shown = json.loads(campus("pki", "show", "--json").stdout)["certificates"]
    assert [each["what"] for each in shown][:2] == ["authority", "old authority"]


def test_neither_is_done_twice(campus: Type, folder: Path) -> None:
    assert "pki authority renew" in campus("pki", "authority", "drop", status=2).stderr
    campus("pki", "authority", "renew")
    before = contents(folder)
    assert "pki authority drop" in campus("pki", "authority", "renew", status=2).stderr
    assert contents(folder) == before


def test_what_was_cut_off_is_brought_to_its_end_by_a_renewal(campus: Type, folder: Path) -> None:
    before = {name: content for name, content in contents(folder).items() if content != b"a folder"}
    campus("pki", "authority", "renew")
    # As if only the authority had been kept when it ended.
    for name, content in before.items():
        if name != "keys/authority.pem":
            (folder / name).write_bytes(content)
    assert "pki renew" in campus("pki", "authority", "renew", status=2).stderr
    campus("pki", "renew")
    authority = Keyring(folder / "keys").authority()
    for place in ("", "sites/campus/tls", "hub/hub-1/tls"):
        assert (folder / place / "ca.pem").read_bytes() == authority.believed


def test_an_authority_that_is_none_is_named(campus: Type, folder: Path) -> None:
    (folder / "keys" / "authority.pem").write_bytes(b"nothing")
    assert "backup" in campus("pki", "renew", status=1).stderr
    (folder / "keys" / "authority.pem").unlink()
    assert "authority.pem" in campus("pki", "show", status=1).stderr


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[EstateServer, EstateServer, Path]]:
    """A hub, a site that is linked to it, and the estate's folder."""
    estate = new_estate(tmp_path / "estate", hub=1)
    add_site(estate, "campus")
    (hub,), campus = hub_servers(estate), site_server(estate, "campus")
    hub.start()
    campus.start()
    try:
        yield hub, campus, estate.folder
    finally:
        campus.stop()
        hub.stop()


async def linked(hub: EstateServer) -> None:
    """Returns when the site's line is up."""

    async def lines() -> int:
        found = hub.monitoring("leafz")["leafs"]
        return len(found) if isinstance(found, list) else 0

    await eventually(lines, lambda count: count == 1, 20)


async def come_in(server: EstateServer, ca: Path) -> None:
    """Comes on the bus as somebody who believes in what stands in a file."""
    door = Door(ca=ca, credentials=server.door("operator").credentials)
    connection = await asyncio.wait_for(connect(server.url, "command", door=door), 10)
    await connection.close()


@pytest.mark.parametrize("first", ["hub", "campus"])
async def test_real_servers_change_over_one_by_one_and_every_line_comes_back(
    running: tuple[EstateServer, EstateServer, Path], type_: Type, tmp_path: Path, first: str
) -> None:
    hub, campus, folder = running
    await linked(hub)
    old = tmp_path / "old.pem"
    shutil.copy(folder / "ca.pem", old)
    operator = await connect(campus.url, "command", door=campus.door("operator"))
    lost: list[bool] = []
    operator.on_disconnect(lambda: lost.append(True))
    turns = [hub, campus] if first == "hub" else [campus, hub]
    for step, outcasts in (("renew", ()), ("drop", (old,))):
        # What is in the folders now is what is copied, server by server.
        before = {each: shutil.copytree(each.ready / "tls", tmp_path / f"{step}-{each.port}")
            for each in turns}  # fmt: skip
        type_("pki", "authority", step)
        after = {each: shutil.copytree(each.ready / "tls", tmp_path / f"{step}-{each.port}-new")
            for each in turns}  # fmt: skip
        for each in turns:
            shutil.copytree(before[each], each.ready / "tls", dirs_exist_ok=True)
        for each in turns:
            shutil.copytree(after[each], each.ready / "tls", dirs_exist_ok=True)
            each.reload()
            # The site comes again, and both show and believe what they have at that time.
            hub.stop()
            hub.start()
            await linked(hub)
        for each in (hub, campus):
            await come_in(each, folder / "ca.pem")
            if not outcasts:
                await come_in(each, old)
    assert lost == []
    await operator.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connect(hub.url, "command", door=Door(ca=old)), 1)
