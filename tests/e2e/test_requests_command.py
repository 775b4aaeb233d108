"""Requests as an operator sees them at the command line, and rejected ones replayed from there."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.event_stream import read
from bus.events import Event
from bus.machines import machine_key
from bus.messages import Machine, Protection, Request, Schedule
from bus.request_store import Entry, Kept, RequestStore, entries
from cli.replaying import Order, Replay, renewed, replay
from cli.request_lookup import Known
from cli.request_text import page, table
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from services.auth.program import program as auth
from services.menu.program import program as menu
from services.scheduler.intake import digest_of
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk
from tests.guarded import RIGHT, Guarded
from tests.site import (
    DESKTOP,
    DESKTOP_JOBS,
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Express,
    eventually,
    new_id,
    new_machine,
    refused,
    running,
)

KEY = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"
MEMORY_TEST_ID = 2000190


class RequestDesk(Desk):
    """An operator's desk beside a site's bus and its deployment server."""

    def __init__(self, url: str, connection: Connection, home: Path, dsn: str) -> None:
        super().__init__(url, connection, home)
        self.url = url
        self.dsn = dsn
        self.express = Express(dsn)
        self.store = RequestStore(connection, SITE)

    @asynccontextmanager
    async def scheduling(self) -> AsyncIterator[None]:
        """A scheduler works."""
        async with running(self.url, SITE, scheduler(self.dsn)):
            yield

    async def type(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Types a command while services in this process go on."""
        done = await asyncio.to_thread(self.run, "requests", *arguments)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    async def ask(
        self,
        item_id: str,
        machine: Machine = STAFF_0117,
        *,
        technician: str | None = None,
        protection: Protection = "none",
        name: str | None = None,
        start_at: datetime | None = None,
    ) -> str:
        """Puts a request on disk as the scheduler's intake does; its id."""
        wish = Schedule(
            request_id=new_id(),
            machine=machine,
            item_id=item_id,
            computer_name=name,
            start_at=start_at,
        )
        request = Request(
            request_id=wish.request_id,
            site=SITE,
            machine=machine,
            item_id=item_id,
            accepted_at=datetime.now(UTC),
            digest=digest_of(wish),
            computer_name=name,
            start_at=start_at,
            technician=technician,
            protection=protection,
        )
        assert (await self.store.put(request)).new
        return wish.request_id

    async def all_carried_out(self) -> None:
        await eventually(self.waiting, lambda found: not found)

    async def waiting(self) -> Sequence[Kept]:
        return (await self.store.waiting()).requests

    async def rejected(self) -> list[str]:
        return [kept.request.request_id for kept in (await self.store.rejected()).requests]

    async def reject(self, *machines: Machine, technician: str | None = None) -> list[str]:
        """Rejected requests: for an item that has just ceased to be one."""
        self.memory_test("Memory test")
        async with self.scheduling():
            ids = [await self.ask(MEMORY_TEST, each, technician=technician) for each in machines]
            await self.all_carried_out()
        self.memory_test("Memory test (MI)")
        return ids

    def memory_test(self, name: str) -> None:
        self.express.sql("UPDATE event SET name = ? WHERE event_id = ?", name, MEMORY_TEST_ID)

    async def events(self, kind: str) -> list[Event]:
        return [event async for event in read(self.connection, SITE) if event.kind == kind]

    def listed(self, *arguments: str) -> list[Entry]:
        """What the list shows to a program."""
        lines = self.done("requests", "list", "--json", *arguments).splitlines()
        return [msgspec.json.decode(line, type=Entry) for line in lines]

    def shown(self, request_id: str, *, with_database: bool = False) -> Known:
        more = {"IMAGEINVOKER_DATABASE": self.dsn} if with_database else {}
        done = self.run("requests", "show", request_id, "--json", more=more)
        assert done.returncode == 0, done.stderr
        assert ("not shown" in done.stderr) != with_database
        return msgspec.json.decode(done.stdout, type=Known)


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path) -> RequestDesk:
    await prepare(connection.jetstream())
    dsn = sqlite_dsn(tmp_path / "express.db")
    database = Database(dsn, create=True)
    await create_embedded(database, sample=True)
    await database.close()
    return RequestDesk(bus.url, connection, tmp_path / "home", dsn)


