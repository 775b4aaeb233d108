"""What is scheduled for a request, and that nothing is written for one that is refused."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bus.messages import ComputerRef, JobRef, Machine, Outcome, ScheduledComputer
from bus.problems import Code, Problem
from services.scheduler.program import program as scheduler
from tests.site import (
    DESKTOP,
    DESKTOP_JOBS,
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    eventually,
    new_id,
    new_machine,
    problem_of,
    refused,
    running,
)

ITEMS = {DESKTOP: DESKTOP_JOBS, LAPTOP: LAPTOP_JOBS, MEMORY_TEST: (2000190,)}
BAD_NAMES = {
    "empty": "",
    "16-characters": "A" * 16,
    "1000-characters": "A" * 1000,
    "quote": "PC'; DROP--",
    "double-quote": 'PC"1',
    "blank": "PC 1",
    "dot": "pc.local",
    "hyphen-first": "-PC",
    "hyphen-last": "PC-",
    "null": "PC\0",
    "newline": "PC\n",
    "escape": "PC\x1b[2J",
    "emoji": "PC\N{GRINNING FACE}",
    "right-to-left": "PC\N{RIGHT-TO-LEFT OVERRIDE}1",
    "umlaut": "BÜRO-1",
    "full-width-digit": "PC\N{FULLWIDTH DIGIT ONE}",
    "kelvin-sign": "\N{KELVIN SIGN}-1",
}

NO_ITEMS = [
    "job:2000111",  # gives its folder's title
    "job:2000194",  # not tagged
    "folder:1",  # not tagged
    "folder:9999",
    "job:9999",
    "job:-1",
    "job:2147483648",
    "job:9223372036854775807",
    "job:9223372036854775808",
    "job:9999999999999999999",
    "folder:9999999999999999999",
    "job:02000190",
    "job:2000190 ",
    "job:2000190; DROP TABLE event",
    "Memory test",
    "job:",
    "",
    "\N{GRINNING FACE}\0",
    "job:" + "9" * 1000,
]


@pytest.fixture
async def site(url: str, name: str, dsn: str, client: Asker) -> AsyncIterator[Asker]:
    """A site with a scheduler alone."""
    async with running(url, name, scheduler(dsn)):
        yield client


async def refusal_writes_nothing(
    site: Asker,
    express: Express,
    code: Code,
    machine: Machine,
    item_id: str = MEMORY_TEST,
    computer_name: str | None = None,
    start_at: datetime | None = None,
) -> Problem:
    """Sends a request that is refused at once, and compares every row of every table."""
    before = express.tables()
    with refused(code) as problems:
        await site.schedule(machine, item_id, computer_name, start_at=start_at)
    assert express.tables() == before
    assert await site.waiting() == []
    return problems[0]


async def set_in_force(site: Asker, option: str, value: str) -> None:
    """Sets an option, and returns when it is in force; known machines keep their names then."""
    await site.set(option, value)
    await site.set("may_rename", "off")
    # Options come in the order they were set, so that this refusal shows that both are there.
    await eventually(
        lambda: problem_of(site.schedule(STAFF_0117, DESKTOP, "OTHER")),
        lambda code: code == "forbidden",
        1,
    )


async def test_an_unknown_machine_gets_a_computer_as_named(site: Asker, express: Express) -> None:
    outcome = await site.schedule(new_machine(1), DESKTOP, "42-front-desk")

    computer = outcome.computer
    assert outcome.state == "scheduled"
    assert computer == ScheduledComputer(
        id=express.computer_id("42-front-desk"), name="42-front-desk", created=True
    )
    assert [job.id for job in outcome.jobs] == list(DESKTOP_JOBS)
    assert outcome.jobs[-1] == JobRef(id=2000110, name="10. Hand over")
    assert outcome.replaced == 0
    assert express.scheduled("42-front-desk") == list(DESKTOP_JOBS)
    rows = express.sql(
        "SELECT g.name, h.serial_num, h.asset_tag, h.uuid, h.manuf, h.prod_name, n.mac_addr"
        " FROM computer c JOIN computer_group g ON g.group_id = c.group_id"
        " JOIN hardware h ON h.computer_id = c.computer_id"
        " JOIN nics n ON n.computer_id = c.computer_id WHERE c.computer_id = ?",
        computer.id,
    )
    uuid = "00000001-7A31-4C02-9D5E-1B6F00C4E2D7"
    model = ("Dell Inc.", "OptiPlex 7010")
    assert rows == [("New Computers", "NEW0000001", "T-000001", uuid, *model, "525400000001")]
    assert express.tables("ii_lock") == {"ii_lock": []}


async def test_a_machine_that_got_a_computer_is_known_from_then_on(
    site: Asker, express: Express
) -> None:
    first = await site.schedule(new_machine(1), DESKTOP)
    second = await site.schedule(new_machine(1), LAPTOP)

    assert first.computer
    assert second.computer
    assert (first.computer.name, second.computer.name) == ("NEW0000001", "NEW0000001")
    assert (first.computer.id, second.computer.created) == (second.computer.id, False)
    assert second.replaced == len(DESKTOP_JOBS)
    assert express.scheduled("NEW0000001") == list(LAPTOP_JOBS)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_unknown_machine_is_named_by_the_rule_else_by_its_serial(
    site: Asker, express: Express
) -> None:
    await set_in_force(site, "naming", "L-%ASSETTAG%")

    by_rule = await site.schedule(new_machine(1), MEMORY_TEST)
    without_tag = msgspec.structs.replace(new_machine(2), asset_tag=None)
    by_serial = await site.schedule(without_tag, MEMORY_TEST)

    assert by_rule.computer
    assert by_serial.computer
    assert (by_rule.computer.name, by_serial.computer.name) == ("L-T-000001", "NEW0000002")
    assert express.scheduled("L-T-000001") == [2000190]


async def test_a_known_machine_keeps_its_name_unless_another_is_asked_for(
    site: Asker, express: Express
) -> None:
    kept = await site.schedule(STAFF_0117, MEMORY_TEST)
    same = await site.schedule(STAFF_0117, MEMORY_TEST, "STAFF-0117")
    renamed = await site.schedule(STAFF_0117, MEMORY_TEST, "0815")
    back = await site.schedule(STAFF_0117, MEMORY_TEST, "STAFF-0117")

    assert kept.computer == same.computer
    assert kept.computer == ScheduledComputer(id=1, name="STAFF-0117", created=False)
    assert renamed.computer == ScheduledComputer(
        id=1, name="0815", created=False, renamed_from="STAFF-0117"
    )
    assert back.computer
    assert back.computer.renamed_from == "0815"
    assert len(express.tables("computer")["computer"]) == 5


async def test_a_computer_may_get_its_own_name_in_other_letters(
    site: Asker, express: Express
) -> None:
    outcome = await site.schedule(STAFF_0117, MEMORY_TEST, "staff-0117")

    assert outcome.computer
    assert outcome.computer.renamed_from == "STAFF-0117"
    assert express.computer_id("staff-0117") == 1


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_where_known_computers_keep_their_names_another_one_is_forbidden(
    site: Asker, express: Express
) -> None:
    await set_in_force(site, "may_rename", "off")

    await refusal_writes_nothing(site, express, "forbidden", STAFF_0117, computer_name="OTHER-2")
    ((own,),) = express.sql("SELECT name FROM computer WHERE computer_id = 1")
    assert (await site.schedule(STAFF_0117, MEMORY_TEST, str(own))).state == "scheduled"
    assert (await site.schedule(new_machine(1), MEMORY_TEST, "OTHER-3")).state == "scheduled"


@pytest.mark.parametrize("taken", ["STAFF-0118", "staff-0118", "Staff-0118"])
async def test_another_computers_name_is_refused_in_any_case(
    site: Asker, express: Express, taken: str
) -> None:
    for machine in (STAFF_0117, new_machine(1)):
        problem = await refusal_writes_nothing(
            site, express, "name_taken", machine, computer_name=taken
        )
        assert problem.details.computers == (ComputerRef(id=2, name="STAFF-0118"),)


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES)
async def test_what_is_no_computer_name_is_refused(site: Asker, express: Express, bad: str) -> None:
    for machine in (STAFF_0117, new_machine(1)):
        await refusal_writes_nothing(site, express, "bad_name", machine, computer_name=bad)


@pytest.mark.parametrize("good", ["A" * 15, "1", "007", "9-to-5_PC"])
async def test_names_of_15_characters_and_of_digits_are_good(site: Asker, good: str) -> None:
    outcome = await site.schedule(new_machine(1), MEMORY_TEST, good)

    assert outcome.computer
    assert outcome.computer.name == good


async def test_picking_again_replaces_what_was_pending_and_nothing_else(
    site: Asker, express: Express
) -> None:
    for status in (None, None, -1, 0, 5):
        express.schedule_row(2000194, "STAFF-0117", status)
        express.schedule_row(2000194, "STAFF-0118", status)
    others = express.sql("SELECT * FROM event_schedule WHERE computer_id <> 1 ORDER BY schedule_id")
    started = express.sql(
        "SELECT * FROM event_schedule WHERE computer_id = 1 AND status_code IS NOT NULL"
        " ORDER BY schedule_id"
    )

    first = await site.schedule(STAFF_0117, LAPTOP)
    second = await site.schedule(STAFF_0117, DESKTOP)

    assert (first.replaced, second.replaced) == (2, len(LAPTOP_JOBS))
    assert express.scheduled("STAFF-0117") == list(DESKTOP_JOBS)
    assert others == express.sql(
        "SELECT * FROM event_schedule WHERE computer_id <> 1 ORDER BY schedule_id"
    )
    assert started == express.sql(
        "SELECT * FROM event_schedule WHERE computer_id = 1 AND status_code IS NOT NULL"
        " ORDER BY schedule_id"
    )


async def test_jobs_come_in_natural_order_with_subfolders_after_and_titles_never(
    site: Asker, express: Express
) -> None:
    finance = await site.schedule(STAFF_0117, "folder:12")
    assert [job.id for job in finance.jobs] == [2000130, 2000131, 2000132, 2000133]
    assert express.scheduled("STAFF-0117") == [2000130, 2000131, 2000132, 2000133]

    await site.schedule(STAFF_0117, DESKTOP)
    assert express.scheduled("STAFF-0117") == list(DESKTOP_JOBS)


async def test_what_is_no_item_is_refused(site: Asker, express: Express) -> None:
    for item_id in NO_ITEMS:
        await refusal_writes_nothing(site, express, "unknown_item", STAFF_0117, item_id)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_items_outside_of_the_root_folder_do_not_exist(site: Asker, express: Express) -> None:
    await set_in_force(site, "root_folder", "Deploy")

    await refusal_writes_nothing(site, express, "unknown_item", STAFF_0117, MEMORY_TEST)
    assert (await site.schedule(STAFF_0117, DESKTOP)).state == "scheduled"


async def test_a_later_start_is_carried_by_the_rows(site: Asker, express: Express) -> None:
    start_at = datetime(2099, 7, 1, 20, 30, tzinfo=UTC)

    outcome = await site.schedule(STAFF_0117, LAPTOP, start_at=start_at)
    rows = express.sql("SELECT start_time FROM event_schedule WHERE computer_id = 1")
    at_once = await site.schedule(STAFF_0117, MEMORY_TEST)
    ((now,),) = express.sql("SELECT start_time FROM event_schedule WHERE computer_id = 1")

    assert outcome.start_at == start_at
    assert {_moment(row[0]) for row in rows} == {datetime(2099, 7, 1, 20, 30)}  # noqa: DTZ001
    assert at_once.start_at is None
    assert abs(_moment(now) - datetime.now(UTC).replace(tzinfo=None)) < timedelta(seconds=5)


def _moment(value: object) -> datetime:
    """A moment as a driver gives it: SQLite's may come as text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_start_in_the_past_is_refused(site: Asker, express: Express) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)

    await refusal_writes_nothing(site, express, "bad_request", STAFF_0117, start_at=past)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_the_group_for_new_computers_none_is_created(
    site: Asker, express: Express
) -> None:
    await set_in_force(site, "new_computer_group", "Nowhere")

    problem = await refusal_writes_nothing(
        site, express, "deployment_server_unavailable", new_machine(2)
    )

    assert "Nowhere" in problem.message
    assert (await site.schedule(STAFF_0117, MEMORY_TEST)).state == "scheduled"


