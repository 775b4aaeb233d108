"""The live view: what each machine is doing now, as events tell it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.subscription import Subscription
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.event_stream import stream_state
from bus.events import Event, EventLog, Kind
from bus.live import Live, Stage, live_decoder
from bus.messages import ComputerRef, encode
from express.engine import ExpressEngine
from services.menu.program import program as menu
from services.monitor.listening import Listening
from services.monitor.live import LiveView, after
from services.monitor.progress import Progress
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.echo import until
from tests.site import LAPTOP, LAPTOP_JOBS, STAFF_0117, Asker, Express, eventually, new_id, running

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MACHINE = "mac525400123456"
LAB = ComputerRef(id=6, name="LAB-01")
Kinds = Sequence[tuple[Kind, dict[str, Any]]]

VISIT: Kinds = [("portal_opened", {}), ("login_succeeded", {}), ("menu_shown", {})]


def deployment(request: str, outcome: str = "succeeded") -> Kinds:
    """What is told of a request with two jobs."""
    said = {"request": request, "item": "job:1", "title": "Memory test"}
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
        item="job:1", title="Memory test", request="r", jobs=2, jobs_done=1,
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


# The bucket.


@asynccontextmanager
async def view(url: str, site: str) -> AsyncIterator[LiveView]:
    """A copy of the live view, on a connection of its own."""
    async with AsyncExitStack() as stack:
        connection = await connect(url, f"live-{site}")
        stack.push_async_callback(connection.close)
        await prepare(connection.jetstream())
        found = LiveView(connection, site)
        for part in (found, Listening(connection, site, found)):
            stack.push_async_callback(part.stop)
            await part.start()
        yield found


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
        lambda: entry(connection, site, expected.machine), lambda found: says(found, expected)
    )


def says(found: Live | None, expected: Live) -> bool:
    """Whether an entry is as expected, and tells where its last event stands."""
    if found is None or not found.stream or not found.sequence:
        return False
    return msgspec.structs.replace(found, stream="", sequence=0) == expected


async def test_a_real_deployment_is_seen_from_the_portal_to_its_end(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    key = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"
    engine = ExpressEngine(dsn, name)
    log = EventLog(client.connection, name)
    progress = Progress(name, engine, log, every=0.05)
    listening = Listening(client.connection, name, progress)

    async def stage(wanted: Stage) -> Live:
        return await reaches(client.connection, name, key, wanted)

    try:
        async with running(url, name, menu(dsn), scheduler(dsn)), view(url, name):
            await progress.start()
            await listening.start()
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
        await listening.stop()
        await progress.stop()
        await engine.close()


async def publish(
    connection: Connection, told: Sequence[Event], now: datetime | None = None
) -> list[Event]:
    """Puts events into the stream, as of just now or of another moment."""
    now = now or datetime.now(UTC)
    kept = [msgspec.structs.replace(event, at=now + (event.at - AT)) for event in told]
    for event in kept:
        await connection.jetstream().publish(
            subjects.event("s", event.machine, event.kind), encode(event)
        )
    return kept


async def test_what_was_told_while_no_monitor_ran_is_written_at_the_next_start(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    kept = await publish(connection, events(*VISIT, *deployment("r")[:3]))
    async with view(bus.url, "s"):
        await becomes(connection, "s", folded(kept))


async def test_events_that_stand_twice_in_the_stream_set_nothing_back(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    now = datetime.now(UTC)
    told = events(*VISIT, *deployment("r"))
    other = events(*VISIT, machine="mac000000000001")
    async with view(bus.url, "s"):
        kept = await publish(connection, told, now)
        await becomes(connection, "s", folded(kept))
        await publish(connection, told[:6], now)
        await becomes(connection, "s", folded(await publish(connection, other)))
    assert says(await entry(connection, "s"), folded(kept))


async def test_two_copies_end_with_the_same_word(bus: BusServer, connection: Connection) -> None:
    await prepare(connection.jetstream())
    machines = [f"mac{number:012x}" for number in range(30)]
    told = [
        events(*VISIT, *deployment("r"), *VISIT, *deployment("q"), machine=machine)
        for machine in machines
    ]
    now = datetime.now(UTC)
    async with view(bus.url, "s"), view(bus.url, "s"):
        for step in zip(*told, strict=True):
            await publish(connection, step, now)
        for machine in machines:
            found = await reaches(connection, "s", machine, "finished", "q")
            assert (found.jobs_done, found.item) == (2, "job:1")


async def test_a_copy_that_stood_by_goes_on_where_another_was(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    now = datetime.now(UTC)
    first = events(*deployment("one"))
    told = events(*deployment("one"), *deployment("two"))[len(first) :]
    await publish(connection, first, now)
    async with view(bus.url, "s"):
        async with view(bus.url, "s"):
            await reaches(connection, "s", MACHINE, "finished", "one")
            await publish(connection, told[:3], now)
            await reaches(connection, "s", MACHINE, "running", "two")
        await publish(connection, told[3:], now)
        found = await reaches(connection, "s", MACHINE, "finished", "two")
    assert found.jobs_done == 2


async def test_a_bus_that_was_down_gets_the_entries_when_it_is_back(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    told = events(*VISIT, *deployment("r"))
    now = datetime.now(UTC)
    async with view(bus.url, "s"):
        kept = await publish(connection, told[:1], now)
        await becomes(connection, "s", folded(kept))
        bus.kill()
        bus.start()
        other = await connect(bus.url, "publisher")
        try:
            kept += await publish(other, told[1:], now)
            await eventually(lambda: entry(other, "s"), lambda found: says(found, folded(kept)), 20)
        finally:
            await other.close()


async def test_a_crowd_of_events_costs_few_writes(bus: BusServer, connection: Connection) -> None:
    await prepare(connection.jetstream())
    machines = [f"mac{number:012x}" for number in range(50)]
    async with view(bus.url, "s"):
        for machine in machines:
            await publish(connection, events(*VISIT, *deployment("r"), machine=machine))
        for machine in machines:
            await reaches(connection, "s", machine, "finished")
    info = await connection.jetstream().stream_info(f"KV_{subjects.LIVE}")
    assert info.state.last_seq < 3 * len(machines)


async def test_an_event_that_comes_during_the_write_of_an_entry_is_written_too(
    bus: BusServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often that happens: each write here is slower than the machine's next event."""
    await prepare(connection.jetstream())
    now = datetime.now(UTC)
    told = [
        event
        for event in events(*VISIT, *deployment("r"))
        if event.kind != "job_started"  # The second one says nothing new.
    ]
    left = iter(told[3:])
    write = KeyValue.update

    async with view(bus.url, "s") as live:

        async def then_comes_the_next(
            self: KeyValue, key: str, value: bytes, last: int | None = None
        ) -> int:
            written = await write(self, key, value, last)
            if event := next(left, None):
                await publish(connection, [event], now)
                await until(lambda: event.id in live._heard)
            return written

        monkeypatch.setattr(KeyValue, "update", then_comes_the_next)
        await publish(connection, told[:3], now)
        await reaches(connection, "s", MACHINE, "finished", "r")


