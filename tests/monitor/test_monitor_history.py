"""What events become in the history database, whichever batches they come in."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.events import Event
from express.database import Database, Transaction, WriteConflict
from services.monitor.history import Applied, History, OvertakenError, Place
from tests.monitor.history_cases import (
    NOON,
    REQUESTS,
    SITE,
    Reference,
    deployed,
    deployments,
    event,
    histories,
    numbered,
    rollup,
)

TABLES = ("ii_monitor", "ii_heard", "ii_opening", "ii_deployment", "ii_rollup", "ii_total")


@pytest.fixture
async def empty(empty_dsn: str) -> AsyncIterator[Database]:
    database = Database(empty_dsn, create=True)
    yield database
    await database.close()


@pytest.fixture
async def history(empty: Database) -> History:
    made = History(empty, SITE)
    await made.prepare()
    return made


async def claimed(history: History) -> Place:
    for _ in range(3):
        # A transaction that was left may still be under way.
        with contextlib.suppress(WriteConflict):
            place = await history.claim()
            assert place is not None
            return place
    pytest.fail("it cannot be claimed")


async def apply(history: History, events: Sequence[Event]) -> Applied:
    """Applies events in one batch behind whatever was applied before."""
    place = await claimed(history)
    first = place.position + 1
    return await history.apply(place, numbered(events, first), place.position + len(events))


async def wiped(database: Database) -> None:
    def wipe(tx: Transaction) -> None:
        for table in TABLES:
            tx.execute(f"DELETE FROM {table}")

    await database.transact(wipe)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=histories, cuts=st.randoms(use_true_random=False))
def test_any_events_in_any_batches_make_the_history_of_a_slow_reference(
    empty_dsn: str, events: list[Event], cuts: random.Random
) -> None:
    async def check() -> None:
        database = Database(empty_dsn, create=True)
        try:
            history = History(database, SITE)
            await history.prepare()
            await wiped(database)
            left = list(events)
            totals = (await apply(history, [])).totals
            while left:
                size = cuts.randint(1, len(left))
                totals = (await apply(history, left[:size])).totals
                del left[:size]
            expected = Reference().hear(events)
            assert await rollup(database) == expected.rollup()
            assert totals.events == dict(expected.kinds)
            assert set(await deployments(database)) == set(expected.seen)
            counts = expected.rollup().values()
            sums = [sum(column) for column in zip(*counts, strict=True)] or [0] * 6
            assert list(totals.deployments.values()) == sums
            assert await history.totals() == totals
        finally:
            await database.close()

    asyncio.run(check())


async def test_a_deployment_is_followed_from_the_portal_to_its_end(
    history: History, empty: Database
) -> None:
    await apply(history, deployed(7, item="folder:10", technician="alice", waited=12.5))
    ((request, found),) = (await deployments(empty)).items()
    noon = int(NOON.timestamp() * 1000)
    assert request.startswith("00000007-")
    assert found == {
        "request_id": request, "day": "2026-11-23", "machine": "m7", "item": "folder:10",
        "technician": "alice", "computer": "", "problem": "", "outcome": "finished", "jobs": 3,
        "ending": "succeeded", "portal_at": noon, "accepted_at": noon + 12_500,
        "scheduled_at": noon + 12_500, "rejected_at": None, "finished_at": noon + 3_612_500,
    }  # fmt: skip


async def test_a_rejected_request_says_why(history: History, empty: Database) -> None:
    accepted = deployed(7)[1]
    request = str(accepted.details["request"])
    rejected = event("request_rejected", NOON, request=request, problem="name_taken")
    await apply(history, [accepted, rejected])
    ((_, found),) = (await deployments(empty)).items()
    assert (found["outcome"], found["problem"]) == ("rejected", "name_taken")


async def test_events_in_the_wrong_order_make_the_same_history(
    history: History, empty: Database
) -> None:
    opened, *rest = deployed(7)
    await apply(history, [opened])
    for each in reversed(rest):
        await apply(history, [each])
    forwards = Reference().hear(deployed(7)).rollup()
    assert await rollup(empty) == forwards


async def test_an_event_that_comes_again_much_later_counts_once(history: History) -> None:
    before = (await apply(history, deployed(7))).totals
    again = await apply(history, deployed(7))
    assert again.totals == before
    assert await history.totals() == before


async def test_a_batch_is_applied_once_at_its_place(history: History, empty: Database) -> None:
    place = await claimed(history)
    await history.apply(place, numbered(deployed(1)), 4)
    before = await rollup(empty)
    with pytest.raises(OvertakenError):
        await history.apply(place, numbered(deployed(2)), 4)
    assert await rollup(empty) == before
    assert (await claimed(history)).position == 4


async def test_a_batch_that_is_cancelled_leaves_all_of_it_or_nothing(
    history: History, empty: Database
) -> None:
    events = [each for number in range(100) for each in deployed(number)]
    for steps in range(0, 120, 3):
        place = await claimed(history)
        if place.position == len(events):
            break
        applying = asyncio.create_task(history.apply(place, numbered(events), len(events)))
        for _ in range(steps):
            await asyncio.sleep(0.001)
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
        position = (await claimed(history)).position
        expected = Reference().hear(events if position else []).rollup()
        assert await rollup(empty) == expected
    else:
        pytest.fail("the batch never came through")


async def test_two_copies_that_apply_the_same_batch_count_it_once(
    history: History, empty: Database, empty_dsn: str
) -> None:
    other_database = Database(empty_dsn)
    try:
        other = History(other_database, SITE)
        # Both believe to hold it, as after a pause that was taken for death.
        other._me = history._me
        place = await claimed(history)
        for number in range(20):
            ended = await asyncio.gather(
                *(
                    copy.apply(place, numbered(deployed(number)), place.position + 4)
                    for copy in (history, other)
                ),
                return_exceptions=True,
            )
            good = [each for each in ended if isinstance(each, Applied)]
            assert len(good) == 1, ended
            assert isinstance(
                next(each for each in ended if not isinstance(each, Applied)),
                (OvertakenError, WriteConflict),
            )
            place = good[0].place
        assert good[0].totals.deployments["finished"] == 20
    finally:
        await other_database.close()


async def test_another_copy_waits_until_the_holder_lets_go(
    history: History, empty: Database
) -> None:
    other = History(empty, SITE)
    place = await claimed(history)
    assert await other.claim() is None
    await history.release()
    assert await other.claim() == place
    with pytest.raises(OvertakenError):
        await history.beat(place)
    assert await history.claim() is None


async def test_only_a_holder_without_a_beat_is_succeeded_and_can_apply_no_more(
    history: History, empty: Database
) -> None:
    impatient = History(empty, SITE, lease=1e-9)
    place = await claimed(history)
    assert await impatient.claim() is None
    for _ in range(3):
        await history.beat(place)
        assert await impatient.claim() is None
    assert await impatient.claim() == place
    with pytest.raises(OvertakenError):
        await history.apply(place, numbered(deployed(1)), 4)
    assert await rollup(empty) == {}


async def test_copies_that_start_together_make_the_tables_once(empty: Database) -> None:
    async def prepared() -> None:
        while True:
            try:
                await History(empty, SITE).prepare()
            except WriteConflict:
                continue
            return

    await asyncio.gather(*(prepared() for _ in range(4)))
    await apply(History(empty, SITE), deployed(1))


async def test_sites_in_one_database_know_nothing_of_each_other(
    history: History, empty: Database
) -> None:
    london = History(empty, "london")
    await apply(history, deployed(1))
    assert await claimed(london) == Place()
    assert (await london.totals()).events == {}


async def test_what_is_old_is_forgotten_and_the_rollups_stay(
    history: History, empty: Database
) -> None:
    old = NOON - timedelta(days=800)
    await apply(history, deployed(1, old) + deployed(2))
    before = await rollup(empty)
    assert await history.forget(NOON - timedelta(days=730), NOON - timedelta(days=90)) == 1
    assert len(await deployments(empty)) == 1
    assert await rollup(empty) == before
    # What was heard a while ago still counts once.
    await apply(history, deployed(1, old) + deployed(2))
    assert await rollup(empty) == before


async def test_another_stream_is_read_from_its_beginning_and_counts_only_what_is_new(
    history: History, empty: Database
) -> None:
    first = (await apply(history, deployed(1))).totals
    place = await history.begin_anew("another")
    assert place == Place("another") == await claimed(history)
    second = await history.apply(place, numbered(deployed(1) + deployed(2)), 8)
    assert second.totals.deployments["accepted"] == first.deployments["accepted"] + 1
    assert second.totals.events == {kind: 2 * count for kind, count in first.events.items()}


async def test_a_moment_at_the_edge_of_the_calendar_does_no_harm(history: History) -> None:
    far = datetime.fromisoformat("9999-12-31T23:59:59-12:00")
    early = datetime.fromisoformat("0001-01-01T00:00:00+12:00")
    applied = await apply(history, [event("portal_opened", far), event("menu_shown", early)])
    assert applied.totals.events == {"portal_opened": 1, "menu_shown": 1}


async def test_a_request_that_is_replayed_later_has_waited_for_nobody_at_the_portal(
    history: History, empty: Database
) -> None:
    opened, accepted, _, _ = deployed(7)
    request = str(accepted.details["request"])
    rejected = event("request_rejected", accepted.at, request=request, problem="name_taken")
    later = NOON + timedelta(days=3)
    replayed = [
        event(kind, later, machine=opened.machine, request=REQUESTS[0], jobs=1, item="job:1")
        for kind in ("request_accepted", "jobs_scheduled")
    ]
    # Nor does an opening serve it at which nobody asked for anything.
    unused = event("portal_opened", NOON - timedelta(days=1), machine="m7")
    await apply(history, [unused, opened, accepted, rejected])
    await apply(history, replayed)
    found = await deployments(empty)
    assert found[request]["portal_at"] == int(NOON.timestamp() * 1000)
    assert found[REQUESTS[0]]["scheduled_at"] == int(later.timestamp() * 1000)
    assert found[REQUESTS[0]]["portal_at"] is None


async def test_a_database_that_an_earlier_version_has_made_goes_on(empty: Database) -> None:
    """It noted how far listeners had been told, and refuses a row without it."""

    def earlier(tx: Transaction) -> None:
        tx.execute(
            "CREATE TABLE ii_monitor (site varchar(32) NOT NULL PRIMARY KEY,"
            " stream varchar(40) NOT NULL, position bigint NOT NULL, told bigint NOT NULL,"
            " holder varchar(36) NOT NULL, beat bigint NOT NULL)"
        )
        tx.execute("INSERT INTO ii_monitor VALUES ('main', 'made', 7, 5, '', 3)")

    await empty.transact(earlier)
    history, london = History(empty, SITE), History(empty, "london")
    await history.prepare()
    place = await claimed(history)
    assert place == Place("made", 7)
    await history.apply(place, numbered(deployed(1), 8), 11)
    await history.release()
    assert await claimed(history) == Place("made", 11)
    assert await claimed(london) == Place()
    assert (await apply(london, deployed(2))).totals.deployments["finished"] == 1
