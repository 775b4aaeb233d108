"""`imageinvoker pki` and `imageinvoker site` as an operator types them."""

import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from bus.boot_credential import read
from bus.boot_signing import BootVerifier
from bus.claims import Claims, Reader, UserOfRole
from bus.connection import connect
from bus.revocations import RevocationStore
from bus.sites import SiteStore
from estate.folder import EstateFolder
from tests.estate.desk import CAMPUS, Type, contents
from tests.estate.servers import add_site, new_estate
from tests.estate.whole_site import ALL, WholeSite
from tests.site import STAFF_0117, eventually

HOST = "bus.lab.example"


def test_all_that_is_made_is_for_nobody_else_to_read(begun: Type, folder: Path) -> None:
    begun(*CAMPUS, "--out", str(folder.parent / "stick"))
    for top in (folder, folder.parent / "stick"):
        for each in (top, *top.rglob("*")):
            mode = stat.S_IMODE(each.stat().st_mode)
            assert mode == (0o700 if each.is_dir() else 0o600), each


def test_a_second_run_changes_nothing(campus: Type, folder: Path) -> None:
    before = contents(folder)
    assert "nothing was changed" in campus("pki", "init", "acme", "--hub", "hub.example").stdout
    assert "nothing was changed" in campus(*CAMPUS).stdout
    assert contents(folder) == before


def test_a_sites_folder_holds_all_that_its_server_and_services_need(
    campus: Type, folder: Path
) -> None:
    site = folder / "sites" / "campus"
    assert {str(each.relative_to(site)) for each in site.rglob("*") if each.is_file()} == {
        "README",
        "environment",
        "nats.conf",
        "registry.json",
        *(f"tls/{name}" for name in ("ca.pem", "server.pem", "server.key")),
        *(
            f"creds/{name}.creds"
            for name in ("menu", "auth", "scheduler", "monitor", "operator", "leaf")
        ),
        *(f"keys/{name}.creds" for name in ("callout", "system")),
        *(f"keys/{name}" for name in ("account.pub", "boot.pub", "estate")),
        *(f"keys/{name}.seed" for name in ("auth", "boot-signing")),
    }
    # What signs accounts and certificates does not leave the estate's folder.
    for key in (folder / "keys").rglob("*"):
        if key.name not in {"auth.seed", "role-boot.seed"} and key.suffix in {".seed", ".key"}:
            secret = key.read_bytes().strip()
            for file in site.rglob("*"):
                if file.is_file() and file.name != "callout.creds":
                    assert secret not in file.read_bytes(), (key, file)


