"""A deployment is followed from its first job to its end, and each step is told once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import subjects
from bus.buckets import prepare
from bus.connection import connect
from bus.events import Event, EventLog, event_decoder
from bus.messages import ComputerRef, JobRef, Machine, Outcome, Request, decoder
from engine.progress import JobRow, Standing
from express.database import Transaction
from express.engine import ExpressEngine
from express.progress import read_ranges, read_rows, read_standings
from services.monitor.listening import Listening
from services.monitor.progress import Progress
from services.monitor.underway import Underway, changes
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.databases import PostgresServer
from tests.site import (
    DESKTOP,
    DESKTOP_JOBS,
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    asker,
    carried_out,
    eventually,
    intake_only,
    new_machine,
    running,
    stopped,
)

EVERY = 0.05
_request = decoder(Request)
STEPS = {"job_started", "job_finished", "job_failed", "deployment_finished"}


@asynccontextmanager
async def following(
    url: str, site: str, dsn: str, *, every: float = EVERY
) -> AsyncIterator[Progress]:
    """A copy of what follows deployments, on a connection of its own."""
    async with AsyncExitStack() as stack:
        connection = await connect(url, f"monitor-{site}")
        stack.push_async_callback(connection.close)
        await prepare(connection.jetstream())
        engine = ExpressEngine(dsn, site, connect_timeout=1, statement_timeout=2)
        stack.push_async_callback(engine.close)
        events = EventLog(connection, site)
        progress = Progress(site, engine, events, every=every)
        for part in (progress, Listening(connection, site, progress)):
            stack.push_async_callback(part.stop)
            await part.start()
        yield progress


async def steps(client: Asker) -> list[Event]:
    """What has been told of jobs and of the ends of deployments, in order."""
    found = await client.kept(subjects.EVENTS, subjects.event(client.site))
    events = [event_decoder.decode(data) for data in found if data]
    return [event for event in events if event.kind in STEPS]


async def told(client: Asker, *expected: str) -> list[Event]:
    """The steps, once there are as many as are expected; they must be these, in this order."""
    found = await at_least(client, len(expected))
    assert [event.kind for event in found] == list(expected)
    return found


async def at_least(client: Asker, count: int) -> list[Event]:
    """The steps, once there are so many."""
    return await eventually(lambda: steps(client), lambda found: len(found) >= count)


async def ended(client: Asker, count: int = 1) -> list[Event]:
    """The ends of deployments, once there are so many."""

    async def ends() -> list[Event]:
        return [event for event in await steps(client) if event.kind == "deployment_finished"]

    return await eventually(ends, lambda found: len(found) >= count)


async def settled(client: Asker, progress: Progress) -> None:
    """Returns when nothing is under way any more."""

    async def left() -> int:
        return progress.following

    await eventually(left, lambda found: not found)


async def complained() -> None:
    """Returns when the log says that jobs cannot be followed."""
    with structlog.testing.capture_logs() as logs:

        async def lines() -> list[object]:
            return [line for line in logs if line.get("work") == "the following of jobs"]

        await eventually(lines, bool)


class Server:
    """The deployment server: it starts and ends the jobs of a deployment."""

    def __init__(self, express: Express, outcome: Outcome) -> None:
        assert outcome.rows is not None
        self._express = express
        self.first, self.last = outcome.rows

    def set(self, place: int, status: int) -> None:
        """Says how the job at this place stands."""
        self._express.sql(
            "UPDATE event_schedule SET status_code = ? WHERE schedule_id = ?",
            status,
            self.first + place,
        )

    def set_all(self, status: int) -> None:
        """Says how every job stands."""
        self._express.sql(
            "UPDATE event_schedule SET status_code = ? WHERE schedule_id BETWEEN ? AND ?",
            status,
            self.first,
            self.last,
        )

    def remove(self, place: int) -> None:
        """An operator deletes a job from the computer."""
        self._express.sql("DELETE FROM event_schedule WHERE schedule_id = ?", self.first + place)


async def scheduled(
    site: Asker, express: Express, item: str = LAPTOP, machine: Machine = STAFF_0117
) -> Server:
    outcome = await site.schedule(machine, item)
    assert outcome.state == "scheduled"
    return Server(express, outcome)


async def test_each_job_is_told_of_as_it_starts_and_ends_and_so_is_the_end_of_all(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn) as progress:
        server = await scheduled(site, express)
        jobs = len(LAPTOP_JOBS)
        expected: list[str] = []
        for place in range(jobs):
            server.set(place, -1)
            expected.append("job_started")
            await told(site, *expected)
            server.set(place, 0)
            expected.append("job_finished")
            if place < jobs - 1:
                await told(site, *expected)
        events = await told(site, *expected, "deployment_finished")
        await settled(site, progress)
    last = events[-2]
    assert last.computer is not None
    assert last.computer.name == "STAFF-0117"
    assert last.details["item"] == LAPTOP
    assert (last.details["done"], last.details["jobs"], last.details["status"]) == (jobs, jobs, 0)
    assert [e.details["job_id"] for e in events[0:-1:2]] == list(LAPTOP_JOBS)
    end = events[-1].details
    assert (end["outcome"], end["jobs"], end["done"], end["failed"]) == ("succeeded", jobs, jobs, 0)
    assert isinstance(end["seconds"], float)
    assert {e.details["request"] for e in events} == {end["request"]}


async def test_a_failed_job_makes_the_deployment_a_failed_one(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn):
        server = await scheduled(site, express, MEMORY_TEST)
        server.set(0, 5)
        failed, end = await told(site, "job_failed", "deployment_finished")
    assert failed.details["status"] == 5
    assert failed.details["job"] == "Memory test (MI)"
    assert (end.details["outcome"], end.details["failed"]) == ("failed", 1)


async def test_a_deployment_goes_on_after_a_failed_job_until_every_job_has_ended(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn) as progress:
        server = await scheduled(site, express)
        server.set(0, 7)
        await told(site, "job_failed")
        assert progress.following == 1
        server.set_all(0)
        (end,) = await ended(site)
        await settled(site, progress)
        counted = Counter(event.kind for event in await steps(site))
    # The row that failed says something else by now; what has been told is told.
    assert counted == {"job_failed": 1, "job_finished": 4, "deployment_finished": 1}
    assert end.details["outcome"] == "failed"


async def test_what_other_people_schedule_is_nobodys_deployment(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    express.schedule_row(LAPTOP_JOBS[0], "STAFF-0117", 0)
    express.schedule_row(LAPTOP_JOBS[1], "STAFF-0117", -1)
    async with following(url, name, dsn):
        server = await scheduled(site, express)
        express.schedule_row(LAPTOP_JOBS[0], "STAFF-0117", -1)
        express.schedule_row(LAPTOP_JOBS[0], "STAFF-0117", None)
        server.set_all(0)
        (end,) = await ended(site)
        kinds = Counter(event.kind for event in await steps(site))
    assert end.details["outcome"] == "succeeded"
    assert kinds == {"job_finished": len(LAPTOP_JOBS), "deployment_finished": 1}


async def test_who_starts_again_goes_on_where_the_one_before_was(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn):
        server = await scheduled(site, express)
        server.set(0, 0)
        server.set(1, -1)
        await told(site, "job_finished", "job_started")
    server.set(1, 3)
    async with following(url, name, dsn):
        await told(site, "job_finished", "job_started", "job_failed")
    for place in (2, 3, 4):
        server.set(place, 0)
    async with following(url, name, dsn) as progress:
        (end,) = await ended(site)
        await settled(site, progress)
    # And once more, when nothing is left to be told.
    async with following(url, name, dsn) as progress:
        second = await scheduled(site, express, MEMORY_TEST)
        second.set_all(0)
        ends = await ended(site, 2)
        assert progress.following <= 1
    kinds = Counter(event.kind for event in await steps(site))
    assert kinds == {
        "job_started": 1, "job_finished": 5, "job_failed": 1, "deployment_finished": 2,
    }  # fmt: skip
    assert end.details["outcome"] == "failed"
    assert [each.details["outcome"] for each in ends] == ["failed", "succeeded"]


async def test_who_stops_and_starts_at_any_moment_tells_each_step_once(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    server = await scheduled(site, express, DESKTOP)
    chance = random.Random(4711)
    for place in range(len(DESKTOP_JOBS)):
        async with following(url, name, dsn, every=0.005):
            for status in (-1, 0):
                await asyncio.sleep(chance.uniform(0, 0.03))
                server.set(place, status)
            await asyncio.sleep(chance.uniform(0, 0.03))
    async with following(url, name, dsn):
        (end,) = await ended(site)
    events = await steps(site)
    assert len({event.id for event in events}) == len(events)
    done = [event.details["done"] for event in events if event.kind == "job_finished"]
    assert Counter(done) == Counter(range(1, len(DESKTOP_JOBS) + 1))
    assert end.details["outcome"] == "succeeded"


async def test_who_was_away_for_the_whole_deployment_tells_of_its_end(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    server = await scheduled(site, express)
    server.set_all(0)
    async with following(url, name, dsn):
        await told(site, *["job_finished"] * len(LAPTOP_JOBS), "deployment_finished")


async def test_what_was_told_is_not_told_again_when_the_bus_has_forgotten_its_ids(
    bus: BusServer, name: str, dsn: str, express: Express
) -> None:
    """As after more than an hour: the window in which the stream knows ids again is over."""
    async with asyncio.timeout(60), asker(bus.url, name) as client:
        stream = client.connection.jetstream()
        config = (await stream.stream_info(subjects.EVENTS)).config
        await stream.update_stream(config.evolve(duplicate_window=0.1))
        async with running(bus.url, name, scheduler(dsn)):
            server = await scheduled(client, express)
            done = await scheduled(client, express, MEMORY_TEST, new_machine(1))
        server.set(0, 0)
        server.set(1, -1)
        done.set_all(0)
        async with following(bus.url, name, dsn):
            before = await at_least(client, 4)
        await forgotten(client)
        server.set(2, -1)
        async with following(bus.url, name, dsn):
            after = await at_least(client, 5)
            server.set(3, -1)
            after = await at_least(client, 6)
    assert after[:4] == before
    assert [event.kind for event in after[4:]] == ["job_started", "job_started"]
    assert len(after) == 6


async def forgotten(client: Asker) -> None:
    """Returns when the stream takes the id of what has been published till now for a new one."""

    async def published_as_new() -> bool:
        known = await client.connection.jetstream().publish(
            subjects.event(client.site, "-", "portal_opened"), b"", headers={"Nats-Msg-Id": "id"}
        )
        return not known.duplicate

    await published_as_new()
    await eventually(published_as_new, bool)


async def test_two_copies_tell_each_step_once(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    machines = [new_machine(number) for number in range(4)]
    async with following(url, name, dsn) as one, following(url, name, dsn) as two:
        servers = [await scheduled(site, express, DESKTOP, machine) for machine in machines]
        for place in range(len(DESKTOP_JOBS)):
            for server in servers:
                server.set(place, -1)
            await at_least(site, 8 * place + 4)
            for server in servers:
                server.set(place, 0)
            await at_least(site, 8 * place + 8)
        await ended(site, 4)
        await settled(site, one)
        await settled(site, two)
        events = await steps(site)
    assert Counter(event.kind for event in events) == {
        "job_started": 40, "job_finished": 40, "deployment_finished": 4,
    }  # fmt: skip
    assert len({event.id for event in events}) == len(events)


async def test_a_deployment_whose_place_another_takes_ends_as_replaced(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn) as progress:
        first = await scheduled(site, express)
        first.set(0, 0)
        first.set(1, -1)
        await told(site, "job_finished", "job_started")
        second = await scheduled(site, express, MEMORY_TEST)
        # What runs already runs to its end.
        second.set(0, -1)
        await told(site, "job_finished", "job_started", "job_started")
        assert progress.following == 2
        first.set(1, 0)
        (end,) = await ended(site)
        second.set_all(0)
        _, other = await ended(site, 2)
    assert (end.details["outcome"], end.details["done"], end.details["jobs"]) == ("replaced", 2, 5)
    assert other.details["outcome"] == "succeeded"
    assert end.details["request"] != other.details["request"]


async def accepted(url: str, client: Asker, dsn: str, item: str) -> Request:
    """A request that nobody has carried out yet."""
    async with running(url, client.site, intake_only(dsn)):
        await client.schedule(STAFF_0117, item)
    (data,) = await client.waiting()
    return _request.decode(data)


async def test_a_replacement_is_known_before_the_scheduler_has_told_of_it(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    async with running(url, name, scheduler(dsn)):
        await scheduled(client, express)
    second = await accepted(url, client, dsn, MEMORY_TEST)
    async with following(url, name, dsn):
        # As a scheduler that dies between the database and the bus.
        await carried_out(dsn, second)
        (end,) = await ended(client)
        assert (end.details["outcome"], end.details["done"]) == ("replaced", 0)
        async with running(url, name, scheduler(dsn)):
            await eventually(client.waiting, lambda found: not found)
        # Whoever carries on tells the same rows, and these are followed.
        express.sql("UPDATE event_schedule SET status_code = 0")
        _, other = await ended(client, 2)
    assert other.details["request"] == second.request_id
    assert (other.details["outcome"], other.details["jobs"]) == ("succeeded", 1)


async def test_a_deployment_whose_jobs_are_deleted_ends_as_removed(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn):
        server = await scheduled(site, express)
        other = await scheduled(site, express, LAPTOP, new_machine(1))
        server.set(0, 0)
        await told(site, "job_finished")
        for place in range(len(LAPTOP_JOBS)):
            server.remove(place)
        (end,) = await ended(site)
        other.set_all(0)
        _, second = await ended(site, 2)
    assert (end.details["outcome"], end.details["done"]) == ("removed", 1)
    assert second.details["outcome"] == "succeeded"


async def test_rows_that_are_tidied_away_after_their_end_change_nothing(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    async with following(url, name, dsn):
        server = await scheduled(site, express)
        for place in range(4):
            server.set(place, 0)
        await told(site, *["job_finished"] * 4)
        for place in range(4):
            server.remove(place)
        server.set(4, 0)
        (end,) = await ended(site)
    assert (end.details["outcome"], end.details["done"]) == ("succeeded", 5)


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("trouble", [stopped, PostgresServer.frozen])
async def test_a_database_that_is_down_or_hangs_is_asked_again_until_it_is_back(
    url: str,
    name: str,
    dsn: str,
    site: Asker,
    express: Express,
    postgres: PostgresServer,
    trouble: Callable[[PostgresServer], AbstractContextManager[None]],
) -> None:
    async with following(url, name, dsn) as progress:
        server = await scheduled(site, express)
        server.set(0, 0)
        await told(site, "job_finished")
        with trouble(postgres):
            await complained()
            assert progress.following == 1
        server.set_all(0)
        (end,) = await ended(site)
        kinds = Counter(event.kind for event in await steps(site))
    assert end.details["outcome"] == "succeeded"
    assert kinds == {"job_finished": len(LAPTOP_JOBS), "deployment_finished": 1}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_bus_that_is_down_is_told_when_it_is_back(
    bus: BusServer, name: str, dsn: str, express: Express
) -> None:
    async with asyncio.timeout(60), asker(bus.url, name) as client:
        async with running(bus.url, name, scheduler(dsn)):
            server = await scheduled(client, express)
        async with following(bus.url, name, dsn) as progress:
            server.set(0, 0)
            await told(client, "job_finished")
            bus.kill()
            server.set_all(0)
            await complained()
            assert progress.following == 1
            bus.start()

            async def back() -> bool:
                return client.connection.is_connected

            await eventually(back, bool, 20)
            (end,) = await ended(client)
            kinds = Counter(event.kind for event in await steps(client))
    assert end.details["outcome"] == "succeeded"
    assert kinds == {"job_finished": len(LAPTOP_JOBS), "deployment_finished": 1}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_deployment_whose_rows_nobody_knows_is_not_followed(
    url: str, name: str, dsn: str, site: Asker, express: Express
) -> None:
    log = EventLog(site.connection, name)
    async with following(url, name, dsn) as progress:
        await log.record(
            "jobs_scheduled", of="r", machine="m", computer=ComputerRef(id=1, name="X"),
            details={"request": "r", "jobs": 3, "item": "job:1"},
        )  # fmt: skip
        server = await scheduled(site, express, MEMORY_TEST)
        server.set_all(0)
        await told(site, "job_finished", "deployment_finished")
        await settled(site, progress)


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("details", [
    {"request": 3}, {"request": "r", "row": "x"}, {"request": "r", "row": 1, "status": "done"}, {},
])  # fmt: skip
async def test_events_that_make_no_sense_stop_nothing(
    url: str, name: str, dsn: str, site: Asker, express: Express, details: dict[str, Any]
) -> None:
    log = EventLog(site.connection, name)
    async with following(url, name, dsn):
        for kind in ("jobs_scheduled", "job_finished", "deployment_finished"):
            await log.record(kind, machine="m", details=details)
        server = await scheduled(site, express, MEMORY_TEST)
        server.set_all(0)
        _, end = await ended(site, 2)
    assert end.details["outcome"] == "succeeded"


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("absurd", [
    {"at": "0001-01-01T00:00:00Z"},
    {"at": "9999-12-31T23:59:59-12:00"},
    {"computer": {"id": 2**64, "name": "X"}},
    {"details": {"request": "r", "jobs": 1, "first_row": 2**64, "last_row": 2**64}},
    {"details": {"request": "r", "jobs": 1, "first_row": -(2**63) - 1, "last_row": 1}},
], ids=["early", "late", "computer", "high rows", "low rows"])  # fmt: skip
async def test_an_event_of_absurd_numbers_stops_no_other_deployment(
    url: str, name: str, dsn: str, site: Asker, express: Express, absurd: dict[str, Any]
) -> None:
    told = {
        "id": "x", "site": name, "kind": "jobs_scheduled", "at": "2026-11-01T00:00:00Z",
        "machine": "m", "computer": {"id": 1, "name": "X"},
        "details": {"request": "r", "jobs": 1, "first_row": 900, "last_row": 900},
    }  # fmt: skip
    subject = subjects.event(name, "m", "jobs_scheduled")
    await site.connection.jetstream().publish(subject, msgspec.json.encode(told | absurd))
    async with following(url, name, dsn):
        server = await scheduled(site, express, MEMORY_TEST)
        server.set_all(0)
        (end,) = await ended(site)
    assert end.details["outcome"] == "succeeded"


async def test_rows_of_which_none_has_changed_are_not_read_again(
    url: str, name: str, dsn: str, site: Asker, express: Express, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    stood: list[int] = []
    looked: list[int] = []

    def reading(tx: Transaction, computer_ids: set[int], first_row: int) -> list[JobRow]:
        read.append(len(computer_ids))
        return read_rows(tx, computer_ids, first_row)

    def standing(tx: Transaction, computer_ids: set[int], first_row: int) -> dict[int, Standing]:
        stood.append(len(computer_ids))
        return read_standings(tx, computer_ids, first_row)

    def looking(tx: Transaction, ranges: list[tuple[int, int]]) -> list[Standing]:
        looked.append(len(ranges))
        return read_ranges(tx, ranges)

    async def looks() -> int:
        return len(looked)

    monkeypatch.setattr("express.engine.read_rows", reading)
    monkeypatch.setattr("express.engine.read_standings", standing)
    monkeypatch.setattr("express.engine.read_ranges", looking)
    servers = [await scheduled(site, express, LAPTOP, new_machine(number)) for number in range(3)]
    async with following(url, name, dsn) as progress:
        await eventually(looks, lambda found: found > 2)
        assert (read, stood, progress.following) == ([3], [3], 3)
        servers[1].set(0, -1)
        await told(site, "job_started")
        now = len(looked)
        await eventually(looks, lambda found: found > now + 2)
        assert (read, stood) == ([3, 1], [3, 3])
        assert set(looked) == {1}


async def test_deployments_of_many_cohorts_are_each_followed_to_their_end(
    url: str, name: str, dsn: str, site: Asker, express: Express, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitor.underway._COHORT", 2)
    servers = [
        await scheduled(site, express, MEMORY_TEST, new_machine(number)) for number in range(7)
    ]
    async with following(url, name, dsn) as progress:
        for server in servers[::2]:
            server.set_all(0)
        await ended(site, 4)
        assert progress.following == 3
        for server in servers[1::2]:
            server.remove(0)
        ends = await ended(site, 7)
        await settled(site, progress)
    outcomes = Counter(each.details["outcome"] for each in ends)
    assert outcomes == {"succeeded": 4, "removed": 3}


async def test_rows_are_read_a_few_at_a_time_however_many_are_pending(
    url: str, name: str, dsn: str, site: Asker, express: Express, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.monitor.progress._JOBS", 2 * len(LAPTOP_JOBS))
    together: list[int] = []

    def reading(tx: Transaction, computer_ids: set[int], first_row: int) -> list[JobRow]:
        together.append(len(computer_ids))
        return read_rows(tx, computer_ids, first_row)

    monkeypatch.setattr("express.engine.read_rows", reading)
    servers = [await scheduled(site, express, LAPTOP, new_machine(number)) for number in range(5)]
    for server in servers:
        server.set_all(0)
    async with following(url, name, dsn) as progress:
        await ended(site, 5)
        await settled(site, progress)
    assert together == [2, 2, 1]


# The rules, without a bus or a database.

AT = datetime(2026, 3, 1, tzinfo=UTC)
_STATUS = st.sampled_from([None, -1, 0, 4])


def _scheduled_event(jobs: int) -> Event:
    return Event(
        id="s", site="s", kind="jobs_scheduled", at=AT, machine="m",
        computer=ComputerRef(id=1, name="X"),
        details={"request": "r", "jobs": jobs, "first_row": 1, "last_row": jobs},
    )  # fmt: skip


def test_a_deployment_that_has_ended_is_not_brought_back_by_a_word_that_comes_late() -> None:
    underway = Underway()
    underway.heard(_scheduled_event(3))
    assert list(underway.deployments) == ["r"]
    underway.finish("r")
    underway.heard(_scheduled_event(3))
    assert not underway.deployments


def test_a_word_of_another_copy_has_the_rows_looked_at_again() -> None:
    underway = Underway()
    underway.heard(_scheduled_event(3))
    (deployment,) = underway.deployments.values()
    said = {"request": "r", "row": 1, "status": 0}
    event = Event(id="x", site="s", kind="job_finished", at=AT, machine="m", details=said)
    for expected in (None, 5):
        # The second time, it is no news.
        deployment.seen = 5
        underway.heard(event)
        assert deployment.seen == expected


@settings(max_examples=200, database=None, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), _STATUS, st.booleans()), max_size=30))
def test_however_rows_change_and_whoever_starts_again_each_step_is_told_once(
    history: list[tuple[int, int | None, bool]],
) -> None:
    """Each look sees one row changed; now and then all is forgotten and read from the stream."""
    stream = [_scheduled_event(3)]
    underway = Underway()
    underway.heard(stream[0])
    status: dict[int, int | None] = dict.fromkeys((1, 2, 3))
    expected: list[tuple[str, int]] = []
    for row, now, restarts in history:
        status[row] = now
        if restarts:
            underway = Underway()
            for event in stream:
                underway.heard(event)
        (deployment,) = underway.deployments.values()
        rows = [JobRow(id_, 1, JobRef(id=9, name="x"), code) for id_, code in status.items()]
        for change in changes(deployment, rows):
            event = Event(
                id="x", site="s", kind=change.kind, at=AT, machine="m",
                details={"request": "r", "row": change.row.id, "status": change.status},
            )  # fmt: skip
            stream.append(event)
            underway.heard(event)
            underway.heard(event)
        done = {id_ for kind, id_ in expected if kind != "job_started"}
        if now is not None and row not in done:
            kind = "job_started" if now < 0 else "job_failed" if now else "job_finished"
            if (kind, row) not in expected:
                expected.append((kind, row))
        assert [(each.kind, each.details["row"]) for each in stream[1:]] == expected