async def asked_of_the_bucket(connection: Connection) -> Subscription:
    """All that is asked of what stands in the bucket."""
    return await connection.subscribe(f"$JS.API.DIRECT.GET.KV_{subjects.LIVE}.>")


async def test_machines_that_are_new_cost_one_write_each(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    machines = [f"mac{number:012x}" for number in range(50)]
    asked = await asked_of_the_bucket(connection)
    async with view(bus.url, "s") as live:
        await until(live._caught_up.is_set)
        for machine in machines:
            await publish(connection, events(VISIT[0], machine=machine))
        await until(lambda: len(live._written) == len(machines), 20)
    assert asked.delivered == 0
    info = await connection.jetstream().stream_info(f"KV_{subjects.LIVE}")
    assert info.state.last_seq == info.state.messages == len(machines)


async def test_an_entry_of_another_copy_that_has_heard_more_stands_whatever_clocks_say(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    made = (await stream_state(connection)).made
    bucket = await connection.jetstream().key_value(subjects.LIVE)
    key = subjects.site_key("s", MACHINE)
    long_ago, far_ahead = AT - timedelta(days=400), datetime.now(UTC) + timedelta(days=3)
    later = Live(machine=MACHINE, stage="accepted", since=long_ago, stream=made, sequence=50)
    await bucket.put(key, encode(later))
    await publish(connection, events(*VISIT), far_ahead)
    async with view(bus.url, "s") as live:
        await until(lambda: live._caught_up.is_set() and not live._changed)
        assert await entry(connection, "s") == later
        # It goes on from that one, and not from what it had heard itself.
        for _ in range(3, later.sequence):
            await connection.jetstream().publish(subjects.event("s", "-", "access_changed"), b"")
        kept = await publish(connection, events(deployment("r")[1]))
        await reaches(connection, "s", MACHINE, "scheduled", "r")
        assert kept[0].at < far_ahead


@pytest.mark.parametrize("place", [("", 0), ("2000-01-01T00:00:00+00:00", 900_000)])
async def test_an_entry_made_of_earlier_events_or_of_an_earlier_stream_is_overwritten(
    bus: BusServer, connection: Connection, place: tuple[str, int]
) -> None:
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.LIVE)
    stream, sequence = place
    far_ahead = datetime.now(UTC) + timedelta(days=3)
    earlier = Live(
        machine=MACHINE, stage="accepted", since=far_ahead, stream=stream, sequence=sequence
    )
    await bucket.put(subjects.site_key("s", MACHINE), encode(earlier))
    kept = await publish(connection, events(*VISIT))
    async with view(bus.url, "s"):
        await becomes(connection, "s", folded(kept))


def test_a_stream_that_was_made_anew_follows_the_one_before() -> None:
    entry = Live(machine=MACHINE, stage="accepted", since=AT, sequence=7)
    made = ["", "2026-01-02T10:00:00+00:00", "2026-01-02T10:00:00.500000+00:00"]
    one, two, three = (msgspec.structs.replace(entry, stream=each) for each in made)
    assert one.place < two.place < three.place
    assert two.place < msgspec.structs.replace(two, sequence=10).place < three.place


async def test_what_the_stream_took_more_than_two_days_ago_is_not_shown(
    bus: BusServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(connection.jetstream())
    await publish(connection, events(*VISIT))
    other = events(*VISIT, machine="mac000000000001")
    with monkeypatch.context() as patch:
        patch.setattr("services.monitor.live.KEPT", 0)
        async with view(bus.url, "s") as live:
            await until(live._caught_up.is_set)
            await becomes(connection, "s", folded(await publish(connection, other)))
    assert await entry(connection, "s") is None


async def test_what_is_left_is_written_when_the_monitor_leaves(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    told = events(*VISIT)
    now = datetime.now(UTC)
    async with view(bus.url, "s") as live:
        kept = await publish(connection, told[:1], now)
        await becomes(connection, "s", folded(kept))
        kept += await publish(connection, told[1:], now)
        await until(lambda: told[2].id in live._heard)
    assert says(await entry(connection, "s"), folded(kept))


async def test_an_entry_that_cannot_be_read_is_written_anew(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    bucket = await connection.jetstream().key_value(subjects.LIVE)
    await bucket.put(subjects.site_key("s", MACHINE), b"{")
    told = events(*VISIT)
    now = datetime.now(UTC)
    async with view(bus.url, "s"):
        kept = await publish(connection, told[:1], now)
        await becomes(connection, "s", folded(kept))
        await bucket.delete(subjects.site_key("s", MACHINE))
        kept += await publish(connection, told[1:2], now)
        await becomes(connection, "s", folded(kept))


async def test_an_event_of_an_absurd_moment_does_not_hide_a_machine(
    bus: BusServer, connection: Connection
) -> None:
    await prepare(connection.jetstream())
    (absurd,) = events(("portal_opened", {}))
    beginning = datetime.min.replace(tzinfo=UTC)
    await publish(connection, [absurd], beginning)
    kept = await publish(connection, events(*VISIT))
    async with view(bus.url, "s"):
        await becomes(connection, "s", folded(kept))


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