async def test_an_ambiguous_machine_is_refused(site: Asker, express: Express) -> None:
    express.sql("UPDATE hardware SET uuid = '6F0C2B5E31D44A7C9B520D6E8A1F4C01',"
                " serial_num = '5CG9207XK1', asset_tag = NULL")  # fmt: skip
    express.sql("DELETE FROM nics")

    await refusal_writes_nothing(site, express, "ambiguous_machine", STAFF_0117)


async def test_a_machine_without_any_name_to_get_is_refused(site: Asker, express: Express) -> None:
    nameless = Machine(serial="---/---")

    await refusal_writes_nothing(site, express, "bad_name", nameless)


async def test_one_request_however_often_it_is_sent_is_carried_out_once(
    url: str, name: str, dsn: str, express: Express, site: Asker
) -> None:
    async with running(url, name, scheduler(dsn)):
        for machine in (new_machine(1), STAFF_0117):
            request_id = new_id()

            async def send(of: Machine = machine, id_: str = request_id) -> Outcome:
                return await site.schedule(of, DESKTOP, request_id=id_)

            outcomes = await asyncio.gather(*(send() for _ in range(20)))
            rows = express.tables()
            outcomes += [await send(), await site.status(machine, request_id)]

            assert len(set(map(msgspec.json.encode, outcomes))) == 1
            assert (outcomes[0].state, outcomes[0].replaced) == ("scheduled", 0)
            assert express.tables() == rows
    assert len(express.tables("ii_request")["ii_request"]) == 2
    assert express.scheduled("NEW0000001") == list(DESKTOP_JOBS)
    assert await site.waiting() == []


