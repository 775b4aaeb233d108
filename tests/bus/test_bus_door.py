"""The way onto a bus that trusts nobody, and back onto it; against a real server."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import nats.errors
import pytest
from nats.aio.msg import Msg

from bus import credentials, subjects
from bus.claims import Limits, Subjects
from bus.connection import Connection, connect
from bus.door import (
    BootLogin,
    CertificateError,
    Door,
    DoorError,
    RefusedError,
    UnprotectedError,
    UnusableError,
)
from tests.buses import BusServer
from tests.echo import KEY, until
from tests.secured import DAY, Authority, SecuredServer, gate
from tests.wire import recorder

Kind = TypeVar("Kind", bound=DoorError)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SecuredServer]:
    folder = tmp_path / "secured"
    folder.mkdir()
    server = SecuredServer(folder)
    server.start()
    yield server
    server.stop()


class Told:
    """What a connection has told of."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.line: list[str] = []

    async def report(self, error: Exception) -> None:
        self.errors.append(error)

    def watch(self, connection: Connection) -> None:
        connection.on_disconnect(lambda: self.line.append("down"))
        connection.on_reconnect(lambda: self.line.append("up"))

    def has_come_back(self, times: int) -> bool:
        return self.line == ["down", "up"] * times

    @property
    def refusals(self) -> list[str]:
        return [error.refusal for error in self.errors if isinstance(error, RefusedError)]


@asynccontextmanager
async def connected(url: str, door: Door, told: Told | None = None) -> AsyncIterator[Connection]:
    told = told or Told()
    async with asyncio.timeout(10):
        connection = await connect(url, "tester", report=told.report, door=door)
    told.watch(connection)
    try:
        yield connection
    finally:
        await connection.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def answers(connection: Connection, subject: str) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"here")

    await connection.subscribe(subject, cb=answer)
    await connection.flush()


async def kept_out(url: str, door: Door, kind: type[Kind]) -> list[Kind]:
    """What somebody who waits for a first connection is told."""
    told = Told()
    waiting = asyncio.create_task(connect(url, "tester", report=told.report, door=door))
    try:
        await until(lambda: any(isinstance(each, kind) for each in told.errors))
        assert not waiting.done()
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
    return [each for each in told.errors if isinstance(each, kind)]


async def test_who_has_credentials_comes_in_over_tls(server: SecuredServer) -> None:
    async with connected(server.url, server.door()) as connection:
        await answers(connection, "a.b")
        assert (await connection.request("a.b", timeout=2)).data == b"here"
        assert connection.certificate_ends is not None


async def test_what_goes_over_tls_comes_whole_and_in_its_order(server: SecuredServer) -> None:
    sent = [bytes([number % 251]) * (number * 7_919 % 60_000) for number in range(300)]
    came: list[bytes] = []

    async def take(message: Msg) -> None:
        came.append(message.data)

    async with connected(server.url, server.door()) as connection:
        await connection.subscribe("a.b", cb=take)
        for data in sent:
            await connection.publish("a.b", data)
        await connection.flush()
        await until(lambda: len(came) == len(sent))
    assert came == sent


async def test_who_has_none_is_refused(tmp_path: Path) -> None:
    server = SecuredServer(tmp_path, with_callout=False)
    server.start()
    try:
        (refused, *_) = await kept_out(server.url, Door(ca=server.ca), RefusedError)
    finally:
        server.stop()
    assert refused.refusal == "refused"


async def test_who_is_left_waiting_by_the_auth_service_is_told_so(server: SecuredServer) -> None:
    (refused, *_) = await kept_out(server.url, Door(ca=server.ca), RefusedError)
    assert refused.refusal == "slow"


