"""What becomes of a request is told once, whoever dies between the database and the bus."""

from collections import Counter

import pytest

from bus import subjects
from bus.access import ALL_RIGHTS
from bus.events import Event, event_decoder
from bus.machines import machine_key
from bus.messages import Outcome, Request, decoder
from bus.options import DEFAULTS
from bus.problems import Problem
from express.database import Database
from express.layout_cache import LayoutCache
from services.menu.program import program as menu
from services.scheduler.carrying import carry_out, reject
from services.scheduler.program import program as scheduler
from tests.site import (
    DESKTOP,
    STAFF_0117,
    Asker,
    Express,
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


async def test_a_request_that_was_carried_out_by_one_who_died_is_told_of_by_the_next(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    request = await waiting(url, client, dsn)
    database = Database(dsn)
    try:
        done = await carry_out(database, LayoutCache(), request, DEFAULTS, ALL_RIGHTS)
    finally:
        await database.close()
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
    database = Database(dsn)
    try:
        outcome: Outcome = await reject(database, request, Problem("name_taken"))
    finally:
        await database.close()
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