class Day(msgspec.Struct):
    """A day at a site: a request in each state."""

    scheduled: str
    rejected: str
    waiting: str


@pytest.fixture
async def day(desk: RequestDesk) -> Day:
    async with desk.scheduling():
        scheduled = await desk.ask(DESKTOP, technician="alice")
        await desk.all_carried_out()
    (rejected,) = await desk.reject(new_machine(1), technician="LAB\\bob")
    later = datetime(2099, 1, 1, 12, tzinfo=UTC)
    waiting = await desk.ask(LAPTOP, new_machine(2), name="LAB-02", start_at=later)
    return Day(scheduled, rejected, waiting)


def replays(done: "subprocess.CompletedProcess[str]") -> list[Replay]:
    return [msgspec.json.decode(line, type=Replay) for line in done.stdout.splitlines()]


def test_a_request_in_each_state_is_a_line_of_the_list(desk: RequestDesk, day: Day) -> None:
    lines = desk.done("requests", "list").splitlines()
    assert lines[0].split() == ["TIME", "STATE", "REQUEST", "WHO", "MACHINE", "ITEM", "DETAILS"]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    second = machine_key(new_machine(1))
    for line, words in zip(
        lines[1:],
        [
            f"scheduled  {day.scheduled}  alice +STAFF-0117 +{DESKTOP} +10 jobs",
            rf"rejected +{day.rejected}  LAB\\bob +{second} +{MEMORY_TEST} +unknown_item",
            f"waiting +{day.waiting}  - +LAB-02 +{LAPTOP} +starts 2099-01-01 12:00:00",
        ],
        strict=True,
    ):
        assert re.fullmatch(f"{stamp}  {words}", line), line


def test_programs_get_a_request_a_line(desk: RequestDesk, day: Day) -> None:
    scheduled, rejected, waiting = desk.listed()
    assert (scheduled.request_id, scheduled.state, scheduled.jobs) == (
        day.scheduled, "scheduled", len(DESKTOP_JOBS),
    )  # fmt: skip
    assert scheduled.computer
    assert scheduled.computer.name == "STAFF-0117"
    assert (rejected.request_id, rejected.state, rejected.problem) == (
        day.rejected, "rejected", "unknown_item",
    )  # fmt: skip
    assert (waiting.request_id, waiting.state, waiting.computer_name) == (
        day.waiting, "waiting", "LAB-02",
    )  # fmt: skip


def test_requests_are_asked_for_by_state_machine_technician_and_time(
    desk: RequestDesk, day: Day
) -> None:
    def found(*arguments: str) -> list[str]:
        return [entry.state for entry in desk.listed(*arguments)]

    assert found("--state", "waiting") == ["waiting"]
    assert found("--state", "rejected", "scheduled") == ["scheduled", "rejected"]
    assert found("--machine", KEY) == ["scheduled"]
    assert found("--machine", STAFF_0117.uuid or "") == ["scheduled"]
    assert found("--machine", "staff-0117") == ["scheduled"]
    assert found("--machine", "lab-02") == ["waiting"]
    assert found("--machine", "NOWHERE") == []
    assert found("--technician", "ALICE") == ["scheduled"]
    assert found("--technician", "bob") == ["rejected"]
    assert found("--technician", "LAB\\bob") == ["rejected"]
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert found("--since", later) == ["waiting"]
    newest = desk.run("requests", "list", "--limit", "1")
    assert day.waiting in newest.stdout
    assert day.rejected not in newest.stdout
    assert newest.stderr == "2 earlier ones are not shown; --limit shows more.\n"


