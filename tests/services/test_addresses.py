"""The network address of who signs in, told by a bus whose clients have an account of theirs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import contract, subjects
from bus.caller import REQUEST_INFO
from bus.connection import connect
from bus.machines import machine_key
from bus.messages import Login, encode
from bus.problems import CODE_HEADER, from_wire
from services.auth.program import program as auth
from tests.buses import BusServer
from tests.guarded import WRONG, Guarded, protected
from tests.site import asker, new_machine, running

ACCOUNTS = """
accounts {
  SITE: {
    jetstream: enabled
    users: [{user: service, password: service}]
    exports: [{service: "imaging.main.*.*.*"}]
  }
  BOOT: {
    users: [{user: boot, password: boot}]
    imports: [{service: {account: SITE, subject: "imaging.main.*.*.*"}, share: true}]
  }
}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BusServer]:
    server = BusServer(tmp_path, more=ACCOUNTS)
    server.start()
    yield server
    server.stop()


async def _code(url: str, number: int, headers: dict[str, str] | None) -> str:
    machine = new_machine(number)
    subject = subjects.endpoint("main", "auth", contract.LOGIN.verb, machine_key(machine))
    question = encode(Login(machine=machine, username=f"guess{number}", password=WRONG))
    connection = await connect(url, f"boot{number}")
    try:
        reply = await connection.request(subject, question, timeout=10, headers=headers)
    finally:
        await connection.close()
    assert reply.headers
    assert CODE_HEADER in reply.headers
    return from_wire(reply.data).code


async def test_the_address_that_the_bus_tells_is_locked_whatever_the_caller_says(
    server: BusServer,
) -> None:
    services = server.url.replace("//", "//service:service@")
    clients = server.url.replace("//", "//boot:boot@")
    async with asker(services, "main") as client, protected(client) as site:
        await site.set("tries_per_address", "3")
        await site.set("trust_request_info", "true")
        async with running(services, "main", auth):
            forged = {REQUEST_INFO: json.dumps({"host": "192.0.2.9"})}
            codes = [await _code(clients, n, forged if n % 2 else None) for n in range(5)]
            assert codes == ["login_failed"] * 3 + ["locked_out"] * 2
            await _address_is_told(site)


async def _address_is_told(site: Guarded) -> None:
    for event in await site.events("login_failed", "login_locked"):
        assert event.details["address"] == "127.0.0.1"
    (locked,) = await site.events("login_locked")
    assert locked.details["locked"] == "address"
