"""A visit is told of before its answers go out, and nothing is lost when the service leaves."""

import asyncio
from collections import Counter

import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.event_stream import read
from bus.events import PATIENCE, Event, EventLog, NotKeptError
from bus.messages import ClientInfo, ComputerRef, Hello
from services.menu.visits import Visits
from tests.buses import BusServer
from tests.echo import KEY, MACHINE, until
from tests.site import new_id

LAB = ComputerRef(id=6, name="LAB-01")


@pytest.fixture
async def visits(connection: Connection) -> Visits:
    await prepare(connection.jetstream())
    return Visits(EventLog(connection, "main"))


async def told(connection: Connection) -> list[Event]:
    return [event async for event in read(connection, "main")]


async def kinds(connection: Connection) -> Counter[str]:
    return Counter(event.kind for event in await told(connection))


def hello(visit: str | None) -> Hello:
    return Hello(
        machine=MACHINE, client=ClientInfo(version="1.2", environment="winpe"), visit=visit
    )


async def test_an_answer_waits_until_the_bus_has_what_is_told_of_it(
    bus: BusServer, connection: Connection, visits: Visits
) -> None:
    with bus.frozen():
        answers = [
            asyncio.create_task(visits.opened(hello(new_id()), KEY, LAB)),
            asyncio.create_task(visits.shown(new_id(), KEY, "anna")),
        ]
        done, _ = await asyncio.wait(answers, timeout=0.4)
        assert not done
    await asyncio.wait_for(asyncio.gather(*answers), 5)
    # As if the service was killed now: nothing more of it is done.
    assert await kinds(connection) == {"portal_opened": 1, "menu_shown": 1}


async def test_an_answer_waits_no_longer_than_somebody_at_a_screen_would(
    bus: BusServer, connection: Connection, visits: Visits
) -> None:
    with bus.frozen():
        await asyncio.wait_for(visits.opened(hello(new_id()), KEY, LAB), 2 * PATIENCE)
        visit = new_id()
        await asyncio.wait_for(visits.shown(visit, KEY, "anna"), 2 * PATIENCE)
        # Who asks again for a menu of which is still being told waits as well.
        assert not visits.is_shown(visit)
    await visits.close()
    assert await kinds(connection) == {"portal_opened": 1, "menu_shown": 1}


async def test_what_is_told_when_the_service_leaves_is_kept(
    connection: Connection, visits: Visits
) -> None:
    asked = hello(new_id())
    await visits.opened(asked, KEY, LAB)
    await visits.shown(asked.visit, KEY, "anna")
    await visits.close()
    opened, shown = await told(connection)
    assert (opened.kind, opened.machine, opened.computer) == ("portal_opened", KEY, LAB)
    assert opened.details == {"environment": "winpe", "version": "1.2", "model": MACHINE.model}
    assert (shown.kind, shown.machine, shown.technician) == ("menu_shown", KEY, "anna")
    # Nothing is left of it.
    await visits.close()


async def test_what_is_told_again_while_it_is_being_told_or_after_is_one_event(
    connection: Connection, visits: Visits
) -> None:
    asked = hello(new_id())
    copy = Visits(EventLog(connection, "main"))
    await asyncio.gather(
        *(each.shown(asked.visit, KEY, None) for each in (visits, copy) for _ in range(3))
    )
    sent = connection.stats["out_msgs"]
    for each in (visits, copy):
        assert each.is_shown(asked.visit)
        await each.shown(asked.visit, KEY, None)
    # A menu of which was told costs nothing any more.
    assert connection.stats["out_msgs"] == sent
    for each in (visits, copy, visits):
        await each.opened(asked, KEY, LAB)
        await each.shown(asked.visit, KEY, None)
        await each.close()
    assert await kinds(connection) == {"portal_opened": 1, "menu_shown": 1}


async def test_who_names_no_visit_is_not_followed(connection: Connection, visits: Visits) -> None:
    sent = connection.stats["out_msgs"]
    await visits.opened(hello(None), KEY, LAB)
    await visits.shown(None, KEY, None)
    assert visits.is_shown(None)
    await visits.close()
    assert connection.stats["out_msgs"] == sent


