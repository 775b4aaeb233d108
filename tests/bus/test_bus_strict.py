"""A service that trusts nobody answers a machine in its own inbox, or not at all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from bus import subjects
from bus.connection import Connection, ask, connect
from bus.messages import encode
from bus.service import Service
from tests.buses import BusServer
from tests.echo import ECHO, KEY, echo, say, until

SUBJECT = subjects.endpoint("main", "echo", "say", KEY)


@asynccontextmanager
async def serving(connection: Connection, *, strict: bool) -> AsyncIterator[list[str | None]]:
    """The codes of what was answered."""
    codes: list[str | None] = []
    service = Service(
        connection,
        site="main",
        name="echo",
        version="1.0.0",
        description="",
        observe=lambda _endpoint, code, _seconds: codes.append(code),
        strict=strict,
    )
    service.serve(ECHO, echo)
    await service.start()
    yield codes
    await service.leave()


async def test_a_machine_is_answered_in_its_own_inbox(
    bus: BusServer, connection: Connection
) -> None:
    machine = await connect(bus.url, KEY, inbox=subjects.inbox(KEY))
    async with serving(connection, strict=True) as codes:
        assert (await ask(machine, "main", ECHO, KEY, say("hello"))).text == "hello"
    assert codes == [None]
    await machine.close()


@pytest.mark.parametrize(
    "reply",
    [
        "imaging.main.event.x.login_succeeded",
        "$KV.imaging_options.main.protection",
        f"{subjects.inbox('another')}.1",
        f"{subjects.inbox(KEY)}0.1",
        subjects.inbox(KEY),
        f"x.{subjects.inbox(KEY)}.1",
    ],
)
async def test_nothing_is_written_to_a_subject_that_is_not_of_its_inbox(
    connection: Connection, reply: str
) -> None:
    written: list[Msg] = []

    async def hear(message: Msg) -> None:
        written.append(message)

    await connection.subscribe(reply, cb=hear)
    with capture_logs() as lines:
        async with serving(connection, strict=True) as codes:
            for _ in range(3):
                await connection.publish(SUBJECT, encode(say("forged")), reply=reply)
            await until(lambda: len(codes) == 3)
    await connection.flush()
    assert written == []
    assert set(codes) == {"answer_astray"}
    told = [each for each in lines if "go elsewhere" in each["event"]]
    assert [each["machine"] for each in told] == [KEY]


async def test_on_a_bus_that_trusts_everybody_any_inbox_will_do(connection: Connection) -> None:
    async with serving(connection, strict=False) as codes:
        assert (await ask(connection, "main", ECHO, KEY, say("hello"))).text == "hello"
    assert codes == [None]
