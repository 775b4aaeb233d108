"""What a technician reads when a secured server keeps the boot client out; each with a real one."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from client_portal import Technician
from client_site import MACHINE, Site, until

from bus.boot_credential import BootCredential
from bus.boot_signing import issue
from bus.machines import machine_key
from bus.nkeys import KeyPair
from client.main import run
from client.portal.app import Portal
from client.settings import Settings, WrongUseError, resolve
from tests.faults.clocks import Clock
from tests.secured import DAY, Authority, Gate, Issued, SecuredServer, gate
from tests.terminal import Terminal

KEY = machine_key(MACHINE)
BOOT_KEY = KeyPair.generate("account")


@contextmanager
def server_with(
    folder: Path, certificate: Issued | None = None, authority: Authority | None = None
) -> Iterator[SecuredServer]:
    server = SecuredServer(folder, authority=authority, certificate=certificate)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def told(server: SecuredServer, credential: Path | None = None, **changes: object) -> Settings:
    usual = {
        "server": server.url,
        "site": server.site,
        "timeout": 0,
        "ca": server.ca,
        "boot_credential": credential,
    }
    return Settings(**{**usual, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def at_portal(settings: Settings) -> AsyncIterator[Technician]:
    assert settings.server is not None
    portal = Portal(settings, settings.server, MACHINE)
    async with portal.run_test(size=(80, 25)) as pilot:
        yield Technician(portal, pilot)


async def reads(technician: Technician, *texts: str, seconds: float = 15) -> None:
    """Whatever the lines: a notice wraps."""

    def screen() -> str:
        return " ".join(technician.text().split())

    await until(lambda: all(text in screen() for text in texts), technician.text, seconds)


def credential(folder: Path, *, since: float = -60, until: float = 3600) -> tuple[Path, str]:
    """The file and the text of a boot credential, good from ``since`` to ``until`` from now."""
    now = int(time.time())
    said = BootCredential(
        estate="tests", image="lab", issued=now + int(since), expires=now + int(until)
    )
    text = issue(BOOT_KEY, said)
    file = folder / "boot.credential"
    file.write_text(text + "\n")
    return file, text


@asynccontextmanager
async def secured_site(server: SecuredServer, text: str) -> AsyncIterator[Gate]:
    """The gate opens for this credential."""
    async with gate(server) as opened:
        opened.password = text
        yield opened


async def test_a_boot_client_with_its_credential_goes_all_the_way(tmp_path: Path) -> None:
    file, text = credential(tmp_path)
    with server_with(tmp_path) as server:
        async with (
            secured_site(server, text) as opened,
            Site(server.url, server.site, server.door()).serving() as site,
            at_portal(told(server, file)) as technician,
        ):
            await reads(technician, "known as PC-0815")
            await technician.enters()
            await technician.sees("Windows 11 Staff")
            await technician.presses("enter")
            await technician.sees("To be deployed")
            await technician.presses("enter")
            await technician.sees("Scheduled for PC-0815")
        assert set(opened.asked) == {KEY}
        assert len(site.sent) == 1


CERTIFICATES = {
    "expired": (
        {"since": -2 * DAY, "until": timedelta(hours=-1)},
        ("The server's certificate has expired: it is", "Ask an operator to renew it"),
    ),
    "not yet valid": (
        {"since": timedelta(hours=1), "until": DAY},
        ("The server's certificate is not valid yet: it is", "Set this computer's clock."),
    ),
    "other name": (
        {"names": ("deploy.example",)},
        ("is for another name than tls://127.0.0.1", "Use the name that is in it"),
    ),
}


@pytest.mark.parametrize("fault", CERTIFICATES)
async def test_what_is_wrong_with_a_certificate_is_said_with_its_cure(
    tmp_path: Path, fault: str
) -> None:
    how, texts = CERTIFICATES[fault]
    authority = Authority()
    certificate = authority.issue(**how)  # type: ignore[arg-type]
    with server_with(tmp_path, certificate, authority) as server:
        async with at_portal(told(server)) as technician:
            await reads(technician, *texts)


@pytest.mark.parametrize(
    ("years", "texts"),
    [
        (-30, ("is not valid yet: it is 19", "Set this computer's clock.")),
        (11, ("has expired: it is 20", "or set this clock if it is wrong.")),
    ],
)
def test_a_clock_that_is_off_by_years_is_told_of(
    tmp_path: Path, machine_file: Path, years: int, texts: tuple[str, ...]
) -> None:
    clock = Clock(tmp_path / "clock", years * 365.25 * 86_400)
    with server_with(tmp_path) as server:
        command = [
            *(sys.executable, "-m", "cli", "client", "-t", "0", "--machine", str(machine_file)),
            *("--server", server.url, "--ca", str(server.ca), "--site", server.site),
        ]
        with Terminal(command, {**os.environ, **clock.environment}) as pc:
            pc.wait_for(" UTC", 40)
            screen = " ".join(pc.text.split())
            assert all(text in screen for text in texts), screen
            process = pc.process.pid
    Clock.clear_up(process)


async def test_a_certificate_of_another_estate_is_said_to_be_one(tmp_path: Path) -> None:
    with server_with(tmp_path, Authority().issue()) as server:
        async with at_portal(told(server)) as technician:
            await reads(technician, "is not of the estate of this boot medium", "right server?")


async def test_a_certificate_that_is_mended_meanwhile_lets_the_client_go_on(
    tmp_path: Path,
) -> None:
    authority = Authority()
    expired = authority.issue(since=-2 * DAY, until=-DAY)
    file, text = credential(tmp_path)
    with server_with(tmp_path, expired, authority) as server:
        async with at_portal(told(server, file)) as technician:
            await reads(technician, "has expired")
            server.stop()
            server.certify(authority.issue())
            server.start()
            async with (
                secured_site(server, text),
                Site(server.url, server.site, server.door()).serving(),
            ):
                await reads(technician, "known as PC-0815")
                await technician.sees_no("has expired")


async def test_a_refused_boot_credential_is_said_and_asked_with_again(tmp_path: Path) -> None:
    file, text = credential(tmp_path)
    with server_with(tmp_path) as server:
        async with (
            secured_site(server, "another") as opened,
            at_portal(told(server, file)) as technician,
        ):
            await reads(technician, "does not let this computer in", "Make the medium anew.")
            opened.password = text
            async with Site(server.url, server.site, server.door()).serving():
                await reads(technician, "known as PC-0815")


@pytest.mark.parametrize(
    ("since", "until", "texts"),
    [
        (-7200, -3600, ("credential of this boot medium has expired", "Make the medium anew")),
        (3600, 7200, ("boot medium is not valid yet", "Set this computer's clock.")),
    ],
)
async def test_a_credential_that_is_not_good_now_is_said_to_be_so(
    tmp_path: Path, since: float, until: float, texts: tuple[str, ...]
) -> None:
    file, _ = credential(tmp_path, since=since, until=until)
    with server_with(tmp_path) as server:
        async with secured_site(server, "another"), at_portal(told(server, file)) as technician:
            await reads(technician, *texts)


async def test_a_damaged_credential_is_said_to_be_so(tmp_path: Path) -> None:
    file = tmp_path / "boot.credential"
    file.write_text("iib1.half")
    with server_with(tmp_path) as server:
        async with secured_site(server, "another"), at_portal(told(server, file)) as technician:
            await reads(technician, "credential of this boot medium is damaged")


async def test_a_medium_without_a_credential_is_said_to_have_none(tmp_path: Path) -> None:
    _, text = credential(tmp_path)
    with server_with(tmp_path) as server:
        async with secured_site(server, text), at_portal(told(server)) as technician:
            await reads(technician, "this boot medium has none", "Make the medium anew with one.")


@pytest.mark.parametrize("missing", ["ca", "boot_credential"])
async def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    file, text = credential(tmp_path)
    nothing = tmp_path / "gone"
    with server_with(tmp_path) as server:
        settings = told(server, file, **{missing: nothing})
        async with secured_site(server, text), at_portal(settings) as technician:
            await reads(technician, "gone is missing or damaged.", "Make the boot medium anew")


async def test_without_the_auth_service_it_is_asked_for(tmp_path: Path) -> None:
    file, _ = credential(tmp_path)
    with server_with(tmp_path) as server:
        async with at_portal(told(server, file)) as technician:
            await reads(technician, "could not find out in time", "Is the auth service up?")


async def test_who_was_thrown_out_and_is_refused_reads_why(tmp_path: Path) -> None:
    file, text = credential(tmp_path)
    with server_with(tmp_path) as server:
        async with secured_site(server, text) as opened:
            opened.expires_in = 2
            async with (
                Site(server.url, server.site, server.door()).serving(),
                at_portal(told(server, file)) as technician,
            ):
                await reads(technician, "known as PC-0815")
                opened.password = "revoked"
                await reads(technician, "does not let this computer in")


async def test_without_a_screen_it_says_the_same_and_says_it_once(
    tmp_path: Path,
    machine_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minutes = count(1)
    monkeypatch.setattr("client.troubles._now", lambda: f"12:{next(minutes):02}")
    authority = Authority()
    with server_with(tmp_path, authority.issue(until=timedelta(hours=-1)), authority) as server:
        settings = told(server, machine=machine_file, item="job:1")
        settings = Settings(**{
            name: getattr(settings, name) for name in settings.__slots__
        } | {"timeout": 2})  # fmt: skip
        assert await asyncio.to_thread(run, settings) == 4
    assert capsys.readouterr().out.count("The server's certificate has expired") == 1
    assert next(minutes) > 2, "it was tried again, and each time it was later"


@pytest.mark.parametrize("server", ["nats://deploy.example", "deploy.example:4222"])
def test_a_credential_is_not_for_a_server_without_encryption(server: str) -> None:
    with pytest.raises(WrongUseError, match=r"--server: .*tls://deploy\.example"):
        resolve(server=server, boot_credential=Path("credential"), environment={})


def test_nor_is_a_password_in_an_address() -> None:
    with pytest.raises(WrongUseError) as caught:
        resolve(server="nats://ann:hush@deploy.example:4222", environment={})
    assert "tls://deploy.example:4222" in str(caught.value)
    assert "hush" not in str(caught.value)
    resolve(server="tls://ann:hush@deploy.example:4222", environment={})


def test_where_the_files_are_is_told_by_argument_environment_and_kernel() -> None:
    kernel = "imageinvoker.ca=/k/ca.pem imageinvoker.boot-credential=/k/credential"
    environment = {"IMAGEINVOKER_CA": "/e/ca.pem", "IMAGEINVOKER_BOOT_CREDENTIAL": "/e/credential"}
    booted = resolve(environment={}, kernel=kernel)
    assert (booted.ca, booted.boot_credential) == (Path("/k/ca.pem"), Path("/k/credential"))
    set_ = resolve(environment=environment, kernel=kernel)
    assert (set_.ca, set_.boot_credential) == (Path("/e/ca.pem"), Path("/e/credential"))
    given = resolve(
        ca=Path("ca"), boot_credential=Path("c"), environment=environment, kernel=kernel
    )
    assert (given.ca, given.boot_credential) == (Path("ca"), Path("c"))
