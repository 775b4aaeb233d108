"""An accepted request is carried out or rejected, once, whatever dies meanwhile."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from bus import contract, subjects
from bus.messages import AskStatus, Machine, Outcome, Request, Schedule, decoder, encode
from bus.presence import wait_for_services
from services.auth.program import program as auth
from services.menu.program import program as menu
from services.patience import PATIENCE
from services.scheduler.intake import WAIT
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
    ServiceProcess,
    asker,
    eventually,
    intake_only,
    new_id,
    new_machine,
    problem_of,
    processes,
    refused,
    running,
    stopped,
)

PASSWORD = "open sesame 4711"
KEY = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"
_request = decoder(Request)


async def keep(client: Asker, machine: Machine, item_id: str, *, token: str | None = None) -> str:
    """Sends a request to a scheduler whose carrier is stopped; its id, once it is on disk."""
    request_id = new_id()
    question = Schedule(request_id=request_id, machine=machine, item_id=item_id, token=token)
    await client.send(contract.SCHEDULE, question)
    await eventually(
        lambda: problem_of(client.status(machine, request_id)), lambda code: not code, 5
    )
    return request_id


async def test_without_a_carrier_a_request_is_accepted_after_two_seconds_and_done_later(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    ids = [new_id(), new_id()]
    later = datetime(2099, 1, 1, tzinfo=UTC)
    async with running(url, name, intake_only(dsn)):
        began = time.monotonic()
        outcomes = await asyncio.gather(
            client.schedule(STAFF_0117, DESKTOP, request_id=ids[0]),
            client.schedule(new_machine(1), LAPTOP, request_id=ids[1], start_at=later),
        )
        took = time.monotonic() - began

        assert WAIT <= took < WAIT + 0.5
        assert list(outcomes) == [
            Outcome(request_id=ids[0], state="accepted"),
            Outcome(request_id=ids[1], state="accepted", start_at=later),
        ]
        assert await client.status(STAFF_0117, ids[0]) == outcomes[0]
        assert await client.status(new_machine(1), ids[1]) == outcomes[1]
    async with running(url, name, scheduler(dsn)):
        first = await client.settled(STAFF_0117, ids[0])
        second = await client.settled(new_machine(1), ids[1])

    assert (first.state, second.state) == ("scheduled", "scheduled")
    assert express.scheduled("STAFF-0117") == list(DESKTOP_JOBS)
    assert express.scheduled("NEW0000001") == list(LAPTOP_JOBS)
    assert await client.waiting() == []


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_who_asks_for_an_outcome_and_waits_is_told_when_there_is_one(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    async with running(url, name, scheduler(dsn)):
        # Somebody else's transaction holds the request up.
        with express.busy(STAFF_0117):
            request_id = new_id()
            assert (await client.schedule(STAFF_0117, LAPTOP, request_id=request_id)).state == (
                "accepted"
            )
            began = time.monotonic()
            waited = await client.status(STAFF_0117, request_id, wait=True)
            assert (waited.state, time.monotonic() - began >= WAIT) == ("accepted", True)
            with refused("unknown_request"):
                await client.status(new_machine(1), request_id, wait=True)
            waiting = asyncio.create_task(client.status(STAFF_0117, request_id, wait=True))
            await asyncio.sleep(WAIT / 4)
            assert not waiting.done()
        assert (await waiting).state == "scheduled"


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_one_request_however_often_it_is_sent_is_kept_once(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    request_id = new_id()

    async def send() -> Outcome:
        return await client.schedule(STAFF_0117, DESKTOP, request_id=request_id)

    async with running(url, name, intake_only(dsn), intake_only(dsn)):
        waiting = [asyncio.create_task(send()) for _ in range(20)]
        await eventually(
            lambda: problem_of(client.status(STAFF_0117, request_id)), lambda code: not code, 5
        )
        with refused("request_conflict"):
            await client.schedule(STAFF_0117, LAPTOP, request_id=request_id)
        with refused("request_conflict"):
            await client.schedule(new_machine(1), DESKTOP, request_id=request_id)
        with refused("unknown_request"):
            await client.status(new_machine(1), request_id)
        assert {outcome.state for outcome in await asyncio.gather(*waiting)} == {"accepted"}
        assert len(await client.waiting()) == 1
        waiting = [asyncio.create_task(send()) for _ in range(5)]
        async with running(url, name, scheduler(dsn)):
            ends = await asyncio.gather(*waiting)
            assert {outcome.state for outcome in ends} == {"scheduled"}
            assert {outcome.replaced for outcome in [*ends, await send()]} == {0}
    assert express.scheduled("STAFF-0117") == list(DESKTOP_JOBS)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_kept_request_that_is_sent_again_is_not_judged_again(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    request_id = new_id()
    start_at = datetime.now(UTC) + timedelta(seconds=1)

    async def send() -> Outcome:
        return await client.schedule(
            STAFF_0117, MEMORY_TEST, request_id=request_id, start_at=start_at
        )

    async with running(url, name, intake_only(dsn)):
        assert (await send()).state == "accepted"
        assert datetime.now(UTC) > start_at
        again = asyncio.create_task(send())
        with refused("request_conflict"):
            await client.schedule(STAFF_0117, "job:1", request_id=request_id)
        async with running(url, name, scheduler(dsn)):
            assert (await again).state == "scheduled"
    assert express.scheduled("STAFF-0117") == [2000190]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_scheduler_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    url: str, name: str, dsn: str, client: Asker, express: Express, tmp_path: Path
) -> None:
    chance = random.Random(9)
    process = ServiceProcess("scheduler", url, name, dsn, tmp_path)
    insisting: list[asyncio.Task[Outcome]] = []

    def ask() -> asyncio.Task[Outcome]:
        machine = new_machine(len(insisting))
        insisting.append(asyncio.create_task(client.insist(machine, DESKTOP, new_id())))
        return insisting[-1]

    with processes(process):
        for round_ in range(3):
            await process.serving(round_ + 1)
            unanswered = {ask() for _ in range(30)}
            answered, enough = 0, chance.randrange(1, 20)
            # Each answer is followed by a new request, so that the kill finds some on their way.
            while answered < enough or not unanswered:
                unanswered |= {ask() for _ in range(30 - len(unanswered))}
                done, unanswered = await asyncio.wait(
                    unanswered, return_when=asyncio.FIRST_COMPLETED
                )
                answered += len(done)
            process.kill()
            process.start()
        outcomes = await asyncio.gather(*insisting)
        # Whoever waits is told first; the stream is told when everything is done.
        await eventually(client.waiting, lambda found: not found, 30)

    assert {outcome.state for outcome in outcomes} == {"scheduled"}
    # A request that was carried out twice would have found its own jobs pending.
    assert {outcome.replaced for outcome in outcomes} == {0}
    assert all(outcome.computer and outcome.computer.created for outcome in outcomes)
    tables = express.tables()
    assert len(tables["computer"]) == 5 + len(insisting)
    assert len(tables["ii_request"]) == len(insisting)
    assert len(tables["event_schedule"]) == len(insisting) * len(DESKTOP_JOBS)
    assert tables["ii_lock"] == []
    for number in range(len(insisting)):
        assert express.scheduled(f"NEW{number:07}") == list(DESKTOP_JOBS)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_requests_accepted_before_the_database_was_gone_are_done_when_it_is_back(
    url: str, name: str, dsn: str, client: Asker, express: Express, postgres: PostgresServer
) -> None:
    machines = [new_machine(number) for number in range(5)]
    async with running(url, name, intake_only(dsn)):
        ids = await asyncio.gather(*(keep(client, machine, LAPTOP) for machine in machines))
        with stopped(postgres):
            async with running(url, name, scheduler(dsn)):
                with refused("deployment_server_unavailable"):
                    await client.schedule(STAFF_0117, LAPTOP)
                await asyncio.sleep(0.5)
                assert len(await client.waiting()) == 5
        async with running(url, name, scheduler(dsn)):
            for machine, request_id in zip(machines, ids, strict=True):
                outcome = await client.settled(machine, request_id)
                assert (outcome.state, outcome.replaced) == ("scheduled", 0)
    assert len(express.tables("event_schedule")["event_schedule"]) == 5 * len(LAPTOP_JOBS)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_scheduler_outlives_its_database(
    url: str, name: str, dsn: str, client: Asker, express: Express, postgres: PostgresServer
) -> None:
    async with running(url, name, scheduler(dsn)):
        # Somebody else's transaction holds the request up until the server crashes.
        with express.busy(STAFF_0117):
            request_id = new_id()
            outcome = await client.schedule(STAFF_0117, LAPTOP, request_id=request_id)
            assert outcome.state == "accepted"
            with stopped(postgres), refused("deployment_server_unavailable"):
                await client.status(new_machine(1), new_id())
        done = await client.settled(STAFF_0117, request_id)
    assert (done.state, done.replaced) == ("scheduled", 0)
    assert express.scheduled("STAFF-0117") == list(LAPTOP_JOBS)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_while_the_database_hangs_callers_hear_so_before_they_give_up(
    url: str, name: str, dsn: str, client: Asker, postgres: PostgresServer
) -> None:
    async with running(url, name, menu(dsn), intake_only(dsn)):
        kept = await keep(client, STAFF_0117, LAPTOP)
        with postgres.frozen():
            began = time.monotonic()
            *codes, again, known = await asyncio.gather(
                problem_of(client.welcome(STAFF_0117)),
                problem_of(client.schedule(STAFF_0117, DESKTOP)),
                problem_of(client.status(STAFF_0117, new_id())),
                # The same request again, and a look at it: it is on disk, so that is the answer.
                client.schedule(STAFF_0117, LAPTOP, request_id=kept),
                client.status(STAFF_0117, kept),
            )
            took = time.monotonic() - began

    assert codes == ["deployment_server_unavailable"] * 3
    assert (again.state, known.state) == ("accepted", "accepted")
    assert took < PATIENCE + 1


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_accepted_requests_outlive_the_bus(
    bus: BusServer, name: str, dsn: str, express: Express
) -> None:
    async with asker(bus.url, name) as client, running(bus.url, name, scheduler(dsn)):
        with express.busy(STAFF_0117):
            request_id = new_id()
            outcome = await client.schedule(STAFF_0117, LAPTOP, request_id=request_id)
            assert outcome.state == "accepted"
            bus.kill()
        # It is carried out while nobody can be told, or after; once in either case.
        bus.start()
        began = time.monotonic()
        done = await client.settled(STAFF_0117, request_id)
        fresh = await client.schedule(new_machine(1), LAPTOP)
        if fresh.state == "accepted":
            fresh = await client.settled(new_machine(1), fresh.request_id)
        took = time.monotonic() - began
        await eventually(client.waiting, lambda found: not found, 15)

    assert (done.state, done.replaced) == ("scheduled", 0)
    assert (fresh.state, fresh.replaced) == ("scheduled", 0)
    assert took < 10
    assert len(express.tables("ii_request")["ii_request"]) == 2
    assert express.scheduled("STAFF-0117") == list(LAPTOP_JOBS)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_idle_scheduler_takes_requests_at_once_when_the_bus_is_back(
    bus: BusServer, name: str, dsn: str
) -> None:
    async with asker(bus.url, name) as client, running(bus.url, name, scheduler(dsn)):
        assert (await client.schedule(STAFF_0117, LAPTOP)).state == "scheduled"
        # It is answered before all of it is told; only then the scheduler is idle.
        await eventually(client.waiting, lambda found: not found)
        bus.stop()
        bus.start()
        async with asyncio.timeout(10):
            await wait_for_services(client.connection, name, ["scheduler"])
        assert (await client.schedule(STAFF_0117, LAPTOP)).state == "scheduled"


async def test_two_copies_carry_out_the_requests_of_one_machine_in_order(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    machines = [STAFF_0117, new_machine(1), new_machine(2)]
    wishes: list[tuple[Machine, str, str]] = []
    async with running(url, name, intake_only(dsn)):
        for item_id in (DESKTOP, LAPTOP, MEMORY_TEST, DESKTOP, LAPTOP):
            for machine in machines:
                request_id = await keep(client, machine, item_id)
                wishes.append((machine, item_id, request_id))
    async with running(url, name, scheduler(dsn), scheduler(dsn)):
        for machine in machines:
            replaced = []
            for of, _, request_id in wishes:
                if of is machine:
                    outcome = await client.settled(machine, request_id)
                    assert outcome.state == "scheduled"
                    replaced.append(outcome.replaced)
            assert replaced == [0, 10, 5, 1, 10]
    for computer in ("STAFF-0117", "NEW0000001", "NEW0000002"):
        assert express.scheduled(computer) == list(LAPTOP_JOBS)


async def test_a_redelivery_finds_the_request_done(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    async with running(url, name, intake_only(dsn)):
        request_id = await keep(client, STAFF_0117, DESKTOP)
        (kept,) = await client.waiting()
    async with running(url, name, scheduler(dsn)):
        done = await client.settled(STAFF_0117, request_id)
        express.sql("UPDATE event_schedule SET status_code = 0 WHERE event_id = 2000101")
        rows = express.tables()
        jetstream = client.connection.jetstream()
        for _ in range(3):
            await jetstream.publish(subjects.request(name, KEY), kept)
        await eventually(client.waiting, lambda found: not found)

        assert express.tables() == rows
        assert await client.status(STAFF_0117, request_id) == done


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_what_cannot_be_read_is_set_aside_and_blocks_nothing(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    strange = Request(
        request_id=new_id(),
        site=name,
        machine=Machine(),
        item_id=DESKTOP,
        accepted_at=datetime.now(UTC),
        digest="",
    )
    unreadable = [b"junk", b"", b'{"request_id": 5}', b"\xff" * 100, encode(strange)]
    async with running(url, name, intake_only(dsn)):
        jetstream = client.connection.jetstream()
        for body in unreadable:
            await jetstream.publish(subjects.request(name, KEY), body)
        request_id = await keep(client, STAFF_0117, DESKTOP)
    async with running(url, name, scheduler(dsn)):
        done = await client.settled(STAFF_0117, request_id)
        await eventually(client.waiting, lambda found: not found)

    assert done.state == "scheduled"
    assert sorted(await client.rejected()) == sorted(unreadable)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_what_turns_out_later_rejects_the_request_and_keeps_it_whole(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    await client.protect(PASSWORD)
    async with running(url, name, intake_only(dsn), auth):
        token = (await client.login(STAFF_0117, PASSWORD)).token
        request_id = await keep(client, STAFF_0117, MEMORY_TEST, token=token)
        (kept,) = await client.waiting()
    express.sql("UPDATE event SET name = 'Memory test' WHERE event_id = 2000190")
    before = express.tables("event_schedule", "computer", "hardware", "nics", "ii_lock")
    async with running(url, name, scheduler(dsn)):
        outcome = await client.settled(STAFF_0117, request_id)
        await eventually(client.waiting, lambda found: not found)
        with refused("login_required"):
            await client.schedule(STAFF_0117, MEMORY_TEST, request_id=request_id)
        again = await eventually(
            lambda: client.schedule(STAFF_0117, MEMORY_TEST, request_id=request_id, token=token),
            bool,
        )

    assert outcome.state == "rejected"
    assert outcome.problem
    assert outcome.problem.code == "unknown_item"
    assert again == outcome
    assert express.tables("event_schedule", "computer", "hardware", "nics", "ii_lock") == before
    ((state, recorded),) = express.sql("SELECT state, outcome FROM ii_request")
    assert state == "rejected"
    assert msgspec.json.decode(recorded, type=Outcome) == outcome
    assert await client.rejected() == [kept]
    assert _request.decode(kept).item_id == MEMORY_TEST
    assert token.encode() not in kept
    assert token.rpartition(".")[2].encode() not in kept


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_no_password_and_no_token_is_in_a_stream_a_table_or_a_log_line(
    url: str, name: str, dsn: str, client: Asker, express: Express, tmp_path: Path
) -> None:
    await client.protect(PASSWORD)
    await client.set("detailed_logging", "on")
    secret_dsn = f"{dsn};PWD=hidden-4712"
    started = [
        ServiceProcess(service, url, name, secret_dsn, tmp_path)
        for service in ("menu", "auth", "scheduler")
    ]
    with processes(*started):
        for each in started:
            await each.serving()
        with refused("login_failed"):
            await client.login(STAFF_0117, PASSWORD + "!")
        token = (await client.login(STAFF_0117, PASSWORD)).token
        tries = await client.connection.jetstream().key_value(subjects.TRIES)
        await tries.put(subjects.site_key(name, KEY), b"junk")
        await problem_of(client.login(STAFF_0117, PASSWORD))
        await client.show(STAFF_0117, token)
        assert (await client.schedule(STAFF_0117, LAPTOP, token=token)).state == "scheduled"
        with refused("name_taken"):
            await client.schedule(STAFF_0117, LAPTOP, "STAFF-0118", token=token)
        # Something that nobody foresaw, so that a traceback is logged.
        express.sql("ALTER TABLE computer RENAME TO computer_away")
        with refused("internal_error"):
            await client.schedule(STAFF_0117, LAPTOP, token=token)
        express.sql("ALTER TABLE computer_away RENAME TO computer")
        for each in started:
            each.terminate()
        assert [await each.status() for each in started] == [0, 0, 0]
    logs = "".join(each.log.read_text() for each in started)
    assert "an endpoint failed" in logs
    jetstream = client.connection.jetstream()
    texts = [logs, repr(express.tables())]
    for stream in (subjects.REQUESTS, subjects.REJECTED, f"KV_{subjects.OPTIONS}"):
        info = await jetstream.stream_info(stream)
        texts += [repr(info), *map(repr, await client.kept(stream, ">"))]
    for secret in (PASSWORD, token[:60], token.split(".")[2], "hidden-4712"):
        assert [text for text in texts if secret in text] == []


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_status_knows_a_request_among_others_of_its_machine(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    async with running(url, name, intake_only(dsn)):
        ids = [await keep(client, STAFF_0117, MEMORY_TEST) for _ in range(5)]

        states = [await client.status(STAFF_0117, each) for each in ids]
        assert [outcome.request_id for outcome in states] == ids
        with refused("unknown_request"):
            await client.status(STAFF_0117, new_id())
        body = encode(AskStatus(machine=new_machine(1), request_id=ids[0]))
        answer = await client.raw(contract.STATUS, KEY, body)
        assert b"bad_machine" in answer.data