def test_each_folder_says_what_to_do_with_it(campus: Type, folder: Path) -> None:
    for place, server in (("sites/campus", "bus.campus.example"), ("hub/hub-1", "hub.example")):
        said = (folder / place / "README").read_text()
        assert "systemctl reload imageinvoker-nats" in said
        assert "IMAGEINVOKER_HISTORY" in said
        assert f"--server tls://{server}:4222 --credentials" in said
        # Nothing is left out of what was to be filled in, and whose files they are is not copied.
        assert "{" not in said
        assert "rsync -rpt " in said
    assert "IMAGEINVOKER_DATABASE" in (folder / "sites/campus/README").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("site", "add", "campus", "--address", "other.example"), "already"),
        (("site", "add", "estate", "--address", "a.example"), "no name of a site"),
        (("site", "add", "hub", "--address", "a.example"), "no name of a site"),
        (("site", "add", "Campus West", "--address", "a.example"), "no name of a site"),
        (("site", "add", "../lab", "--address", "a.example"), "no name of a site"),
        (("site", "add", "lab", "--address", "a b"), "no address"),
        (("site", "add", "lab", "--address", "999.1.2.3"), "no address"),
        (("site", "add", "lab", "--address", "tls://a.example:4222"), "no address"),
        (("site", "add", "lab", "--address", ","), "--address"),
        (("site", "add", "lab", "--address", "a.example", "--subnet", "10.2"), "no subnet"),
        (
            ("site", "add", "lab", "--address", "a.example", "--subnet", "10.2.3.4/16"),
            "say 10.2.0.0/16",
        ),
        (
            ("site", "add", "lab", "--address", "a.example", "--subnet", "10.1.0.0/16"),
            "site 'campus'",
        ),
        (
            ("site", "add", "lab", "--address", "a.example", "--subnet", "10.1.2.0/24"),
            "--nested",
        ),
        (("site", "add", "lab", "--address", "a.example", "--server-port", "0"), "no port"),
        (("site", "add", "lab", "--address", "a.example", "--install", "etc"), "all of its path"),
        (("site", "add", "lab", "--address", "a.example", "--store", "/a\nb"), "all of its path"),
        (("site", "show", "lab"), "no site"),
        (("pki", "init", "other"), "another folder"),
        (("pki", "init", "acme", "--hub", "elsewhere.example"), "another hub"),
        (("pki", "init", "acme", "--hub", "a.example", "b.example"), "one server or three"),
        (("pki", "init", "Not A Name"), "no name of an estate"),
        (("pki", "renew", "lab"), "no site"),
        (("pki", "revoke", "lab", "menu"), "no site"),
        (("pki", "revoke", "campus", "console"), "menu, auth"),
        (("pki", "boot", "issue", "Win PE", "--out", "-"), "no name of an image"),
        (("pki", "boot", "issue", "winpe", "--days", "0", "--out", "-"), "1 to 3650"),
        (("pki", "boot", "revoke", "../x"), "no name of an image"),
    ],
)
def test_bad_input_is_refused_with_cause_and_cure_and_changes_nothing(
    campus: Type, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    before = contents(folder)
    assert said in campus(*arguments, status=2).stderr
    assert contents(folder) == before
    assert {each.name for each in folder.parent.iterdir()} == {"estate"}


def test_a_credential_takes_the_place_of_no_device_or_pipe(begun: Type, folder: Path) -> None:
    pipe = folder.parent / "pipe"
    os.mkfifo(pipe)
    said = begun("pki", "boot", "issue", "winpe", "--out", str(pipe), status=2).stderr
    assert "no file" in said
    assert pipe.is_fifo()
    assert "no image" in begun("pki", "boot", "list").stdout


def test_a_nested_subnet_is_taken_where_it_is_meant(campus: Type) -> None:
    campus(
        "site", "add", "lab", "--address", "lab.example", "--subnet", "10.1.2.0/24", "--nested"
    )  # fmt: skip
    sites = json.loads(campus("site", "list", "--json").stdout)
    assert [each["subnets"] for each in sites] == [["10.1.0.0/16"], ["10.1.2.0/24"]]


def test_without_an_estate_every_command_says_how_to_begin_one(type_: Type) -> None:
    for command in ("pki show", "pki renew", "site list", "site show x", "pki boot list"):
        assert "imageinvoker pki init" in type_(*command.split(), status=2).stderr


def test_a_folder_with_something_else_in_it_is_left_alone(type_: Type, folder: Path) -> None:
    folder.mkdir()
    (folder / "diary").write_text("dear diary")
    assert "no estate" in type_("pki", "init", "acme", status=2).stderr
    (folder / "estate.json").write_text('{"a": 1}')
    assert "no estate that this version knows" in type_("pki", "show", status=2).stderr
    assert (folder / "diary").read_text() == "dear diary"


def test_a_lost_key_is_named_and_never_made_anew(begun: Type, folder: Path) -> None:
    (folder / "keys" / "operator.seed").unlink()
    assert "operator.seed" in begun(*CAMPUS, status=1).stderr
    (folder / "keys" / "operator.seed").write_text("not a seed")
    assert "backup" in begun(*CAMPUS, status=1).stderr
    assert not (folder / "sites").exists()


def test_what_was_left_half_made_is_made_whole_by_the_next_run(begun: Type, folder: Path) -> None:
    record = (folder / "estate.json").read_bytes()
    begun(*CAMPUS)
    # As if it had been cut off before the estate knew of the site.
    (folder / "estate.json").write_bytes(record)
    (folder / "sites" / "campus" / "nats.conf").unlink()
    assert "is added" in begun(*CAMPUS).stdout
    assert (folder / "sites" / "campus" / "nats.conf").exists()


def test_what_is_copied_to_servers_can_be_made_again(campus: Type, folder: Path) -> None:
    before = set(contents(folder))
    shutil.rmtree(folder / "sites" / "campus")
    shutil.rmtree(folder / "hub")
    campus("pki", "renew")
    assert set(contents(folder)) == before


def test_two_commands_at_once_lose_nothing(begun: Type, folder: Path) -> None:
    names = [f"lab-{number}" for number in range(4)]
    with ThreadPoolExecutor() as desks:
        done = [desks.submit(begun, "site", "add", name, "--address", HOST) for name in names]
    assert [each.result().returncode for each in done] == [0] * len(names)
    assert [each.name for each in EstateFolder.open(folder).record.sites] == names


def test_show_tells_when_each_certificate_and_credential_ends(campus: Type, folder: Path) -> None:
    shown: Any = json.loads(campus("pki", "show", "--json").stdout)
    now = datetime.now(UTC)
    for each in (*shown["certificates"], *shown["credentials"]):
        assert datetime.fromisoformat(each["ends"]) > now + timedelta(days=396), each
    places = {(each["place"], each["what"]) for each in shown["credentials"]}
    assert {("campus", "menu"), ("campus", "leaf"), ("hub", "operator")} < places
    text = (folder / "sites" / "campus" / "creds" / "menu.creds").read_text()
    token = text.split()[4]
    claims = Reader(Claims[UserOfRole]).read(token)
    assert claims.sub in campus("pki", "show").stdout


def test_a_servers_certificate_names_its_addresses_and_only_the_hubs_is_good_for_clients(
    campus: Type, folder: Path
) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    good_for = {}
    for place in ("sites/campus", "hub/hub-1"):
        file = folder / place / "tls" / "server.pem"
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        certificate.verify_directly_issued_by(authority)
        good_for[place] = len(
            certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if place == "sites/campus":
            assert names.get_values_for_type(x509.DNSName) == ["bus.campus.example", "localhost"]
            addresses = map(str, names.get_values_for_type(x509.IPAddress))
            assert list(addresses) == ["192.0.2.10", "127.0.0.1", "::1"]
    assert good_for == {"sites/campus": 1, "hub/hub-1": 2}


def test_a_boot_credential_is_good_for_the_estate_and_for_as_long_as_told(
    begun: Type, folder: Path
) -> None:
    token = begun("pki", "boot", "issue", "winpe", "--days", "30", "--out", "-").stdout.strip()
    said = read(token)
    assert (said.estate, said.image) == ("acme", "winpe")
    assert said.expires - said.issued == 30 * 86_400
    record = EstateFolder.open(folder).record
    BootVerifier("acme", record.boot).verify(token, said.issued)
    file = folder.parent / "credential"
    begun("pki", "boot", "issue", "usb-17", "--out", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read(file.read_text().strip()).image == "usb-17"
    begun("pki", "boot", "revoke", "usb-17")
    listed = begun("pki", "boot", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["usb-17", "revoked"], ["winpe", "ends"]]
    assert "revoked" in begun("pki", "boot", "issue", "usb-17", "--out", "-", status=2).stderr


def test_each_site_is_given_all_sites_and_the_images_that_are_revoked(
    campus: Type, folder: Path
) -> None:
    campus("pki", "boot", "revoke", "usb-17")
    campus("site", "add", "lab", "--address", "lab.example")
    for place in ("sites/campus", "sites/lab", "hub/hub-1"):
        told = json.loads((folder / place / "registry.json").read_text())
        assert [each["name"] for each in told["sites"]] == ["campus", "lab"]
        assert told["revoked_images"] == ["usb-17"]


async def test_the_bus_is_told_of_sites_and_throws_out_a_revoked_image(tmp_path: Path) -> None:
    estate = new_estate(tmp_path / "estate")
    for name, subnet in (("campus", "127.0.0.0/8"), ("lab", "10.2.0.0/16")):
        add_site(estate, name, subnet)
    site = WholeSite(estate, "campus", tmp_path)
    registry = str(site.server.ready / "registry.json")
    async with site.working(*ALL):
        for _ in range(2):
            assert "2 sites" in await site.type("site", "register", registry)
        operator = await connect(site.server.url, "command", door=site.server.door("operator"))
        try:
            known = await (await SiteStore.open(operator)).read()
            assert [each.name for each in known] == ["campus", "lab"]
            async with site.machine(STAFF_0117) as asker:
                gone: list[bool] = []
                asker.connection.on_disconnect(lambda: gone.append(True))
                await asker.welcome(STAFF_0117)
                environment = {"IMAGEINVOKER_ESTATE": str(estate.folder)}
                await site.type("pki", "boot", "revoke", "winpe", more=environment)
                assert await (await RevocationStore.open(operator)).read() == ["winpe"]

                async def ended() -> bool:
                    return bool(gone)

                await eventually(ended, bool, 20)
            with pytest.raises(TimeoutError):
                async with site.machine(STAFF_0117, within=3):
                    pass
        finally:
            await operator.close()
    assert site.server.violations() == []