async def test_credentials_of_another_estate_are_refused(
    server: SecuredServer, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = SecuredServer(folder)
    door = Door(ca=server.ca, credentials=other.credentials("menu"))
    (refused, *_) = await kept_out(server.url, door, RefusedError)
    assert refused.refusal == "refused"


async def test_credentials_that_expire_are_replaced_without_a_lost_subscription(
    server: SecuredServer,
) -> None:
    file = server.credentials("menu", expires_in=4)
    told = Told()
    async with connected(server.url, Door(ca=server.ca, credentials=file), told) as connection:
        await answers(connection, "a.b")
        credentials.write(file, server.user("menu"))
        await until(lambda: told.line[-1:] == ["up"])
        assert (await connection.request("a.b", timeout=2)).data == b"here"
    assert set(told.refusals) == {"expired"}


async def test_expired_credentials_are_refused_as_expired_until_new_ones_are_there(
    server: SecuredServer,
) -> None:
    file = server.credentials("menu")
    told = Told()
    async with connected(server.url, Door(ca=server.ca, credentials=file), told) as connection:
        await answers(connection, "a.b")
        credentials.write(file, server.user("menu", expires_in=-60))
        await connection.force_reconnect()
        await until(lambda: len(told.refusals) >= 3)
        assert set(told.refusals) == {"expired"}
        assert not connection.is_closed
        credentials.write(file, server.user("menu"))
        await until(lambda: told.line[-1:] == ["up"])
        assert (await connection.request("a.b", timeout=2)).data == b"here"


async def test_a_revoked_user_keeps_being_refused_and_says_so(server: SecuredServer) -> None:
    file = server.credentials("menu")
    told = Told()
    async with (
        connected(server.url, Door(ca=server.ca, credentials=file), told) as connection,
        connected(server.url, server.door()) as other,
    ):
        server.revoke(credentials.read(file).key)
        await until(lambda: len(told.refusals) >= 3)
        assert told.refusals[0] == "revoked"
        assert told.line == ["down"]
        assert not connection.is_connected
        assert not connection.is_closed
        await other.flush()
        credentials.write(file, server.user("menu"))
        await until(lambda: connection.is_connected)


async def test_who_is_refused_for_long_keeps_no_lines_open(
    server: SecuredServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.connection.backoff", lambda _attempt: 0.002)
    told = Told()
    file = server.credentials("menu")
    async with connected(server.url, Door(ca=server.ca, credentials=file), told) as connection:
        server.revoke(credentials.read(file).key)
        await until(lambda: len(told.refusals) >= 3)
        few = open_files()
        await until(lambda: len(told.refusals) >= 100)
        assert open_files() < few + 10
        assert not connection.is_closed


async def test_waiting_to_be_let_in_can_be_called_off_at_any_moment(
    server: SecuredServer,
) -> None:
    door = server.door()
    for step in range(12):
        waiting = asyncio.create_task(connect(server.url, "early", door=door))
        done, _ = await asyncio.wait({waiting}, timeout=step / 1000)
        if done:
            await waiting.result().close()
            continue
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=2)
        assert waiting.cancelled()
    gc.collect()  # which would warn of lines that nobody has closed


async def test_a_connection_outlives_its_server_over_tls(server: SecuredServer) -> None:
    told = Told()
    async with connected(server.url, server.door(), told) as connection:
        await answers(connection, "a.b")
        for outage in (1, 2):
            server.kill()
            await until(lambda: told.line[-1:] == ["down"])
            server.start()
            await until(lambda: told.line[-1:] == ["up"])
            assert (await connection.request("a.b", timeout=2)).data == b"here"
            assert told.line == ["down", "up"] * outage


async def test_a_renewed_authority_is_believed_once_its_file_is_replaced(
    server: SecuredServer,
) -> None:
    told = Told()
    async with connected(server.url, server.door(), told) as connection:
        server.stop()
        renewed = Authority()
        server.certify(renewed.issue())
        server.start()
        await until(lambda: any(isinstance(each, CertificateError) for each in told.errors))
        server.ca.write_bytes(renewed.pem)
        await until(lambda: told.line == ["down", "up"])
        await connection.flush()


async def test_a_dead_encrypted_line_is_given_up_soon(server: SecuredServer) -> None:
    told = Told()
    async with connected(server.url, server.door(), told) as connection:
        with server.frozen():
            await connection.force_reconnect()
            await until(lambda: told.line == ["down"])
        await until(lambda: told.line == ["down", "up"])
        with server.frozen():
            await asyncio.wait_for(connection.close(), 5)


async def test_a_full_account_lets_nobody_in_and_says_so(tmp_path: Path) -> None:
    server = SecuredServer(tmp_path, limits=Limits(conn=1))
    server.start()
    try:
        told = Told()
        async with connected(server.url, server.door("first")):
            waiting = asyncio.create_task(
                connect(server.url, "second", report=told.report, door=server.door("second"))
            )
            await until(lambda: "crowded" in told.refusals)
        connection = await asyncio.wait_for(waiting, 10)
        await connection.close()
    finally:
        server.stop()


async def test_what_is_not_permitted_is_told_and_costs_nobody_the_connection(
    server: SecuredServer,
) -> None:
    file = server.credentials("menu", publish=Subjects(allow=("mine.>",)))
    told = Told()
    async with connected(server.url, Door(ca=server.ca, credentials=file), told) as connection:
        await connection.publish("theirs.x", b"")
        await connection.flush()
        await until(lambda: len(told.errors) == 1)
        assert "permissions violation" in str(told.errors[0])
        assert told.line == []


async def test_one_subscription_too_many_is_told_and_costs_nobody_the_connection(
    server: SecuredServer, tmp_path: Path
) -> None:
    file = tmp_path / "few.creds"
    credentials.write(file, server.user("few", subscriptions=10))
    told = Told()
    async with connected(server.url, Door(ca=server.ca, credentials=file), told) as connection:
        for _ in range(12):
            await connection.subscribe(connection.new_inbox())
        await connection.flush()
        await until(lambda: len(told.errors) == 2)
        assert {str(each) for each in told.errors} == {"nats: maximum subscriptions exceeded"}
        await connection.flush()
        assert told.line == []


CERTIFICATES = {
    "expired": {"since": -2 * DAY, "until": timedelta(hours=-1)},
    "not_yet_valid": {"since": timedelta(hours=1), "until": DAY},
    "wrong_name": {"names": ("deploy.example",)},
}


@pytest.mark.parametrize("trouble", [*CERTIFICATES, "other_authority"])
async def test_what_is_wrong_with_a_certificate_is_told_apart(tmp_path: Path, trouble: str) -> None:
    authority = Authority()
    issuer = Authority() if trouble == "other_authority" else authority
    certificate = issuer.issue(**CERTIFICATES.get(trouble, {}))  # type: ignore[arg-type]
    server = SecuredServer(tmp_path, authority=authority, certificate=certificate)
    server.start()
    try:
        (error, *_) = await kept_out(server.url, server.door(), CertificateError)
    finally:
        server.stop()
    assert error.trouble == trouble
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_who_believes_only_the_system_does_not_believe_an_estate(
    server: SecuredServer,
) -> None:
    door = Door(credentials=server.credentials("menu"))
    (error, *_) = await kept_out(server.url, door, CertificateError)
    assert error.trouble == "other_authority"


async def test_a_boot_client_comes_in_by_its_machine_and_its_credential(
    server: SecuredServer, tmp_path: Path
) -> None:
    credential = tmp_path / "boot.credential"
    door = Door(ca=server.ca, boot=BootLogin(KEY, credential))
    async with gate(server) as opened:
        credential.write_text("of another image\n")
        (refused, *_) = await kept_out(server.url, door, RefusedError)
        assert refused.refusal == "refused"
        credential.write_text(f"{opened.password}\n")
        told = Told()
        connection = await asyncio.wait_for(
            connect(server.url, KEY, inbox=subjects.inbox(KEY), report=told.report, door=door),
            10,
        )
        own = await connection.subscribe(connection.new_inbox())
        await connection.flush()
        assert told.errors == []
        await connection.publish(subjects.endpoint(server.site, "menu", "show", "another"))
        await connection.subscribe(f"{subjects.inbox('another')}.x")
        await connection.flush()
        await until(lambda: len(told.errors) == 2)
        assert not own._closed
        await connection.close()
    assert set(opened.asked) == {KEY}


async def test_a_boot_client_reads_its_credential_anew_when_it_comes_again(
    server: SecuredServer, tmp_path: Path
) -> None:
    credential = tmp_path / "boot.credential"
    door = Door(ca=server.ca, boot=BootLogin(KEY, credential))
    async with gate(server) as opened:
        opened.expires_in = 2
        credential.write_text(opened.password)
        told = Told()
        connection = await asyncio.wait_for(
            connect(server.url, KEY, inbox=subjects.inbox(KEY), report=told.report, door=door), 10
        )
        told.watch(connection)
        opened.password = "another, since this morning"
        credential.write_text(opened.password)
        opened.expires_in = 3600
        await until(lambda: told.line[-1:] == ["up"])
        await connection.close()


async def test_without_the_auth_service_a_boot_client_waits_for_it(
    server: SecuredServer, tmp_path: Path
) -> None:
    credential = tmp_path / "boot.credential"
    credential.write_text("let this machine in")
    door = Door(ca=server.ca, boot=BootLogin(KEY, credential))
    told = Told()
    waiting = asyncio.create_task(
        connect(server.url, KEY, inbox=subjects.inbox(KEY), report=told.report, door=door)
    )
    await until(lambda: bool(told.refusals))
    async with gate(server):
        connection = await asyncio.wait_for(waiting, 20)
        await connection.close()


async def test_a_missing_boot_credential_is_told_and_waited_for(
    server: SecuredServer, tmp_path: Path
) -> None:
    door = Door(ca=server.ca, boot=BootLogin(KEY, tmp_path / "nothing"))
    (error, *_) = await kept_out(server.url, door, UnusableError)
    assert error.file == tmp_path / "nothing"


@pytest.mark.parametrize("lost", ["credentials", "ca"])
async def test_a_file_that_is_lost_meanwhile_ends_no_connection(
    server: SecuredServer, lost: str
) -> None:
    door = server.door()
    file = door.credentials if lost == "credentials" else door.ca
    assert file is not None
    kept = file.read_bytes()
    told = Told()
    async with connected(server.url, door, told) as connection:
        file.unlink()
        await connection.force_reconnect()
        await until(lambda: sum(isinstance(each, UnusableError) for each in told.errors) >= 2)
        file.touch(mode=0o600)
        file.write_bytes(kept)
        await until(lambda: told.line == ["down", "up"])


SECRETS = [
    Door(credentials=Path("menu.creds")),
    Door(boot=BootLogin(KEY, Path("credential"))),
]
OPEN = ["nats://192.0.2.1:4222", "deploy.example", "nats://[2001:db8::1]:4222", "ws://bus:80"]


@pytest.mark.parametrize("address", OPEN)
@pytest.mark.parametrize("door", SECRETS)
async def test_a_secret_never_goes_in_the_clear(door: Door, address: str) -> None:
    with pytest.raises(UnprotectedError, match="tls://"):
        await asyncio.wait_for(connect(f"tls://bus:4222,{address}", "menu", door=door), 1)


async def test_nor_does_one_in_an_address() -> None:
    with pytest.raises(UnprotectedError) as caught:
        await asyncio.wait_for(connect("nats://ann:hush@bus:4222", "menu"), 1)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("door", [*SECRETS, Door()])
@pytest.mark.parametrize(
    "address", ["tls://bus:4222", "wss://bus", "nats://127.0.0.1:4222", "localhost", "nats://[::1]"]
)
def test_it_goes_over_tls_and_within_the_machine(door: Door, address: str) -> None:
    door.check([address])


def test_without_a_secret_any_address_will_do() -> None:
    Door(ca=Path("ca.pem")).check(OPEN)


async def test_a_server_that_does_not_encrypt_is_told_nothing(tmp_path: Path) -> None:
    """Where an address asks for TLS, and where a secret would go to another machine."""
    async with recorder() as record:
        url = record.url.replace("nats://", "tls://")
        await kept_out(url, Door(), UnprotectedError)
    assert record.commands == []


@pytest.mark.parametrize(
    ("scheme", "peer", "encrypted", "fine"),
    [
        ("nats", "192.0.2.1", False, False),
        ("nats", "", False, False),
        ("nats", "127.0.0.1", False, True),
        ("nats", "::1", False, True),
        ("nats", "192.0.2.1", True, True),
        ("tls", "127.0.0.1", False, False),
        ("tls", "192.0.2.1", True, True),
    ],
)
@pytest.mark.parametrize("door", [*SECRETS, Door(ca=Path("ca.pem"))])
def test_what_a_line_must_be(
    door: Door, scheme: str, peer: str, encrypted: bool, fine: bool
) -> None:
    if fine:
        door.check_line(scheme, peer, encrypted=encrypted)
    else:
        with pytest.raises(UnprotectedError):
            door.check_line(scheme, peer, encrypted=encrypted)


async def test_a_door_is_of_no_account_on_a_bus_that_trusts_everybody(
    bus: BusServer, server: SecuredServer
) -> None:
    async with connected(bus.url, server.door()) as connection:
        await connection.flush()


async def test_who_is_thrown_out_again_and_again_waits_longer_and_longer(
    server: SecuredServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []

    def backoff(attempt: int) -> float:
        waited.append(attempt)
        return 0.01

    monkeypatch.setattr("bus.connection.backoff", backoff)
    told = Told()
    async with connected(server.url, server.door(), told) as connection:
        for times in range(1, 5):
            # More than the server takes in one line.
            await connection._send_command(b"PUB " + b"x" * 5000)
            with pytest.raises((nats.errors.Error, TimeoutError)):
                await connection.flush(timeout=1)
            await until(partial(told.has_come_back, times))
    assert waited == [1, 2, 3, 4]