async def test_a_request_id_with_another_body_is_a_conflict(site: Asker, express: Express) -> None:
    request_id = new_id()
    await site.schedule(STAFF_0117, DESKTOP, "NAME-1", request_id=request_id)
    rows = express.tables()
    later = datetime(2099, 1, 1, tzinfo=UTC)

    for body in (
        site.schedule(STAFF_0117, LAPTOP, "NAME-1", request_id=request_id),
        site.schedule(STAFF_0117, DESKTOP, "NAME-2", request_id=request_id),
        site.schedule(STAFF_0117, DESKTOP, "NAME-1", request_id=request_id, start_at=later),
        site.schedule(new_machine(1), DESKTOP, "NAME-1", request_id=request_id),
    ):
        with refused("request_conflict"):
            await body

    assert express.tables() == rows


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_request_is_known_to_its_machine_alone(site: Asker) -> None:
    request_id = new_id()
    outcome = await site.schedule(STAFF_0117, DESKTOP, request_id=request_id)

    assert await site.status(STAFF_0117, request_id) == outcome
    with refused("unknown_request"):
        await site.status(new_machine(1), request_id)
    with refused("unknown_request"):
        await site.status(STAFF_0117, new_id())


async def test_of_two_machines_that_want_one_name_at_once_one_gets_it(
    url: str, name: str, dsn: str, express: Express, site: Asker
) -> None:
    async def wish(machine: Machine, computer_name: str) -> str:
        try:
            outcome = await site.schedule(machine, MEMORY_TEST, computer_name)
        except Problem as problem:
            return problem.code
        return outcome.problem.code if outcome.problem else outcome.state

    async with running(url, name, scheduler(dsn)):
        for number in range(20):
            ends = await asyncio.gather(
                wish(new_machine(2 * number), f"RACE-{number}"),
                wish(new_machine(2 * number + 1), f"race-{number}"),
            )
            assert sorted(ends) == ["name_taken", "scheduled"]
    names = [row[0] for row in express.sql("SELECT LOWER(name) FROM computer")]
    assert len(names) == len(set(names)) == 25
    assert len(express.tables("event_schedule")["event_schedule"]) == 20


