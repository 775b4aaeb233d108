"""A message is kept in a stream, or it is said why not, in the words of nats-py."""

import asyncio

import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import APIError, BadRequestError, NoStreamResponseError, ServiceUnavailableError

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.keeping import Kept, WrongSequenceError, keep
from tests.buses import BusServer
from tests.echo import KEY, until

SUBJECT = subjects.event("main", KEY, "menu_shown")
OTHER = subjects.event("main", KEY, "portal_opened")


@pytest.fixture
async def prepared(connection: Connection) -> Connection:
    await prepare(connection.jetstream())
    return connection


async def test_a_message_is_kept_as_it_was_sent(prepared: Connection) -> None:
    assert await keep(prepared, SUBJECT, b"one") == Kept(1)
    assert await keep(prepared, SUBJECT, b"", headers={"Who": "me"}, message_id="2") == Kept(2)
    stream = prepared.jetstream()
    first = await stream.get_msg(subjects.EVENTS, 1)
    assert (first.subject, first.data, first.headers) == (SUBJECT, b"one", None)
    second = await stream.get_msg(subjects.EVENTS, 2)
    assert second.headers == {"Who": "me", "Nats-Msg-Id": "2"}


async def test_the_headers_of_the_caller_stay_his(prepared: Connection) -> None:
    headers = {"Who": "me"}
    await keep(prepared, SUBJECT, b"", headers=headers, message_id="1", after=0)
    assert headers == {"Who": "me"}


async def test_a_message_of_the_same_id_is_a_duplicate_of_the_first(prepared: Connection) -> None:
    assert await keep(prepared, SUBJECT, b"one", message_id="x") == Kept(1)
    assert await keep(prepared, OTHER, b"two", message_id="x") == Kept(1, duplicate=True)
    assert await keep(prepared, SUBJECT, b"two", message_id="y") == Kept(2)


async def test_a_message_is_kept_only_after_the_one_that_its_sender_knows(
    prepared: Connection,
) -> None:
    assert await keep(prepared, SUBJECT, b"one", after=0) == Kept(1)
    for after in (0, 7):
        with pytest.raises(WrongSequenceError) as caught:
            await keep(prepared, SUBJECT, b"two", after=after)
        assert caught.value.err_code in {10071, 10164}
        assert isinstance(caught.value, BadRequestError)
    # Of another subject it is the first.
    assert await keep(prepared, OTHER, b"one", after=0) == Kept(2)
    assert await keep(prepared, SUBJECT, b"two", after=1) == Kept(3)


async def test_of_many_who_know_the_same_one_wins(prepared: Connection) -> None:
    results = await asyncio.gather(
        *(keep(prepared, SUBJECT, b"", after=0) for _ in range(50)), return_exceptions=True
    )
    assert results.count(Kept(1)) == 1
    assert sum(isinstance(each, WrongSequenceError) for each in results) == 49


async def test_where_no_stream_is_that_is_said(connection: Connection) -> None:
    with pytest.raises(NoStreamResponseError):
        await keep(connection, SUBJECT, b"one")


async def test_what_a_stream_does_not_take_is_refused_with_its_reason(
    connection: Connection,
) -> None:
    await connection.jetstream().add_stream(
        StreamConfig(name="full", subjects=["full.>"], max_msgs=1, discard=DiscardPolicy.NEW)
    )
    await keep(connection, "full.a", b"")
    with pytest.raises(ServiceUnavailableError) as full:
        await keep(connection, "full.a", b"")
    assert (full.value.err_code, full.value.description) == (10077, "maximum messages exceeded")
    with pytest.raises(APIError) as elsewhere:
        await keep(connection, "full.a", b"", headers={"Nats-Expected-Stream": "other"})
    assert elsewhere.value.err_code == 10060
    assert not isinstance(elsewhere.value, WrongSequenceError)


@pytest.mark.parametrize("junk", [b"", b"junk", b"[]", b"{}", b'{"seq":"1"}', b'{"seq":-1}'])
async def test_an_answer_of_whoever_is_no_stream_is_no_promise(
    connection: Connection, junk: bytes
) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(junk)

    await connection.subscribe("somebody", cb=answer)
    with pytest.raises(APIError, match="no answer of a stream"):
        await keep(connection, "somebody", b"")


async def test_a_bus_that_does_not_answer_is_not_waited_for(
    bus: BusServer, prepared: Connection
) -> None:
    with bus.frozen(), pytest.raises(nats.errors.TimeoutError):
        await keep(prepared, SUBJECT, b"one", timeout=0.1)
    bus.kill()
    await until(lambda: prepared.is_reconnecting)
    with pytest.raises(nats.errors.Error):
        await keep(prepared, SUBJECT, b"one", timeout=0.1)