async def test_a_menu_of_which_could_not_be_told_is_told_of_when_it_is_shown_again(
    connection: Connection,
) -> None:
    stream = connection.jetstream()
    small = StreamConfig(
        name=subjects.EVENTS, subjects=[subjects.event("*")], max_msg_size=10, duplicate_window=60
    )
    await stream.add_stream(small)
    visits, visit = Visits(EventLog(connection, "main")), new_id()
    with capture_logs() as lines:
        await visits.shown(visit, KEY, "anna")
        await visits.close()
    assert [line["event"] for line in lines] == ["an event is not kept"]
    assert not visits.is_shown(visit)
    await stream.update_stream(small.evolve(max_msg_size=-1))
    await visits.shown(visit, KEY, "anna")
    await visits.close()
    (event,) = await told(connection)
    assert event.technician == "anna"


async def test_a_bus_that_restarts_after_the_answer_is_told_all_the_same(
    bus: BusServer, connection: Connection, visits: Visits
) -> None:
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    asked = hello(new_id())
    await visits.opened(asked, KEY, LAB)
    await visits.shown(asked.visit, KEY, None)
    # It is away for longer than anybody waits for an answer.
    with pytest.raises(NotKeptError):
        await EventLog(connection, "main").record("login_failed")
    bus.start()
    await until(lambda: not visits._telling, 25)
    assert await kinds(connection) == {"portal_opened": 1, "menu_shown": 1}


async def test_a_service_that_leaves_a_bus_that_is_away_says_what_is_lost(
    bus: BusServer, connection: Connection, visits: Visits
) -> None:
    bus.kill()
    await until(lambda: connection.is_reconnecting)
    await visits.opened(hello(new_id()), KEY, LAB)
    with capture_logs() as lines:
        await visits.close()
    assert [(line["event"], line["events"]) for line in lines] == [("visits are not told of", 1)]
    assert not [each for each in asyncio.all_tasks() if "_kept" in repr(each)]


async def test_of_too_many_at_once_none_is_tried_for_longer_than_its_answer_waits(
    bus: BusServer, visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.menu.visits._AT_ONCE", 3)
    with bus.frozen(), capture_logs() as lines:
        await asyncio.gather(*(visits.opened(hello(new_id()), KEY, LAB) for _ in range(5)))
        await until(lambda: len(visits._telling) == 3)
    assert [line["event"] for line in lines] == ["an event is not kept"] * 2
    await visits.close()


async def test_a_caller_who_is_called_off_loses_no_event(
    bus: BusServer, connection: Connection, visits: Visits
) -> None:
    with bus.frozen():
        answer = asyncio.create_task(visits.opened(hello(new_id()), KEY, LAB))
        await asyncio.sleep(0)
        answer.cancel()
        await asyncio.wait({answer})
    await visits.close()
    assert await kinds(connection) == {"portal_opened": 1}


async def test_whoever_does_not_wait_for_the_end_of_it_leaves_nothing_running(
    bus: BusServer, visits: Visits
) -> None:
    with bus.frozen():
        answer = asyncio.create_task(visits.opened(hello(new_id()), KEY, LAB))
        await asyncio.sleep(0)
        closing = asyncio.create_task(visits.close())
        done, _ = await asyncio.wait({closing}, timeout=0.05)
        assert not done
        closing.cancel()
        await asyncio.wait({closing}, timeout=1)
        assert closing.cancelled()
        assert not [each for each in asyncio.all_tasks() if "_kept" in repr(each)]
        await answer


async def test_an_event_is_kept_before_what_the_client_causes_by_the_answer(
    connection: Connection, visits: Visits, bus: BusServer
) -> None:
    client = await connect(bus.url, "client")
    events = EventLog(client, "main")

    async def answer(message: Msg) -> None:
        visit = message.data.decode()
        await visits.opened(hello(visit), KEY, LAB)
        await visits.shown(visit, KEY, None)
        await message.respond(b"welcome")

    await connection.subscribe("ask", cb=answer)
    await connection.flush()
    visit_ids = [new_id() for _ in range(50)]
    for visit in visit_ids:
        await client.request("ask", visit.encode(), timeout=5)
        await events.record("request_accepted", machine=KEY, of=visit)
    await visits.close()
    await client.close()
    order = [event.id.split(".")[1] for event in await told(connection)]
    assert order == ["portal_opened", "menu_shown", "request_accepted"] * 50