async def test_a_machine_known_by_two_keys_at_once_gets_the_jobs_of_one_request(
    url: str, name: str, dsn: str, express: Express, site: Asker
) -> None:
    by_uuid, by_serial = Machine(uuid=STAFF_0117.uuid), Machine(serial=STAFF_0117.serial)
    async with running(url, name, scheduler(dsn)):
        for _ in range(15):
            outcomes = await asyncio.gather(
                site.schedule(by_uuid, DESKTOP), site.schedule(by_serial, LAPTOP)
            )
            await asyncio.gather(
                site.settled(by_uuid, outcomes[0].request_id),
                site.settled(by_serial, outcomes[1].request_id),
            )
            jobs = [[job.id for job in outcome.jobs] for outcome in outcomes]
            assert express.scheduled("STAFF-0117") in jobs


async def test_a_request_touches_no_other_computer(site: Asker, express: Express) -> None:
    chance = random.Random(20260504)
    machines = [STAFF_0117, *map(new_machine, range(5))]
    for computer in ("STAFF-0117", "STAFF-0118", "CAD-LAB-01"):
        for status in (None, -1, 0):
            express.schedule_row(2000194, computer, status)
    names: dict[int, str] = {0: "STAFF-0117"}

    for turn in range(30):
        number = chance.randrange(len(machines))
        item_id = chance.choice(sorted(ITEMS))
        wanted = chance.choice([None, f"N-{turn}", names.get(number), "STAFF-0118"])
        before = express.tables()
        if wanted == "STAFF-0118":
            with refused("name_taken"):
                await site.schedule(machines[number], item_id, wanted)
            assert express.tables() == before
            continue
        outcome = await site.schedule(machines[number], item_id, wanted)
        after = express.tables()

        assert outcome.computer
        id_ = outcome.computer.id
        names[number] = outcome.computer.name
        assert outcome.computer.name == wanted or wanted is None
        assert [job.id for job in outcome.jobs] == list(ITEMS[item_id])
        for table, column in (("computer", 0), ("hardware", 0), ("nics", 1)):
            others = [row for row in before[table] if row[column] != id_]
            assert others == [row for row in after[table] if row[column] != id_]
        for table in ("event", "event_folder", "computer_group", "ii_lock"):
            assert before[table] == after[table]
        untouched = [row for row in before["event_schedule"] if row[2] != id_ or row[4] is not None]
        fresh = [row for row in after["event_schedule"] if row not in untouched]
        assert sorted(row[1] for row in fresh) == sorted(ITEMS[item_id])
        assert {(row[2], row[4]) for row in fresh} == {(id_, None)}
        assert len(after["event_schedule"]) == len(untouched) + len(fresh)
        assert express.scheduled(names[number]) == list(ITEMS[item_id])