def test_nothing_found_is_no_failure_but_a_sentence(desk: RequestDesk) -> None:
    done = desk.run("requests", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No such request is known.\n"


def test_a_reader_that_goes_away_ends_the_list_in_silence(desk: RequestDesk, day: Day) -> None:
    with desk.started("requests", "list") as listing:
        assert listing.stdout
        listing.stdout.close()
        assert listing.stderr
        assert listing.stderr.read() == ""
        assert listing.wait(30) == 0


async def test_what_is_no_request_is_counted_and_hides_nothing(desk: RequestDesk, day: Day) -> None:
    stream = desk.connection.jetstream()
    for body in (b"junk", b"", b"\xff"):
        await stream.publish(subjects.rejected(SITE, KEY), body)
    done = await desk.type("list", "--json")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "3 messages of the streams are no requests.\n"


async def test_nothing_that_a_stranger_wrote_commands_the_terminal(desk: RequestDesk) -> None:
    strange = "\x1b[2m\nrequest"
    for kind in ("jobs_scheduled", "request_replayed"):
        event = Event(
            id=f"{SITE}.{kind}.1",
            site=SITE,
            kind=kind,
            at=datetime.now(UTC),
            machine=KEY,
            technician=strange,
            details={"request": strange, "new_request": strange, "item": strange},
        )
        subject = subjects.event(SITE, KEY, kind)
        await desk.connection.jetstream().publish(subject, msgspec.json.encode(event))
    listed = (await desk.type("list")).stdout
    assert len(listed.splitlines()) == 2
    assert "\x1b" not in listed
    assert "\x1b" not in (await desk.type("show", strange)).stdout


def test_a_request_shows_its_contents_and_its_events_in_order(desk: RequestDesk, day: Day) -> None:
    scheduled = desk.shown(day.scheduled)
    assert [event.kind for event in scheduled.events] == ["request_accepted", "jobs_scheduled"]
    assert (scheduled.request, scheduled.outcome) == (None, None)
    assert scheduled.entry.accepted_at

    rejected = desk.shown(day.rejected)
    assert [event.kind for event in rejected.events] == ["request_accepted", "request_rejected"]
    assert rejected.request
    assert (rejected.request.machine, rejected.request.item_id) == (new_machine(1), MEMORY_TEST)

    waiting = desk.shown(day.waiting.upper())
    assert (waiting.entry.state, waiting.events) == ("waiting", ())
    assert waiting.request
    assert waiting.request.computer_name == "LAB-02"


def test_with_a_database_a_request_shows_its_whole_outcome(desk: RequestDesk, day: Day) -> None:
    scheduled = desk.shown(day.scheduled, with_database=True)
    assert scheduled.outcome
    assert tuple(job.id for job in scheduled.outcome.jobs) == DESKTOP_JOBS
    rejected = desk.shown(day.rejected, with_database=True)
    assert rejected.outcome
    assert rejected.outcome.problem
    assert rejected.outcome.problem.code == "unknown_item"
    assert desk.shown(day.waiting, with_database=True).outcome is None


def test_a_request_is_a_page_for_people(desk: RequestDesk, day: Day) -> None:
    told = {"IMAGEINVOKER_DATABASE": desk.dsn}
    page = desk.run("requests", "show", day.scheduled, more=told).stdout
    assert re.search(r"^technician +alice$", page, re.MULTILINE)
    assert re.search(r"^computer +STAFF-0117 \(\d+\)$", page, re.MULTILINE)
    assert str(DESKTOP_JOBS[0]) in page
    page = desk.done("requests", "show", day.rejected)
    assert "unknown_item: This menu item does not exist any more." in page
    assert re.search(r"^serial +NEW0000001$", page, re.MULTILINE)
    assert page.index("request_accepted") < page.index("request_rejected")


async def test_what_the_bus_has_forgotten_is_known_from_the_database(
    desk: RequestDesk, day: Day
) -> None:
    for stream in (subjects.EVENTS, subjects.REJECTED):
        await desk.connection.jetstream().purge_stream(stream)
    known = desk.shown(day.rejected, with_database=True)
    assert (known.entry.state, known.entry.technician) == ("rejected", "LAB\\bob")
    assert desk.run("requests", "show", day.rejected).returncode == 1


async def test_a_request_that_was_refused_at_once_is_known_by_its_event(desk: RequestDesk) -> None:
    client, request_id = Guarded(desk.connection, SITE), new_id()
    async with desk.scheduling():
        with refused("unknown_item"):
            await client.schedule(STAFF_0117, "job:1", request_id=request_id)
    known = await asyncio.to_thread(desk.shown, request_id)
    assert (known.entry.state, known.entry.problem) == ("refused", "unknown_item")
    assert await asyncio.to_thread(desk.listed) == []


def test_a_request_that_nobody_knows_is_said_so(desk: RequestDesk, day: Day) -> None:
    done = desk.run("requests", "show", new_id())
    assert (done.returncode, done.stdout) == (1, "")
    assert "Nothing is known of a request" in done.stderr


async def test_a_rejected_request_is_replayed_as_a_new_one_and_stays(desk: RequestDesk) -> None:
    (rejected,) = await desk.reject(STAFF_0117, technician="alice")
    async with desk.scheduling():
        (done,) = replays(await desk.type("replay", rejected, "--json"))
        await desk.all_carried_out()

    assert done.request_id == rejected != done.new_request_id
    assert done.outcome.state == "scheduled"
    assert desk.express.scheduled("STAFF-0117") == [MEMORY_TEST_ID]
    assert await desk.rejected() == [rejected]
    (event,) = await desk.events("request_replayed")
    assert event.details == {"request": rejected, "new_request": done.new_request_id}
    assert event.machine == KEY
    assert event.operator
    assert "@" in event.operator
    old, new = desk.listed()
    assert (old.state, old.replayed_as) == ("rejected", (done.new_request_id,))
    assert (new.state, new.replay_of, new.technician) == ("scheduled", rejected, "alice")
    assert event in desk.shown(rejected).events
    assert event in desk.shown(done.new_request_id).events


async def test_a_replay_that_is_rejected_again_says_why_and_ends_with_status_3(
    desk: RequestDesk,
) -> None:
    (rejected,) = await desk.reject(STAFF_0117)
    desk.memory_test("Memory test")
    async with desk.scheduling():
        done = await desk.type("replay", rejected, status=3)
        await desk.all_carried_out()
    assert re.fullmatch(
        f"{rejected} replayed as [0-9a-f-]{{36}}: rejected, unknown_item: "
        r"This menu item does not exist any more\.\n",
        done.stdout,
    )
    old, new = await desk.rejected()
    assert old == rejected
    assert new in done.stdout


async def test_a_request_is_replayed_twice_only_if_an_operator_insists(desk: RequestDesk) -> None:
    (rejected,) = await desk.reject(STAFF_0117)
    async with desk.scheduling():
        (first,) = replays(await desk.type("replay", rejected, "--json"))
        assert first.outcome.state == "scheduled"
        refused_ = await desk.type("replay", rejected, status=1)
        assert f"replayed already, as {first.new_request_id}; --again" in refused_.stderr
        (second,) = replays(await desk.type("replay", rejected, "--again", "--json"))
    assert second.new_request_id != first.new_request_id
    assert (second.outcome.state, second.outcome.replaced) == ("scheduled", 1)
    assert len(await desk.events("request_replayed")) == 2


async def test_an_unknown_request_is_refused_and_nothing_is_replayed(
    desk: RequestDesk, day: Day
) -> None:
    for unknown in (new_id(), day.scheduled, day.waiting, "junk"):
        done = await desk.type("replay", day.rejected, unknown, status=1)
        assert f"No rejected request {unknown!r} is kept" in done.stderr
        assert done.stdout == ""
    assert await desk.events("request_replayed") == []
    assert [kept.request.request_id for kept in await desk.waiting()] == [day.waiting]


async def test_two_operators_who_replay_at_the_same_time_make_one_request(
    desk: RequestDesk,
) -> None:
    (rejected,) = await desk.reject(STAFF_0117)
    orders = [Order(kept, 0) for kept in (await desk.store.rejected()).requests]
    both = await asyncio.gather(*(replay(desk.connection, SITE, orders) for _ in range(2)))
    (one,), (other,) = both
    assert one.request_id == rejected
    assert one.new_request_id == other.new_request_id
    assert (one.outcome.state, other.outcome.state) == ("accepted", "accepted")
    (kept,) = await desk.waiting()
    assert kept.request.request_id == one.new_request_id
    assert len(await desk.events("request_replayed")) == 1
    async with desk.scheduling():
        await desk.all_carried_out()
    assert desk.express.scheduled("STAFF-0117") == [MEMORY_TEST_ID]


async def test_all_are_replayed_but_those_that_would_undo_something_newer(
    desk: RequestDesk,
) -> None:
    machines = [new_machine(number) for number in range(4)]
    ids = await desk.reject(machines[0], machines[0], *machines[1:])
    async with desk.scheduling():
        await desk.ask(LAPTOP, machines[3])
        await desk.all_carried_out()
        await desk.type("replay", ids[2])

        forbidden = await desk.type("replay", "--all", "--problem", "forbidden")
        assert forbidden.stderr == "There is nothing to replay.\n"
        later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        assert (await desk.type("replay", "--all", "--since", later)).stdout == ""

        done = await desk.type("replay", "--all", "--problem", "unknown_item", "--json")
        assert [each.request_id for each in replays(done)] == [ids[1], ids[3]]
        assert "2 left out, since their machines have newer requests" in done.stderr
        assert (await desk.type("replay", "--all")).stdout == ""
    assert desk.express.scheduled("NEW0000000") == [MEMORY_TEST_ID]
    assert desk.express.scheduled("NEW0000003") == list(LAPTOP_JOBS)


async def test_rights_are_decided_anew_when_a_replay_is_carried_out(desk: RequestDesk) -> None:
    site = Guarded(desk.connection, SITE)
    await site.employ("alice")
    async with desk.scheduling():
        rejected = await desk.ask(LAPTOP, technician="alice", protection="server")
        await desk.all_carried_out()
        (again,) = replays(await desk.type("replay", rejected, "--json", status=3))
    assert again.outcome.problem
    assert again.outcome.problem.code == "forbidden"
    await site.rule("user:alice", "all")
    async with desk.scheduling():
        (allowed,) = replays(await desk.type("replay", again.new_request_id, "--json"))
    assert allowed.outcome.state == "scheduled"
    assert desk.express.scheduled("STAFF-0117") == list(LAPTOP_JOBS)


async def test_no_password_and_no_token_is_in_anything_that_is_shown(desk: RequestDesk) -> None:
    site = Guarded(desk.connection, SITE)
    await site.employ("alice")
    await site.rule("user:alice", "all")
    await site.set("protection", "server")
    programs = (menu(desk.dsn), auth, scheduler(desk.dsn))
    more = {"IMAGEINVOKER_DATABASE": f"{desk.dsn};PWD=hidden-4712"}
    async with running(desk.url, SITE, *programs):
        token = await site.enter("alice")
        assert (await site.schedule(STAFF_0117, LAPTOP, token=token)).state == "scheduled"
    rejected = await desk.reject(STAFF_0117, technician="alice")
    async with desk.scheduling():
        said = [await desk.type("replay", *rejected, "--json")]
    for entry in await asyncio.to_thread(desk.listed):
        for form in ((), ("--json",)):
            words = ("requests", "show", entry.request_id, *form)
            said.append(desk.run(*words, more=more))
            said.append(desk.run("requests", "list", *form, more=more))
    assert all(each.returncode == 0 for each in said)
    for secret in (RIGHT, token[:60], token.split(".")[2], "hidden-4712"):
        assert [each for each in said if secret in each.stdout + each.stderr] == []


def test_people_are_shown_the_title_of_what_was_asked_for_and_programs_its_id_too() -> None:
    asked = msgspec.structs.replace(old_request(None), item_title="Lab laptop")
    details = {"request": asked.request_id, "item": LAPTOP, "title": "Lab laptop"}
    told = Event(
        id="e",
        site=SITE,
        kind="jobs_scheduled",
        at=NOW,
        machine=KEY,
        details={**details, "jobs": 5},
    )
    for found in (entries([Kept(asked, KEY, NOW)], [], []), entries([], [], [told])):
        (entry,) = found
        assert (entry.item_id, entry.item_title) == (LAPTOP, "Lab laptop")
        assert "  Lab laptop" in table([entry])
        assert LAPTOP not in table([entry])
        assert f"Lab laptop ({LAPTOP})" in page(Known(entry=entry))
    (untold,) = entries([Kept(old_request(None), KEY, NOW)], [], [])
    assert f"  {LAPTOP}" in table([untold])


def old_request(start_at: datetime | None) -> Request:
    return Request(
        request_id=new_id(),
        site=SITE,
        machine=STAFF_0117,
        item_id=LAPTOP,
        accepted_at=NOW - timedelta(days=1),
        digest="of the old one",
        computer_name="LAB-07",
        start_at=start_at,
        technician="alice",
        outcome_to="_INBOX_somebody.1",
        protection="domain",
    )


NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start_at", "kept"),
    [(None, False), (NOW - timedelta(seconds=1), False), (NOW + timedelta(seconds=1), True)],
)
def test_a_replay_is_the_same_wish_without_a_start_that_has_passed(
    start_at: datetime | None, kept: bool
) -> None:
    old = old_request(start_at)
    new = renewed(Order(Kept(old, KEY, NOW), 0), NOW)
    wish = Schedule(
        request_id=new.request_id,
        machine=STAFF_0117,
        item_id=LAPTOP,
        computer_name="LAB-07",
        start_at=start_at if kept else None,
    )
    assert new == Request(
        request_id=wish.request_id,
        site=SITE,
        machine=STAFF_0117,
        item_id=LAPTOP,
        accepted_at=NOW,
        digest=digest_of(wish),
        computer_name="LAB-07",
        start_at=wish.start_at,
        technician="alice",
        protection="domain",
    )
    assert new.request_id != old.request_id
    assert renewed(Order(Kept(old, KEY, NOW), 0), NOW + timedelta(hours=1)).request_id == (
        new.request_id
    )
    assert renewed(Order(Kept(old, KEY, NOW), 1), NOW).request_id != new.request_id
    msgspec.json.decode(msgspec.json.encode(new), type=Request)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--state", "lost"), "lost"),
        (("list", "--since", "soon"), "--since: 'soon' is no moment"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--site", "No Site"), "no site"),
        (("show",), "requires an argument"),
        (("show", "x", "--database-file", "/nowhere"), "/nowhere cannot be read"),
        (("replay",), "Name rejected requests, or say --all."),
        (("replay", "x", "--all"), "Name rejected requests, or say --all."),
        (("replay", "--all", "--again"), "--again"),
        (("replay", "x", "--since", "1h"), "--since and --problem go with --all"),
        (("replay", "x", "--problem", "forbidden"), "--since and --problem go with --all"),
        (("replay", "--all", "--problem", "sabotage"), "There is no problem 'sabotage'"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_sentence(
    desk: RequestDesk, arguments: tuple[str, ...], words: str
) -> None:
    assert words in desk.refused("requests", *arguments)


def test_a_bus_that_keeps_no_requests_ends_with_status_4(
    bus: BusServer, connection: Connection, tmp_path: Path
) -> None:
    done = Desk(bus.url, connection, tmp_path).run("requests", "list")
    assert done.returncode == 4
    assert "does not keep" in done.stderr
