"""A service that trusts nobody answers a machine in its own inbox, or not at all, and goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from bus import subjects
from bus.caller import Caller
from bus.connection import Connection, ask, connect
from bus.machines import machine_key
from bus.messages import Machine, encode
from bus.service import LIMIT, OF_EACH, Handler, Service
from tests.buses import BusServer
from tests.echo import ECHO, KEY, Said, Say, echo, say, until

SUBJECT = subjects.endpoint("main", "echo", "say", KEY)
INBOX = subjects.inbox(KEY).encode()


@asynccontextmanager
async def serving(
    connection: Connection, *, strict: bool, handler: Handler[Say, Said] = echo, limit: int = LIMIT
) -> AsyncIterator[list[str | None]]:
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
        limit=limit,
    )
    service.serve(ECHO, handler)
    await service.start()
    yield codes
    await service.leave()


@asynccontextmanager
async def connected(bus: BusServer, name: str) -> AsyncIterator[Connection]:
    """Somebody whose inbox is called as they are."""
    connection = await connect(bus.url, name, inbox=subjects.inbox(name))
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_machine_is_answered_in_its_own_inbox(
    bus: BusServer, connection: Connection
) -> None:
    async with connected(bus, KEY) as machine, serving(connection, strict=True) as codes:
        assert (await ask(machine, "main", ECHO, KEY, say("hello"))).text == "hello"
    assert codes == [None]


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


def question(reply: bytes, headers: bytes = b"") -> bytes:
    """A question on the wire, which may be anything that a server takes."""
    body = encode(say("hello"))
    size = len(headers) + len(body)
    start = f"HPUB {SUBJECT} ".encode() + reply + f" {len(headers)} {size}\r\n".encode()
    return start + headers + body + b"\r\n"


@pytest.mark.parametrize(
    "crafted",
    [
        question(INBOX + b".\xff\xfe", b"NATS/1.0\r\n\r\n"),
        question(INBOX + b".\v1", b"NATS/1.0\r\n\r\n"),
        question(INBOX + b".\f1", b"NATS/1.0\r\n\r\n"),
        question(INBOX + b".\v1", b"NATS/1.0\r\n\r\n") + question(INBOX + b".2") * 20,
        question(INBOX + b"." + b"\v" * 3900),
        question(INBOX + b".1", b"NATS/1.0 \xff\xfe\r\n\r\n"),
        question(INBOX + b".1", b"NATS/1.0"),
        question(INBOX + b".1", b"\r\n\r\n"),
        question(INBOX + b".1", b"NATS/1.0\r\n" + b"a:b\r\n" * 150_000 + b"\r\n"),
    ],
    ids=["text", "tab", "feed", "many", "long", "status", "short", "none", "endless"],
)
async def test_a_message_that_cannot_be_read_stops_nobody(bus: BusServer, crafted: bytes) -> None:
    lost: list[str] = []
    async with (
        connected(bus, "service") as connection,
        connected(bus, KEY) as machine,
        serving(connection, strict=False),
    ):
        connection.on_disconnect(lambda: lost.append("down"))
        await machine._send_command(crafted)
        for _ in range(3):
            assert (await ask(machine, "main", ECHO, KEY, say("hello"))).text == "hello"
        assert lost == []


async def test_one_machine_leaves_room_for_the_others(bus: BusServer) -> None:
    go_on = asyncio.Event()

    async def wait(asked: Say, caller: Caller) -> Said:
        if caller.machine == KEY:
            await go_on.wait()
        return Said(text=asked.text)

    other = Machine(uuid=str(UUID(int=UUID(KEY).int + 1)))
    key = machine_key(other)
    async with (
        connected(bus, "service") as connection,
        connected(bus, KEY) as crowd,
        connected(bus, key) as alone,
        serving(connection, strict=True, handler=wait, limit=OF_EACH + 10) as codes,
    ):
        subject = crowd.new_inbox()
        for _ in range(OF_EACH + 50):
            await crowd.publish(SUBJECT, encode(say("all for me")), reply=subject)
        await until(lambda: codes.count("overloaded") == 50)
        said = await ask(alone, "main", ECHO, key, Say(machine=other, text="and me"))
        assert said.text == "and me"
        go_on.set()
        await until(lambda: codes.count(None) == OF_EACH + 1)
        assert (await ask(crowd, "main", ECHO, KEY, say("again"))).text == "again"


@pytest.mark.parametrize(("size", "read"), [(16_000, True), (17_000, False)])
async def test_only_so_much_is_read_of_headers(
    connection: Connection, size: int, read: bool
) -> None:
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await connection.subscribe("a.b", cb=hear)
    await connection.publish("a.b", b"", headers={"x": "y" * size})
    await until(lambda: bool(heard))
    assert (heard[0].headers is not None) == read
