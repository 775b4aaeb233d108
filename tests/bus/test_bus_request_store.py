"""What is known of requests from the streams and events of the bus."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.buckets import prepare
from bus.connection import Connection
from bus.events import Detail, Event, Kind
from bus.machines import machine_key
from bus.messages import Machine, Request, encode
from bus.request_store import FIRST, Entry, Kept, RequestStore, entries, newest_of_machines

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
MACHINE = Machine(uuid="6f0c2b5e-31d4-4a7c-9b52-0d6e8a1f4c01")
KEY = machine_key(MACHINE)
ONE = "00000000-0000-4000-8000-000000000001"
TWO = "00000000-0000-4000-8000-000000000002"
THREE = "00000000-0000-4000-8000-000000000003"


def request(request_id: str = ONE, site: str = "lab") -> Request:
    return Request(
        request_id=request_id,
        site=site,
        machine=MACHINE,
        item_id="job:7",
        accepted_at=NOW,
        digest="",
        technician="alice",
    )


def copy(request_id: str = ONE) -> Kept:
    return Kept(request(request_id), KEY, NOW)


def event(kind: Kind, minute: int, request_id: str = ONE, **details: Detail) -> Event:
    return Event(
        id=f"lab.{kind}.{minute}",
        site="lab",
        kind=kind,
        at=NOW + timedelta(minutes=minute),
        machine=KEY,
        technician="alice",
        details={"request": request_id, "item": "job:7", **details},
    )


async def test_each_site_finds_its_own_requests_once_and_counts_what_is_none(
    connection: Connection,
) -> None:
    await prepare(connection.jetstream())
    lab, hall = RequestStore(connection, "lab"), RequestStore(connection, "hall")
    put = [await lab.put(request(each)) for each in (ONE, TWO, ONE)]
    assert [each.new for each in put] == [True, True, False]
    assert put[2].sequence == put[0].sequence
    assert (await hall.put(request(ONE, "hall"))).new
    stream = connection.jetstream()
    await stream.publish(f"imaging.lab.request.{KEY}", b"junk")

    waiting = await lab.waiting()
    assert [kept.request for kept in waiting.requests] == [request(ONE), request(TWO)]
    assert {kept.machine for kept in waiting.requests} == {KEY}
    assert waiting.unreadable == 1
    assert [kept.request for kept in (await hall.waiting()).requests] == [request(ONE, "hall")]


async def test_a_request_says_whether_another_of_its_machine_stands_before_it(
    connection: Connection,
) -> None:
    await prepare(connection.jetstream())
    stream, store = connection.jetstream(), RequestStore(connection, "lab")

    async def says_first(sequence: int) -> bool:
        stands = await stream.get_msg("IMAGING_REQUESTS", sequence, direct=True)
        return FIRST in (stands.headers or {})

    first, second = [await store.put(request(each)) for each in (ONE, TWO)]
    assert [await says_first(each.sequence) for each in (first, second)] == [True, False]
    for each in (first, second):
        await stream.delete_msg("IMAGING_REQUESTS", each.sequence)
    assert await says_first((await store.put(request(THREE))).sequence)


async def test_a_rejected_request_that_stands_twice_is_one(connection: Connection) -> None:
    await prepare(connection.jetstream())
    store = RequestStore(connection, "lab")
    await store.put(request())
    (kept,) = (await store.waiting()).requests
    stream = connection.jetstream()
    body = (await stream.get_msg("IMAGING_REQUESTS", 1)).data or b""
    for _ in range(2):
        await stream.publish(f"imaging.lab.rejected.{KEY}", body)
    await stream.publish("imaging.lab.rejected.mac525400123456", body)
    found = await store.rejected()
    assert [each.request for each in found.requests] == [kept.request]
    assert found.unreadable == 1


async def test_rejected_requests_are_read_many_at_a_time_and_only_those_of_the_time_asked_for(
    connection: Connection,
) -> None:
    """By any copy that looks: one question for each would take minutes where there are many."""
    await prepare(connection.jetstream())
    stream = connection.jetstream()
    ids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(600)]
    subject = f"imaging.lab.rejected.{KEY}"
    bodies = [encode(request(each)) for each in ids]
    await asyncio.gather(*(stream.publish(subject, body) for body in bodies[:500]))
    await asyncio.sleep(0.005)  # The clock moves on.
    since = datetime.now(UTC)
    await asyncio.gather(*(stream.publish(subject, body) for body in bodies[500:]))
    store = RequestStore(connection, "lab")
    for start, expected in ((None, ids), (since, ids[500:])):
        before = connection.stats["out_msgs"]
        found = await store.rejected(start)
        assert {each.request.request_id for each in found.requests} == set(expected)
        assert connection.stats["out_msgs"] - before < 20
        assert all(start is None or each.at >= start for each in found.requests)
    assert (await store.rejected(since + timedelta(days=1))).requests == ()


@pytest.mark.parametrize(
    ("kind", "state"), [("jobs_scheduled", "scheduled"), ("request_rejected", "rejected")]
)
def test_what_has_ended_meanwhile_does_not_wait_any_more(kind: Kind, state: str) -> None:
    told = [event("request_accepted", 0), event(kind, 1)]
    (entry,) = entries([copy()], [], told)
    assert (entry.state, entry.at) == (state, NOW + timedelta(minutes=1))


def test_a_request_that_was_refused_and_sent_again_is_no_longer_refused() -> None:
    told = [event("request_refused", 0, problem="forbidden")]
    (entry,) = entries([], [], told)
    assert (entry.state, entry.problem) == ("refused", "forbidden")
    told += [event("request_accepted", 1), event("request_refused", 2, problem="forbidden")]
    (entry,) = entries([], [], told)
    assert entry.state == "waiting"
    (entry,) = entries([], [], [*told, event("jobs_scheduled", 3, jobs=2)])
    assert (entry.state, entry.jobs, entry.problem) == ("scheduled", 2, None)


def test_replays_and_what_they_replay_name_each_other() -> None:
    told = [
        event("request_rejected", 1, problem="name_taken"),
        event("request_replayed", 2, new_request=TWO),
        event("jobs_scheduled", 3, TWO, jobs=1),
    ]
    old, new = entries([], [copy()], told)
    assert (old.request_id, old.problem, old.replayed_as) == (ONE, "name_taken", (TWO,))
    assert (new.request_id, new.replay_of) == (TWO, ONE)


def test_junk_in_the_details_of_events_hurts_nobody() -> None:
    strange = [
        event("request_accepted", 0, start_at="soon", name=5),
        event("request_accepted", 0, start_at="0001-01-01T00:00:00+14:00"),
        event("jobs_scheduled", 1, jobs=["a"]),
        event("request_rejected", 2, request=5, problem=1.5),
        event("request_replayed", 3, new_request=None),
    ]
    (entry,) = entries([], [], strange)
    assert (entry.state, entry.start_at, entry.computer_name, entry.jobs) == (
        "scheduled", None, None, None,
    )  # fmt: skip


an_entry = st.builds(
    Entry,
    request_id=st.uuids().map(str),
    state=st.sampled_from(["waiting", "scheduled", "rejected", "refused"]),
    at=st.integers(0, 5).map(lambda minute: NOW + timedelta(minutes=minute)),
    machine=st.sampled_from("abc"),
    item_id=st.just("job:7"),
    accepted_at=st.none() | st.integers(0, 5).map(lambda minute: NOW + timedelta(minutes=minute)),
)


@settings(max_examples=200)
@given(st.lists(an_entry, max_size=12, unique_by=lambda entry: entry.request_id))
def test_the_newest_request_of_a_machine_is_the_one_that_no_other_follows(
    known: list[Entry],
) -> None:
    counted = [entry for entry in known if entry.state != "refused"]
    found = newest_of_machines(known)
    assert len(found) == len({entry.machine for entry in counted})
    for entry in counted:
        later = [
            other
            for other in counted
            if other.machine == entry.machine
            and (other.accepted_at or other.at) > (entry.accepted_at or entry.at)
        ]
        assert not (later and entry.request_id in found)
