"""The live view: what each machine is doing now, as events tell it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.js.errors import KeyNotFoundError

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import Event, EventLog, Kind, read
from bus.live import Live, Stage, live_decoder
from bus.messages import ComputerRef, encode
from express.database import Database
from services.menu.program import program as menu
from services.monitor.live import LiveView, after, newer
from services.monitor.progress import Progress
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.site import LAPTOP, LAPTOP_JOBS, STAFF_0117, Asker, Express, eventually, new_id, running

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MACHINE = "mac525400123456"
LAB = ComputerRef(id=6, name="LAB-01")
Kinds = Sequence[tuple[Kind, dict[str, Any]]]

VISIT: Kinds = [("portal_opened", {}), ("login_succeeded", {}), ("menu_shown", {})]


def deployment(request: str, outcome: str = "succeeded") -> Kinds:
    """What is told of a request with two jobs."""
    said = {"request": request, "item": "job:1"}
    return [
        ("request_accepted", said),
        ("jobs_scheduled", said | {"jobs": 2}),
        ("job_started", said | {"jobs": 2, "done": 0, "row": 1}),
        ("job_finished", said | {"jobs": 2, "done": 1, "row": 1, "status": 0}),
        ("job_started", said | {"jobs": 2, "done": 1, "row": 2}),
        ("job_finished", said | {"jobs": 2, "done": 2, "row": 2, "status": 0}),
        ("deployment_finished", said | {"jobs": 2, "done": 2, "outcome": outcome}),
    ]


def events(*told: tuple[Kind, dict[str, Any]], machine: str = MACHINE) -> list[Event]:
    """Events of one machine, a second apart."""
    return [
        Event(
            id=new_id(), site="s", kind=kind, at=AT + timedelta(seconds=number), machine=machine,
            computer=LAB if kind not in {"login_succeeded", "menu_shown"} else None,
            technician="alice" if kind != "portal_opened" else None, details=details,
        )
        for number, (kind, details) in enumerate(told)
    ]  # fmt: skip


def folded(told: Sequence[Event], entry: Live | None = None) -> Live:
    for event in told:
        entry = after(entry, event)
    assert entry is not None
    return entry


def stages(told: Sequence[Event]) -> list[str]:
    return [folded(told[: count + 1]).stage for count in range(len(told))]


# What an event makes of an entry.


def test_a_machine_goes_through_every_stage_from_the_portal_to_the_end() -> None:
    told = events(*VISIT, *deployment("r"))
    assert stages(told) == [
        "portal_opened", "signed_in", "menu_shown", "accepted", "scheduled",
        "running", "running", "running", "running", "finished",
    ]  # fmt: skip
    assert folded(told[:3]) == Live(
        machine=MACHINE, stage="menu_shown", since=told[2].at, technician="alice", computer=LAB
    )
    assert folded(told[:8]) == Live(
        machine=MACHINE, stage="running", since=told[5].at, technician="alice", computer=LAB,
        item="job:1", request="r", jobs=2, jobs_done=1,
    )  # fmt: skip
    assert folded(told).jobs_done == 2


def test_a_rejected_request_shows_its_problem() -> None:
    details = {"request": "r", "item": "job:1", "problem": "name_taken"}
    entry = folded(events(("request_accepted", details), ("request_rejected", details)))
    assert (entry.stage, entry.problem) == ("rejected", "name_taken")


def test_the_first_failed_job_shows_while_the_others_run_and_at_the_end() -> None:
    said = {"request": "r", "jobs": 2, "row": 1, "job": "Join domain", "status": 5, "done": 1}
    running_on = folded(events(("jobs_scheduled", said), ("job_failed", said)))
    assert (running_on.stage, running_on.problem) == ("running", "Join domain: 5")
    said |= {"done": 2}
    over = events(
        ("job_failed", said | {"job": "Reboot", "status": 1, "row": 2}),
        ("deployment_finished", said | {"outcome": "failed"}),
    )
    end = folded(over, running_on)
    assert (end.stage, end.problem, end.jobs_done) == ("failed", "Join domain: 5", 2)


@pytest.mark.parametrize("outcome", ["replaced", "removed"])
def test_a_deployment_that_never_came_to_its_end_says_why(outcome: str) -> None:
    entry = folded(events(*deployment("r", outcome)))
    assert (entry.stage, entry.problem) == ("failed", outcome)


def test_what_is_left_of_a_replaced_deployment_does_not_hide_the_new_one() -> None:
    first, second = deployment("one", "replaced"), deployment("two")
    told = events(*first[:3], *second[:2], *first[3:])
    assert folded(told) == folded(told[:5])
    assert folded(told).request == "two"


def test_a_portal_opened_again_hides_the_past_and_a_job_shows_again() -> None:
    told = events(*deployment("r")[:3], ("portal_opened", {}))
    assert folded(told) == Live(
        machine=MACHINE, stage="portal_opened", since=told[3].at, computer=LAB
    )
    entry = folded(events(deployment("r")[3]), folded(told))
    assert (entry.stage, entry.item, entry.jobs_done) == ("running", "job:1", 1)


def test_a_request_never_goes_back() -> None:
    told = events(*deployment("r"))
    for count in range(1, len(told)):
        entry = folded(told[:count])
        for old in told[: count - 1]:
            again = after(entry, old)
            assert again is not None
            assert (again.stage, again.jobs_done) == (entry.stage, entry.jobs_done)


def test_clocks_that_differ_a_little_do_not_bring_stages_out_of_order() -> None:
    shown, accepted = events(("menu_shown", {}), deployment("r")[0])
    accepted = msgspec.structs.replace(accepted, at=shown.at - timedelta(seconds=4))
    entry = folded([shown, accepted])
    assert (entry.stage, entry.since) == ("accepted", shown.at)
    earlier = msgspec.structs.replace(accepted, at=shown.at - timedelta(days=400))
    assert folded([shown, earlier]).since == earlier.at


@pytest.mark.parametrize("kind", ["login_failed", "computer_created", "option_changed"])
def test_what_says_nothing_of_the_stage_changes_nothing(kind: Kind) -> None:
    entry = folded(events(*VISIT))
    (event,) = events((kind, {"request": "r"}))
    assert after(entry, event) is entry
    assert after(None, event) is None
    (nameless,) = events(("job_started", {"request": 5}))
    assert after(entry, nameless) is entry
    (nowhere,) = events(("portal_opened", {}), machine="-")
    assert after(None, nowhere) is None


def test_the_later_of_two_words_for_a_machine_is_taken() -> None:
    told = events(*VISIT, *deployment("one"), *VISIT, *deployment("two"))
    entries = [folded(told[: count + 1]) for count in range(len(told))]
    for earlier, later in pairwise(entries):
        assert newer(earlier, later) == later
        assert newer(later, earlier) == later


# The bucket.


@asynccontextmanager
async def view(url: str, site: str) -> AsyncIterator[LiveView]:
    """A copy of the live view, on a connection of its own."""
    async with AsyncExitStack() as stack:
        connection = await connect(url, f"live-{site}")
        stack.push_async_callback(connection.close)
        await prepare(connection.jetstream())
        found = LiveView(connection, site)
        stack.push_async_callback(found.stop)
        await found.start()
        yield found


@asynccontextmanager
async def told_all(connection: Connection, site: str, view: LiveView) -> AsyncIterator[None]:
    """The view hears every event of the site."""

    async def tell() -> None:
        async with contextlib.aclosing(read(connection, site, follow=True)) as found:
            async for event in found:
                await view.heard(event)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def entry(connection: Connection, site: str, machine: str = MACHINE) -> Live | None:
    bucket = await connection.jetstream().key_value(subjects.LIVE)
    try:
        found = await bucket.get(subjects.site_key(site, machine))
        return live_decoder.decode(found.value or b"")
    except (KeyNotFoundError, ValueError):
        return None


async def reaches(
    connection: Connection, site: str, machine: str, stage: Stage, request: str | None = None
) -> Live:
    """A machine's entry, once it is in a stage (by a request)."""

    def good(live: Live | None) -> bool:
        return live is not None and live.stage == stage and request in {None, live.request}

    found = await eventually(lambda: entry(connection, site, machine), good)
    assert found is not None
    return found


