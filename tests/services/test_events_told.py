"""What becomes of a request is told once, whoever dies between the database and the bus."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import connect
from bus.events import Event, EventLog, Kind, event_decoder
from bus.machines import machine_key
from bus.messages import ItemEntry, Outcome, Request, decoder
from bus.problems import Problem
from express.carrying import reject
from express.connection import sqlite_dsn
from express.database import Database
from services.menu.program import program as menu
from services.scheduler.failures import Failures
from services.scheduler.program import program as scheduler
from services.scheduler.telling import Teller
from tests.buses import BusServer
from tests.site import (
    DESKTOP,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    asker,
    carried_out,
    eventually,
    intake_only,
    new_id,
    new_machine,
    running,
)

_request = decoder(Request)


async def told(client: Asker) -> list[Event]:
    found = await client.kept(subjects.EVENTS, subjects.event(client.site))
    return [event_decoder.decode(data) for data in found]


async def waiting(url: str, client: Asker, dsn: str, name: str | None = None) -> Request:
    """A request that is accepted, and that nobody has carried out."""
    async with running(url, client.site, intake_only(dsn)):
        outcome = await client.schedule(new_machine(7), DESKTOP, name)
        assert outcome.state == "accepted"
    (data,) = await client.waiting()
    return _request.decode(data)


async def rejected(dsn: str, request: Request) -> Outcome:
    """What becomes of a request that is rejected by one who dies before anybody hears of it."""
    database = Database(dsn)
    try:
        return await reject(database, request, Problem("name_taken"))
    finally:
        await database.close()


async def test_a_request_that_was_carried_out_by_one_who_died_is_told_of_by_the_next(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    request = await waiting(url, client, dsn)
    done = await carried_out(dsn, request)
    assert done.state == "scheduled"
    assert await told(client) == []
    before = express.tables("event_schedule", "computer")
    async with running(url, name, scheduler(dsn)):
        await eventually(client.waiting, lambda found: not found)
    kinds = Counter(event.kind for event in await told(client))
    assert kinds == {"request_accepted": 1, "computer_created": 1, "jobs_scheduled": 1}
    assert express.tables("event_schedule", "computer") == before


async def test_a_request_that_was_rejected_by_one_who_died_is_told_of_and_kept_by_the_next(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    request = await waiting(url, client, dsn)
    outcome = await rejected(dsn, request)
    assert outcome.state == "rejected"
    async with running(url, name, scheduler(dsn)):
        await eventually(client.waiting, lambda found: not found)
    kinds = Counter(event.kind for event in await told(client))
    assert kinds == {"request_accepted": 1, "request_rejected": 1}
    (kept,) = await client.rejected()
    assert _request.decode(kept) == request


async def test_a_request_that_is_delivered_twice_is_told_of_and_kept_once(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    taken = express.sql("SELECT name FROM computer WHERE group_id IS NOT NULL")[0][0]
    express.sql("UPDATE computer SET name = 'SOON' WHERE name = ?", taken)
    request = await waiting(url, client, dsn, str(taken))
    express.sql("UPDATE computer SET name = ? WHERE name = 'SOON'", taken)
    (data,) = await client.waiting()
    # The same request once more, as if the stream had lost the word that it is done.
    await client.connection.jetstream().publish(
        subjects.request(name, machine_key(new_machine(7))), data
    )
    async with running(url, name, scheduler(dsn)):
        await eventually(client.waiting, lambda found: not found)
    kinds = Counter(event.kind for event in await told(client))
    assert kinds == {"request_accepted": 1, "request_rejected": 1}
    (kept,) = await client.rejected()
    assert _request.decode(kept).request_id == request.request_id


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_what_was_picked_is_told_with_the_title_that_it_had_in_the_menu(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    async with running(url, name, menu(dsn), scheduler(dsn)):
        shown = (await client.show(STAFF_0117)).entries
        titles = {each.id: each.title for each in shown if isinstance(each, ItemEntry)}
        for number, item in enumerate((MEMORY_TEST, DESKTOP)):
            await client.schedule(new_machine(number), item)
    assert await told_titles(client, "jobs_scheduled") == [titles[MEMORY_TEST], titles[DESKTOP]]

    request = await waiting(url, client, dsn)
    # Nobody knows it by this title any more, or by any other one, when it is rejected.
    express.sql("UPDATE event_folder SET name = 'gone' WHERE folder_id = 10")
    async with running(url, name, scheduler(dsn)):
        await eventually(client.waiting, lambda found: not found)
    assert await told_titles(client, "request_rejected") == [titles[DESKTOP]]
    assert request.item_title == titles[DESKTOP]
    accepted = [titles[MEMORY_TEST], titles[DESKTOP], titles[DESKTOP]]
    assert await told_titles(client, "request_accepted") == accepted


async def told_titles(client: Asker, kind: Kind) -> list[object]:
    return [event.details["title"] for event in await told(client) if event.kind == kind]


def test_of_many_requests_that_fail_those_that_began_last_are_remembered() -> None:
    failures = Failures(most=3)
    assert [failures.add(number) for number in (1, 2, 3, 1, 1, 2)] == [1, 1, 1, 2, 3, 2]
    assert failures.add(4) == 1
    assert len(failures) == 3
    assert [failures.add(number) for number in (2, 3, 4)] == [3, 2, 2]
    failures.forget(3)
    failures.forget(9)
    assert len(failures) == 2
    assert failures.add(3) == 1


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_visit_is_told_of_once_however_often_and_whomever_the_client_asks(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    visit = new_id()
    async with running(url, name, menu(dsn), menu(dsn)):
        for _ in range(4):
            await client.welcome(STAFF_0117, visit)
            await client.show(STAFF_0117, visit=visit)
        await client.welcome(STAFF_0117)
        await client.show(STAFF_0117)
    events = await told(client)
    assert Counter(event.kind for event in events) == {"portal_opened": 1, "menu_shown": 1}
    (opened,) = (event for event in events if event.kind == "portal_opened")
    assert opened.computer is not None
    assert opened.details["environment"] == "linux"


@pytest.fixture
async def forgetful_bus(tmp_path: Path) -> AsyncIterator[str]:
    """A bus that knows for a tenth of a second, not for an hour, what it was sent."""
    server = BusServer(tmp_path)
    server.start()
    try:
        connection = await connect(server.url, "tester")
        stream = connection.jetstream()
        await prepare(stream)
        for name in (subjects.EVENTS, subjects.REJECTED):
            config = (await stream.stream_info(name)).config
            await stream.update_stream(config.evolve(duplicate_window=0.1))
        await connection.close()
        yield server.url
    finally:
        server.stop()


async def forgotten(client: Asker) -> None:
    """Returns when the bus takes what it has been sent till now for new."""
    stream = client.connection.jetstream()
    headers = {"Nats-Msg-Id": new_id()}
    for subject in (subjects.event("other", "-", "menu_shown"), subjects.rejected("other", "-")):

        async def sent_again(subject: str = subject) -> bool:
            return bool((await stream.publish(subject, b"", headers=headers)).duplicate)

        assert not await sent_again()
        await eventually(sent_again, lambda known: not known)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_request_that_waits_for_long_for_the_database_is_told_of_once(
    forgetful_bus: str, name: str, dsn: str, tmp_path: Path, express: Express
) -> None:
    """As after more than an hour: the window in which the stream knows ids again is over."""
    missing = sqlite_dsn(tmp_path / "missing" / "database.db")
    async with asker(forgetful_bus, name) as client:
        await waiting(forgetful_bus, client, dsn)
        stream = client.connection.jetstream()

        async def deliveries() -> int:
            info = await stream.consumer_info(subjects.REQUESTS, subjects.carrier(name))
            assert info.delivered is not None
            return info.delivered.consumer_seq or 0

        async with running(forgetful_bus, name, scheduler(missing)):
            await eventually(deliveries, lambda count: count > 2)
        assert Counter(event.kind for event in await told(client)) == {"request_accepted": 1}
        async with running(forgetful_bus, name, scheduler(dsn)):
            await eventually(client.waiting, lambda found: not found, 20)
        kinds = Counter(event.kind for event in await told(client))
        assert kinds == {"request_accepted": 1, "computer_created": 1, "jobs_scheduled": 1}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("ending", ["scheduled", "rejected"])
async def test_what_one_who_died_has_told_is_not_told_again_when_the_bus_has_forgotten_it(
    forgetful_bus: str, name: str, dsn: str, ending: str
) -> None:
    async with asker(forgetful_bus, name) as client:
        # An earlier request of the same machine, with events of the same kinds.
        async with running(forgetful_bus, name, scheduler(dsn)):
            assert (await client.schedule(new_machine(7), MEMORY_TEST)).state == "scheduled"
        before = len(await told(client))
        request = await waiting(forgetful_bus, client, dsn)
        await dies_before_it_lets_go(client, dsn, request, ending)
        events = await told(client)
        assert len(events) > before
        await forgotten(client)
        async with running(forgetful_bus, name, scheduler(dsn)):
            await eventually(client.waiting, lambda found: not found)
        assert await told(client) == events
        assert len(await client.rejected()) == (ending == "rejected")


async def dies_before_it_lets_go(client: Asker, dsn: str, request: Request, ending: str) -> None:
    """Does for a request all that a scheduler does, but takes it not out of its stream."""
    stream = client.connection.jetstream()
    events = EventLog(client.connection, client.site)
    teller = Teller(client.connection, client.site, events)
    durable = subjects.carrier(client.site)
    pull = await stream.pull_subscribe_bind(durable, subjects.REQUESTS)
    (message,) = await pull.fetch(1)
    await teller.accepted(request, again=False)
    if ending == "scheduled":
        outcome = await carried_out(dsn, request)
    else:
        outcome = await rejected(dsn, request)
        subject = subjects.rejected(client.site, machine_key(request.machine))
        headers = {"Nats-Msg-Id": hashlib.sha256(message.data).hexdigest()}
        await stream.publish(subject, message.data, headers=headers)
    await teller.ended(request, outcome, again=False)
    await message.nak()
    await pull.unsubscribe()
