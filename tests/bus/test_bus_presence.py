"""Who is on the bus."""

import asyncio
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus.connection import Connection, connect
from bus.presence import present, wait_for_services
from bus.service import Service
from tests.buses import BusServer
from tests.echo import until


def _service(connection: Connection, name: str, site: str = "main") -> Service:
    return Service(connection, site=site, name=name, version="1.0.0", description="")


async def test_every_copy_of_the_sites_services_is_found_and_no_other(
    connection: Connection,
) -> None:
    copies = [_service(connection, name) for name in ("menu", "auth", "menu")]
    for each in [*copies, _service(connection, "menu", "london")]:
        await each.start()
    found = await present(connection, "main", 0.1)
    assert [copy.name for copy in found] == ["auth", "menu", "menu"]
    assert {copy.id for copy in found} == {copy.id for copy in copies}
    assert {copy.metadata["contract"] for copy in found} == {"1"}
    await copies[0].leave()
    assert len(await present(connection, "main", 0.1)) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"junk", b"[]", b'{"name": "x", "id": "1", "version": "1", "metadata": null}']
)
async def test_a_stranger_who_answers_oddly_is_not_counted(
    connection: Connection, answer: bytes
) -> None:
    async def odd(message: Msg) -> None:
        await message.respond(answer)

    await connection.subscribe("$SRV.PING", cb=odd)
    assert await present(connection, "main", 0.1) == []


async def test_nothing_is_left_behind_after_a_look(connection: Connection) -> None:
    await present(connection, "main", 0.01)
    before = set(connection._subs)
    looking = asyncio.create_task(present(connection, "main", 60))
    await asyncio.sleep(0.02)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert set(connection._subs) == before


async def test_waiting_ends_when_the_last_service_has_come(connection: Connection) -> None:
    await _service(connection, "menu").start()
    waiting = asyncio.create_task(wait_for_services(connection, "main", ["menu", "auth"]))
    await asyncio.sleep(0.25)
    assert not waiting.done()
    await _service(connection, "auth").start()
    await asyncio.wait_for(waiting, 5)


async def test_waiting_goes_on_while_the_bus_is_away_and_holds_nobody_up(tmp_path: Path) -> None:
    server = BusServer(tmp_path)
    server.start()
    connection = await connect(server.url, "waiter")
    server.kill()
    await until(lambda: connection.is_reconnecting)
    waiting = asyncio.create_task(wait_for_services(connection, "main", ["menu"]))
    await asyncio.sleep(0.05)
    server.start()
    other = await connect(server.url, "menu")
    await _service(other, "menu").start()
    await asyncio.wait_for(waiting, 10)
    await other.close()
    await connection.close()
    server.stop()
