"""A site on a bus that trusts nobody: services and commands come in by credentials, over TLS."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bus import credentials, subjects
from bus.connection import BusUnavailableError, ask, connect
from bus.contract import LOGIN
from bus.door import Door
from bus.machines import machine_key
from bus.messages import Login
from bus.presence import wait_for_services
from cli.expiries import soon
from tests.buses import BusServer
from tests.echo import MACHINE, until
from tests.secured import DAY, Authority, SecuredServer

COMMAND = (sys.executable, "-m", "cli")
KEY = machine_key(MACHINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SecuredServer]:
    folder = tmp_path / "secured"
    folder.mkdir()
    server = SecuredServer(folder)
    server.start()
    yield server
    server.stop()


def environment(server: SecuredServer, **changes: str) -> dict[str, str]:
    """Of a program that finds all it needs where `imageinvoker site add` puts it."""
    others = {name: value for name, value in os.environ.items() if "IMAGEINVOKER" not in name}
    return (
        others
        | {
            "IMAGEINVOKER_SERVER": server.url,
            "IMAGEINVOKER_SITE": server.site,
            "IMAGEINVOKER_CREDENTIALS": str(server.folder),
            "IMAGEINVOKER_CA": str(server.ca),
            "XDG_DATA_HOME": str(server.folder),
        }
        | changes
    )


def command(
    server: SecuredServer, *arguments: str, **changes: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(server, **changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def auth_service(server: SecuredServer) -> Iterator[Path]:
    """A copy of the auth service; the file with what it logs."""
    log = server.folder / "auth.log"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [*COMMAND, "auth"], env=environment(server), stdout=opened, stderr=opened
        )
    try:
        yield log
    finally:
        process.terminate()
        status = process.wait(30)
    assert status == 0, log.read_text()


def found(server: SecuredServer, **changes: str) -> dict[str, tuple[str, str]]:
    """What the doctor says of the bus: state and cure of each text."""
    told = command(server, "doctor", "--only", "bus", "--json", **changes)
    return {
        each["finding"]["text"]: (each["finding"]["state"], each["finding"]["cure"])
        for each in json.loads(told.stdout)
    }


async def test_a_service_comes_in_takes_new_credentials_and_outlives_the_server(
    server: SecuredServer,
) -> None:
    file = server.credentials("auth", expires_in=4)
    with auth_service(server) as log:
        async with asyncio.timeout(30):
            machine = await connect(
                server.url, KEY, inbox=subjects.inbox(KEY), door=server.door("machine")
            )
            await wait_for_services(machine, server.site, ("auth",))
        login = Login(machine=MACHINE, password="")
        assert (await ask(machine, server.site, LOGIN, KEY, login)).token
        credentials.write(file, server.user("auth"))
        await until(lambda: "credentials have expired" in log.read_text())
        await wait_for_services(machine, server.site, ("auth",))
        server.kill()
        server.start()
        async with asyncio.timeout(30):
            await until(lambda: machine.is_connected)
            await wait_for_services(machine, server.site, ("auth",))
        assert (await ask(machine, server.site, LOGIN, KEY, login)).token
        await machine.close()


async def test_a_service_that_came_in_by_credentials_answers_only_in_the_machines_inbox(
    server: SecuredServer,
) -> None:
    server.credentials("auth")
    login = Login(machine=MACHINE, password="")
    with auth_service(server) as log:
        thief = await connect(server.url, "thief", door=server.door("thief"))
        await wait_for_services(thief, server.site, ("auth",))
        with pytest.raises(BusUnavailableError):
            await ask(thief, server.site, LOGIN, KEY, login, timeout=1)
        await until(lambda: "go elsewhere" in log.read_text())
        await thief.close()


def test_commands_come_in_as_the_operator(server: SecuredServer) -> None:
    server.credentials("operator")
    shown = found(server)
    assert any(text.startswith("nats-server 2.") for text in shown)
    assert not any("expire" in text for text in shown)
    by_option = command(
        server,
        "doctor", "--only", "bus", "--ca", str(server.ca),
        "--credentials", str(server.folder / "operator.creds"),
        IMAGEINVOKER_CA="/nothing", IMAGEINVOKER_CREDENTIALS="/nothing",
    )  # fmt: skip
    assert "nats-server 2." in by_option.stdout


def test_an_empty_variable_says_nothing(bus: BusServer, server: SecuredServer) -> None:
    empty = {"IMAGEINVOKER_CREDENTIALS": "", "IMAGEINVOKER_CA": ""}
    assert any(
        "nats-server" in text for text in found(server, IMAGEINVOKER_SERVER=bus.url, **empty)
    )


def test_the_doctor_names_what_keeps_it_out_and_the_cure(
    server: SecuredServer, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    server.credentials("operator")
    ((text, (state, cure)),) = found(server, IMAGEINVOKER_CA=str(other)).items()
    assert (state, "of the authority that is believed here" in text) == ("fail", True)
    assert "ca.pem" in cure
    ((text, (state, cure)),) = found(server, IMAGEINVOKER_CREDENTIALS="/gone.creds").items()
    assert (state, "/gone.creds cannot be read" in text) == ("fail", True)
    assert ".creds file" in cure
    server.credentials("operator", expires_in=-5)
    ((text, (state, cure)),) = found(server).items()
    assert (state, text) == ("fail", "the credentials have expired")
    assert "Issue new ones" in cure
    open_address = f"nats://ann:hush@192.0.2.1:{server.port}"
    ((text, (state, cure)),) = found(server, IMAGEINVOKER_SERVER=open_address).items()
    assert state == "fail"
    assert "tls://192.0.2.1" in cure
    assert "hush" not in text + cure


def test_a_command_that_is_kept_out_says_why(server: SecuredServer) -> None:
    server.credentials("operator", expires_in=-5)
    kept_out = command(server, "account", "list")
    assert kept_out.returncode == 4
    assert "The credentials have expired. Issue new ones" in kept_out.stderr
    assert "Traceback" not in kept_out.stderr


def test_credentials_do_not_go_in_the_clear(server: SecuredServer) -> None:
    server.credentials("operator")
    refused = command(server, "account", "list", IMAGEINVOKER_SERVER="nats://192.0.2.1:4222")
    assert refused.returncode == 2
    assert "tls://192.0.2.1:4222" in refused.stderr


def test_the_doctor_warns_of_what_expires_within_two_weeks(tmp_path: Path) -> None:
    authority = Authority()
    certificate = authority.issue(until=timedelta(days=13))
    server = SecuredServer(tmp_path, authority=authority, certificate=certificate)
    server.start()
    try:
        server.credentials("operator", expires_in=3 * DAY.total_seconds())
        warned = {text: cure for text, (state, cure) in found(server).items() if state == "warn"}
    finally:
        server.stop()
    assert any("certificate expires in 13 days" in text for text in warned)
    assert any("operator.creds, expires in 3 days" in text for text in warned)
    assert all(warned.values())


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (15, None),
        (14, "it expires in 14 days"),
        (1.5, "it expires in 36 hours"),
        (0, "it has expired"),
        (-3, "it has expired"),
    ],
)
def test_it_is_told_in_days_then_in_hours(days: float, said: str | None) -> None:
    assert soon("it", 1_000_000 + days * 86_400, 1_000_000) == said


@pytest.mark.parametrize("ends", [None, 0])
def test_what_does_not_expire_is_not_told(ends: float | None) -> None:
    assert soon("it", ends, 1_000_000) is None


async def test_a_folder_of_credentials_has_one_for_each_program(server: SecuredServer) -> None:
    """A service does not come in by another's."""
    server.credentials("operator")
    with auth_service(server) as log:
        await until(lambda: "auth.creds cannot be read" in log.read_text(), 30)
        server.credentials("auth")
        door = Door(ca=server.ca, credentials=server.folder / "operator.creds")
        async with asyncio.timeout(30):
            connection = await connect(server.url, "tester", door=door)
            await wait_for_services(connection, server.site, ("auth",))
        await connection.close()


def test_who_names_no_deployment_server_is_told_that_it_may_be_of_another_engine(
    server: SecuredServer,
) -> None:
    refused = command(server, "menu", IMAGEINVOKER_DATABASE="")
    assert refused.returncode == 2
    assert "IMAGEINVOKER_DATABASE to the ODBC connection string" in refused.stderr
    assert "ENGINE:ADDRESS" in refused.stderr