async def becomes(connection: Connection, site: str, expected: Live) -> None:
    await eventually(
        lambda: entry(connection, site, expected.machine), lambda found: found == expected
    )


async def test_a_real_deployment_is_seen_from_the_portal_to_its_end(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    key = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"
    database = Database(dsn, size=1)
    log = EventLog(client.connection, name)
    progress = Progress(client.connection, name, database, log, every=0.05)

    async def stage(wanted: Stage) -> Live:
        return await reaches(client.connection, name, key, wanted)

    try:
        async with (
            running(url, name, menu(dsn), scheduler(dsn)),
            view(url, name) as live,
            told_all(client.connection, name, live),
        ):
            await progress.start()
            visit = new_id()
            await client.welcome(STAFF_0117, visit)
            assert (await stage("portal_opened")).computer is not None
            await client.show(STAFF_0117, visit=visit)
            await stage("menu_shown")
            outcome = await client.schedule(STAFF_0117, LAPTOP)
            found = await stage("scheduled")
            assert (found.item, found.jobs) == (LAPTOP, len(LAPTOP_JOBS))
            assert outcome.rows is not None
            express.sql(
                "UPDATE event_schedule SET status_code = -1 WHERE schedule_id = ?", outcome.rows[0]
            )
            assert (await stage("running")).jobs_done == 0
            express.sql("UPDATE event_schedule SET status_code = 0")
            found = await stage("finished")
            assert (found.jobs_done, found.request) == (len(LAPTOP_JOBS), outcome.request_id)
    finally:
        await progress.stop()
        await database.close()


async def publish(connection: Connection, site: str, told: Sequence[Event]) -> list[Event]:
    """Puts events into the stream of a site, as of just now."""
    now = datetime.now(UTC)
    kept = [msgspec.structs.replace(event, site=site, at=now + (event.at - AT)) for event in told]
    for event in kept:
        await connection.jetstream().publish(
            subjects.event(site, event.machine, event.kind), encode(event)
        )
    return kept


async def test_what_a_monitor_heard_and_did_not_write_is_written_at_the_next_start(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    kept = await publish(connection, "s", events(*VISIT, *deployment("r")[:3]))
    async with view(bus.url, "s"):
        await becomes(connection, "s", folded(kept))


async def test_events_told_again_after_a_crash_set_nothing_back(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    kept = await publish(connection, "s", events(*VISIT, *deployment("r")))
    async with view(bus.url, "s") as live:
        await becomes(connection, "s", folded(kept))
        for event in kept[2:6]:
            await live.heard(event)
    assert await entry(connection, "s") == folded(kept)


async def test_events_that_come_while_the_past_is_read_come_after_it(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    kept = await publish(connection, "s", events(*VISIT, *deployment("r")[:2]))
    later = [
        msgspec.structs.replace(event, at=kept[-1].at) for event in events(*deployment("r")[2:3])
    ]
    async with view(bus.url, "s") as live:
        await live.heard(later[0])
        await becomes(connection, "s", folded([*kept, *later]))


async def test_two_copies_that_share_the_events_end_with_the_same_word(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    machines = [f"mac{number:012x}" for number in range(30)]
    told = {
        machine: events(*VISIT, *deployment("r"), *VISIT, *deployment("q"), machine=machine)
        for machine in machines
    }
    async with view(bus.url, "s") as one, view(bus.url, "s") as two:
        for number in range(len(told[machines[0]])):
            for machine in machines:
                await (one if number % 3 else two).heard(told[machine][number])
            await asyncio.sleep(0)
        for machine in machines:
            found = await reaches(connection, "s", machine, "finished", "q")
            assert (found.jobs_done, found.item) == (2, "job:1")


async def test_a_bus_that_is_down_holds_up_nobody_and_gets_the_entries_when_it_is_back(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    told = events(*VISIT, *deployment("r"))
    async with view(bus.url, "s") as live:
        await live.heard(told[0])
        await becomes(connection, "s", folded(told[:1]))
        bus.kill()
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(1):
                for event in told[1:]:
                    await live.heard(event)

            async def complaints() -> list[object]:
                return [line for line in logs if line["event"] == "the live view waits"]

            await eventually(complaints, bool)
        bus.start()

        async def back() -> bool:
            return connection.is_connected

        await eventually(back, bool, 20)
        await eventually(lambda: entry(connection, "s"), lambda found: found == folded(told), 20)


async def test_a_crowd_of_events_costs_few_writes(bus: BusServer, connection: Connection) -> None:
    await prepare(connection.jetstream())
    machines = [f"mac{number:012x}" for number in range(50)]
    async with view(bus.url, "s") as live:
        for machine in machines:
            for event in events(*VISIT, *deployment("r"), machine=machine):
                await live.heard(event)
        for machine in machines:
            await reaches(connection, "s", machine, "finished")
    info = await connection.jetstream().stream_info(f"KV_{subjects.LIVE}")
    assert info.state.last_seq < 3 * len(machines)


async def test_what_is_left_is_written_when_the_monitor_leaves(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    told = events(*VISIT)
    async with view(bus.url, "s") as live:
        await live.heard(told[0])
        await becomes(connection, "s", folded(told[:1]))
        await live.heard(told[1])
        await live.heard(told[2])
    assert await entry(connection, "s") == folded(told)


async def test_an_entry_that_cannot_be_read_is_written_anew(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.LIVE)
    await bucket.put(subjects.site_key("s", MACHINE), b"{")
    told = events(*VISIT)
    async with view(bus.url, "s") as live:
        await live.heard(told[0])
        await becomes(connection, "s", folded(told[:1]))
        await bucket.delete(subjects.site_key("s", MACHINE))
        await live.heard(told[1])
        await becomes(connection, "s", folded(told[:2]))


@settings(max_examples=100, database=None, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), min_size=1, max_size=12))
def test_however_a_machine_went_its_entry_is_that_of_its_last_visit_or_deployment(
    history: list[tuple[bool, int]],
) -> None:
    """Against a plain reading of the last thing that happened, told in full."""
    told: list[tuple[Kind, dict[str, Any]]] = []
    for number, (visits, steps) in enumerate(history):
        what = VISIT if visits else deployment(f"r{number}")
        told += what[: max(1, steps)]
    all_of_it = events(*told)
    visits, steps = history[-1]
    what = VISIT if visits else deployment(f"r{len(history) - 1}")
    last = all_of_it[-len(what[: max(1, steps)]) :]
    expected = folded(last)
    found = folded(all_of_it)
    assert (found.stage, found.request, found.jobs_done, found.since) == (
        expected.stage, expected.request, expected.jobs_done, expected.since,
    )  # fmt: skip
