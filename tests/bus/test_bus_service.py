"""A service on the bus: ADR-32, answers side by side, and nothing inside ever shows outside."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus import subjects
from bus.caller import Caller
from bus.connection import BusUnavailableError, Connection, ask, connect
from bus.messages import Details, encode
from bus.problems import Problem
from bus.service import LARGEST, RETRY_AFTER, Service
from tests.buses import BusServer
from tests.echo import ECHO, KEY, Said, Say, echo, say, until

Handler = Callable[[Say, Caller], Awaitable[Said | bytes]]
SUBJECT = subjects.endpoint("main", "echo", "say", KEY)


def _service(connection: Connection, handler: Handler = echo, *, limit: int = 1000) -> Service:
    service = Service(
        connection, site="main", name="echo", version="1.2.3", description="Says it again",
        limit=limit,
    )  # fmt: skip
    service.serve(ECHO, handler)
    return service


@asynccontextmanager
async def _serving(
    connection: Connection, handler: Handler = echo, *, limit: int = 1000
) -> AsyncIterator[Service]:
    service = _service(connection, handler, limit=limit)
    await service.start()
    try:
        yield service
    finally:
        await service.leave(timeout=0.2)


async def _told(connection: Connection, subject: str) -> dict[str, object]:
    reply = await connection.request(subject, b"", timeout=2)
    return msgspec.json.decode(reply.data, type=dict[str, object])


async def _stats(connection: Connection) -> dict[str, object]:
    told = await _told(connection, "$SRV.STATS.echo")
    endpoints = told["endpoints"]
    assert isinstance(endpoints, list)
    assert len(endpoints) == 1
    assert isinstance(endpoints[0], dict)
    return endpoints[0]


async def _refused(connection: Connection, data: bytes, subject: str = SUBJECT) -> str:
    """The code of the problem that raw bytes are answered with."""
    reply = await connection.request(subject, data, timeout=5)
    assert reply.headers
    body = json.loads(reply.data)
    assert reply.headers["Nats-Service-Error"] == body["message"]
    assert reply.headers["Nats-Service-Error-Code"].isdigit()
    return str(body["code"])


# What ADR-32 asks of everybody.

WHO: dict[str, type] = {"name": str, "id": str, "version": str, "metadata": dict, "type": str}
REPLIES: dict[str, tuple[str, dict[str, type]]] = {
    "PING": ("io.nats.micro.v1.ping_response", WHO),
    "INFO": (
        "io.nats.micro.v1.info_response",
        WHO | {"description": str, "endpoints": list},
    ),
    "STATS": ("io.nats.micro.v1.stats_response", WHO | {"started": str, "endpoints": list}),
}
ENDPOINTS: dict[str, dict[str, type]] = {
    "INFO": {"name": str, "subject": str, "queue_group": str, "metadata": dict},
    "STATS": {
        "name": str, "subject": str, "queue_group": str, "num_requests": int, "num_errors": int,
        "last_error": str, "processing_time": int, "average_processing_time": int,
    },
}  # fmt: skip


def _shape(value: object) -> object:
    assert isinstance(value, dict)
    return {name: type(each) for name, each in value.items()}


@pytest.mark.parametrize("verb", REPLIES)
@pytest.mark.parametrize("form", ["", ".echo", ".echo.{id}"])
async def test_every_nats_tool_understands_who_answers(
    connection: Connection, verb: str, form: str
) -> None:
    async with _serving(connection) as service:
        told = await _told(connection, f"$SRV.{verb}" + form.format(id=service.id))
        kind, fields = REPLIES[verb]
        assert _shape(told) == fields
        assert (told["type"], told["name"], told["id"]) == (kind, "echo", service.id)
        # ADR-32: SemVer, and metadata of text to text.
        assert re.fullmatch(r"\d+\.\d+\.\d+", str(told["version"]))
        assert told["metadata"] == {"site": "main", "contract": "1"}
        if verb == "PING":
            return
        endpoints = told["endpoints"]
        assert isinstance(endpoints, list)
        assert [_shape(each) for each in endpoints] == [ENDPOINTS[verb]]
        assert endpoints[0]["name"] == "say"
        assert endpoints[0]["subject"] == "imaging.main.echo.say.*"
        assert endpoints[0]["queue_group"] == "echo"


async def test_it_tells_since_when_it_runs_in_utc(connection: Connection) -> None:
    async with _serving(connection):
        started = datetime.fromisoformat(str((await _told(connection, "$SRV.STATS"))["started"]))
        assert started.utcoffset() == timedelta(0)
        assert abs(datetime.now(started.tzinfo) - started) < timedelta(seconds=30)


async def test_it_answers_for_no_other_name_or_copy(connection: Connection) -> None:
    async with _serving(connection):
        for subject in ("$SRV.PING.other", "$SRV.INFO.echo.other"):
            with pytest.raises(Exception, match="no responders"):
                await connection.request(subject, b"", timeout=2)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "*", "ä"])
def test_a_name_that_adr_32_forbids_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="ADR-32"):
        Service(Connection(), site="main", name=name, version="1.0.0", description="")


async def test_every_copy_has_an_id_of_its_own(connection: Connection) -> None:
    assert _service(connection).id != _service(connection).id


# Answers and problems.


async def test_a_question_is_answered(connection: Connection) -> None:
    async with _serving(connection):
        assert await ask(connection, "main", ECHO, KEY, say("hello")) == Said(text="hello")


async def test_an_answer_may_be_given_as_it_is_on_the_wire(connection: Connection) -> None:
    async def ready(_asked: Say, caller: Caller) -> bytes:
        return encode(Said(text=caller.machine))

    async with _serving(connection, ready):
        assert await ask(connection, "main", ECHO, KEY, say()) == Said(text=KEY)


async def test_a_problem_of_the_handler_reaches_the_caller_whole(connection: Connection) -> None:
    problem = Problem("login_failed", "No.\r\nX-Evil: 1", Details(attempts_left=2))

    async def refuse(_asked: Say, _caller: Caller) -> Said:
        raise problem

    async with _serving(connection, refuse):
        with pytest.raises(Problem) as caught:
            await ask(connection, "main", ECHO, KEY, say())
        assert caught.value.body() == problem.body()
        reply = await connection.request(SUBJECT, encode(say()))
        assert reply.headers == {
            "Nats-Service-Error-Code": "401",
            "Nats-Service-Error": "No. X-Evil: 1",
        }


async def test_what_goes_wrong_inside_is_logged_and_never_travels(connection: Connection) -> None:
    async def fail(_asked: Say, _caller: Caller) -> Said:
        raise RuntimeError("the password of the database is tiger")

    with capture_logs() as lines:
        async with _serving(connection, fail):
            reply = await connection.request(SUBJECT, encode(say()), timeout=2)
    assert reply.headers
    assert reply.headers["Nats-Service-Error-Code"] == "500"
    assert json.loads(reply.data)["code"] == "internal_error"
    assert "tiger" not in f"{reply.data!r} {reply.headers}"
    failure = next(line for line in lines if line["log_level"] == "error")
    assert failure["exc_info"]
    assert (failure["site"], failure["service"], failure["endpoint"]) == ("main", "echo", "say")


async def test_an_answer_that_cannot_be_written_is_an_internal_error(
    connection: Connection,
) -> None:
    async def odd(_asked: Say, _caller: Caller) -> Said:
        return Said(text="\ud800")

    async with _serving(connection, odd):
        assert await _refused(connection, encode(say())) == "internal_error"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"machine": 7}',
        b'{"machine": {}, "text": 7}',
        b'{"machine": {"serial": "\\ud800"}}',
        b'{"machine": {"serial": "\xff"}}',
        b'{"machine": {}, "x": ' + b"[" * 300_000,
        b"x" * 1_048_576,
        b'{"machine": {"serial": "' + b"x" * 1_000_000 + b'"}}',
    ],
    ids=lambda data: repr(data[:30]),
)
async def test_a_body_that_cannot_be_understood_is_a_bad_request(
    connection: Connection, data: bytes
) -> None:
    async with _serving(connection):
        assert await _refused(connection, data) == "bad_request"
        assert await ask(connection, "main", ECHO, KEY, say("on")) == Said(text="on")


async def test_no_bytes_stop_a_service(connection: Connection) -> None:
    async with _serving(connection):

        @given(st.binary(max_size=40))
        @settings(max_examples=40, suppress_health_check=list(HealthCheck), database=None)
        def collect(data: bytes) -> None:
            bodies.append(data)

        bodies: list[bytes] = []
        collect()
        codes = [await _refused(connection, data) for data in bodies]
        assert set(codes) == {"bad_request"}


async def test_nobody_can_speak_for_another_machine(connection: Connection) -> None:
    asked: list[Say] = []

    async def remember(question: Say, _caller: Caller) -> Said:
        asked.append(question)
        return Said(text="")

    async with _serving(connection, remember):
        other = subjects.endpoint("main", "echo", "say", "mac001b21aabbcc")
        assert await _refused(connection, encode(say()), other) == "bad_machine"
        nobody = encode({"machine": {"serial": "None"}})
        assert await _refused(connection, nobody) == "bad_machine"
    assert asked == []


async def test_a_question_that_wants_no_reply_does_nothing(connection: Connection) -> None:
    asked: list[Say] = []

    async def remember(question: Say, _caller: Caller) -> Said:
        asked.append(question)
        return Said(text="")

    async with _serving(connection, remember):
        await connection.publish(SUBJECT, encode(say("lost")))
        await ask(connection, "main", ECHO, KEY, say("asked"))
        assert [each.text for each in asked] == ["asked"]
        assert (await _stats(connection))["num_requests"] == 1


async def test_an_answer_larger_than_the_bus_carries_is_an_internal_error(tmp_path: Path) -> None:
    server = BusServer(tmp_path, max_payload=4096)
    server.start()
    try:
        connection = await connect(server.url, "small")

        async def much(_asked: Say, _caller: Caller) -> Said:
            return Said(text="x" * 5000)

        async with _serving(connection, much):
            assert await _refused(connection, encode(say())) == "internal_error"
            assert (await _stats(connection))["last_error"] == "internal_error"
        await connection.close()
    finally:
        server.stop()


async def test_a_question_larger_than_any_can_be_is_not_read(connection: Connection) -> None:
    async def never(_asked: Say, _caller: Caller) -> Said:
        raise AssertionError

    async with _serving(connection, never):
        large = msgspec.json.encode(msgspec.to_builtins(say()) | {"junk": "x" * LARGEST})
        assert await _refused(connection, large) == "bad_request"


# Side by side, up to a bound.


async def test_questions_are_answered_side_by_side(connection: Connection) -> None:
    everybody = asyncio.Barrier(50)

    async def meet(_asked: Say, _caller: Caller) -> Said:
        await everybody.wait()
        return Said(text="met")

    async with _serving(connection, meet):
        answers = await asyncio.gather(
            *(ask(connection, "main", ECHO, KEY, say(), timeout=5) for _ in range(50))
        )
    assert answers == [Said(text="met")] * 50


async def test_beyond_the_bound_callers_are_told_when_to_ask_again(
    connection: Connection,
) -> None:
    go_on = asyncio.Event()

    async def wait(asked: Say, _caller: Caller) -> Said:
        await go_on.wait()
        return Said(text=asked.text)

    async with _serving(connection, wait, limit=3) as service:
        first = [
            asyncio.create_task(ask(connection, "main", ECHO, KEY, say(str(number))))
            for number in range(3)
        ]
        await until(lambda: service.running == 3)
        for _ in range(5):
            with pytest.raises(Problem) as caught:
                await ask(connection, "main", ECHO, KEY, say("too many"))
            assert caught.value.code == "overloaded"
            assert caught.value.details.retry_after == RETRY_AFTER
        stats = await _stats(connection)
        assert (stats["num_requests"], stats["num_errors"]) == (8, 5)
        go_on.set()
        assert [said.text for said in await asyncio.gather(*first)] == ["0", "1", "2"]
        assert (await ask(connection, "main", ECHO, KEY, say("now"))).text == "now"
        await until(lambda: service.running == 0)


async def test_statistics_count_requests_errors_and_time(connection: Connection) -> None:
    async def choose(asked: Say, _caller: Caller) -> Said:
        if asked.text == "refuse":
            raise Problem("forbidden")
        await asyncio.sleep(0.01)
        return Said(text=asked.text)

    async with _serving(connection, choose):
        for _ in range(3):
            await ask(connection, "main", ECHO, KEY, say())
        assert (await _stats(connection))["last_error"] == ""
        with pytest.raises(Problem):
            await ask(connection, "main", ECHO, KEY, say("refuse"))
        stats = await _stats(connection)
        assert (stats["num_requests"], stats["num_errors"]) == (4, 1)
        assert stats["last_error"] == "forbidden"
        spent, average = stats["processing_time"], stats["average_processing_time"]
        assert isinstance(spent, int)
        assert spent >= 3 * 9_000_000
        assert average == spent // 4
        await connection.request(SUBJECT, b"junk")
        stats = await _stats(connection)
        assert (stats["num_errors"], stats["last_error"]) == (2, "bad_request")


async def test_copies_share_the_questions(bus: BusServer, connection: Connection) -> None:
    other = await connect(bus.url, "other")
    async with _serving(connection) as one, _serving(other) as two:
        assert len({one.id, two.id}) == 2
        for _ in range(200):
            await ask(connection, "main", ECHO, KEY, say())
        counts = []
        for each in (one, two):
            told = await _told(connection, f"$SRV.STATS.echo.{each.id}")
            endpoints = told["endpoints"]
            assert isinstance(endpoints, list)
            counts.append(endpoints[0]["num_requests"])
        assert sum(counts) == 200
        assert min(counts) > 20
    await other.close()


async def test_a_service_is_back_after_the_bus_was_away(
    bus: BusServer, connection: Connection
) -> None:
    caller = await connect(bus.url, "caller")
    async with _serving(connection):
        bus.kill()
        await until(lambda: connection.is_reconnecting and caller.is_reconnecting)
        bus.start()
        await until(lambda: connection.is_connected and caller.is_connected)
        await connection.flush()
        assert await ask(caller, "main", ECHO, KEY, say("back")) == Said(text="back")
    await caller.close()


async def test_an_answer_into_a_dead_line_is_logged_and_harms_nobody(
    bus: BusServer, connection: Connection
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_asked: Say, _caller: Caller) -> Said:
        asked.set()
        await go_on.wait()
        return Said(text="late")

    caller = await connect(bus.url, "caller")
    with capture_logs() as lines:
        async with _serving(connection, wait) as service:
            asking = asyncio.create_task(ask(caller, "main", ECHO, KEY, say(), timeout=0.5))
            await asked.wait()
            bus.kill()
            await until(lambda: connection.is_reconnecting)
            go_on.set()
            await until(lambda: service.running == 0)
            with pytest.raises(BusUnavailableError):
                await asking
    assert "an answer could not be sent" in [line["event"] for line in lines]
    await caller.close()
