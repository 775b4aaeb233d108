"""What every engine must do: one suite, for each deployment server at hand."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bus.access import ALL_RIGHTS, Rights
from bus.machines import Identity, identity, swap_uuid
from bus.messages import Machine, Outcome, Request, Schedule
from bus.options import DEFAULTS, Options
from bus.problems import Problem
from engine.errors import Conflict, EngineUnavailable
from engine.finding import find
from engine.menu_rows import Wanted
from engine.orders import Order, Possible, Record, outcome_of
from engine.protocol import Engine
from engine.rights import Permissions
from engine.tree import JobTree
from tests.engine.grounds import Ground
from tests.site import new_id, new_machine, refused

ROOT = Path(__file__).parents[2]
TAG = "(MI)"
OFFICE = "folder:10"
OFFICE_JOBS = [101, 103, 102]
"""By the names of their folders and their own, which is not the order of their numbers."""
MEMORY = "job:104"
PC = Machine(
    uuid="6f0c2b5e-31d4-4a7c-9b52-0d6e8a1f4c01", serial="5CG9207XK1", macs=("3c:52:82:a1:b7:01",)
)

Orders = Order[Request]


@pytest.fixture
def jobs(ground: Ground) -> None:
    """A tree with two items and much that is none."""
    ground.add_folder(1, None, "Deploy")
    ground.add_folder(10, 1, "Office (MI)")
    ground.add_folder(11, 10, "Later")
    ground.add_folder(12, None, "Empty (MI)")
    ground.add_job(101, 10, "2. Image")
    ground.add_job(103, 10, "10. Drivers")
    ground.add_job(102, 11, "1. Programs")
    ground.add_job(104, 1, "Memory test (MI)", "Test the memory")
    ground.add_job(105, 1, "Nothing to see")
    ground.add_job(106, None, "Nothing here either")


def request(
    machine: Machine, item: str, name: str | None, start_at: datetime | None, site: str
) -> Request:
    return Request(
        request_id=new_id(),
        site=site,
        machine=machine,
        item_id=item,
        accepted_at=datetime.now(UTC),
        digest="0" * 64,
        computer_name=name,
        start_at=start_at,
    )


def order(
    machine: Machine,
    item: str = OFFICE,
    name: str | None = None,
    *,
    options: Options = DEFAULTS,
    rights: Rights = ALL_RIGHTS,
    start_at: datetime | None = None,
    site: str = "lab",
) -> Orders:
    return Order(request(machine, item, name, start_at, site), options, rights)


def wish(of: Orders) -> Order[Schedule]:
    """The same order, as it is judged before it is taken."""
    asked = Schedule(
        request_id=of.wish.request_id,
        machine=of.wish.machine,
        item_id=of.wish.item_id,
        computer_name=of.wish.computer_name,
        start_at=of.wish.start_at,
    )
    return Order(asked, of.options, of.rights)


async def carried(engine: Engine, wanted: Orders) -> Outcome:
    """What becomes of an order, however often another is in its way: asks as the scheduler does."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await engine.carry_out(wanted)
            except Conflict:
                await asyncio.sleep(0.02)


async def code_of(asking: Awaitable[object]) -> str:
    """The code of the problem, empty for an answer that is none."""
    try:
        await asking
    except Problem as problem:
        return problem.code
    return ""


def another(ground: Ground, site: str = "lab") -> Engine:
    """A copy of the engine, as another service has it."""
    return find(ground.address).open(site)


async def tree(engine: Engine, wanted: Wanted = Wanted(TAG)) -> JobTree:
    rows = await engine.menu_rows(wanted)
    return JobTree(rows.jobs, rows.folders, TAG, None, rows.filled)


# The job tree.


@pytest.mark.usefixtures("jobs")
async def test_the_tree_is_told_so_that_its_items_and_folders_are_known(engine: Engine) -> None:
    found = await tree(engine)
    assert {item.id: item.title for item in found.items()} == {
        OFFICE: "Office",
        MEMORY: "Test the memory",
    }
    assert found.path(11) == "Deploy/Office/Later"
    assert [found.job_count(place) for place in (1, 10, 11, 12)] == [2, 2, 1, 0]


@pytest.mark.usefixtures("jobs")
async def test_jobs_that_rules_name_are_told_too_so_that_rights_are_known(engine: Engine) -> None:
    found = await tree(engine, Wanted(TAG, frozenset({103, 999_999})))
    assert found.job_count(10) == 2
    rights = Rights(whole=True, jobs=frozenset({(103, False)}))
    allowed = Permissions(found, rights)
    assert {item.id for item in found.items() if allowed.permits_item(item)} == {MEMORY}


@pytest.mark.usefixtures("jobs")
async def test_all_jobs_are_told_to_who_asks_for_the_whole_tree(engine: Engine) -> None:
    rows = await engine.menu_rows(Wanted(TAG, whole=True))
    assert {job.id for job in rows.jobs} == {101, 102, 103, 104, 105, 106}
    assert not rows.filled


async def test_a_deployment_server_without_jobs_has_an_empty_tree(engine: Engine) -> None:
    assert (await tree(engine)).items() == []


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    "change",
    [
        lambda ground: ground.rename_job(105, "Seen now (MI)"),
        lambda ground: ground.rename_job(104, "RAM test (MI)"),
        lambda ground: ground.add_job(107, 11, "2. More"),
        lambda ground: ground.remove_job(102),
        lambda ground: ground.add_folder(13, 11, "Deeper"),
    ],
    ids=["a name", "another name", "a job more", "a job less", "a folder more"],
)
async def test_a_change_of_the_tree_is_told_by_its_mark_and_seen_at_once(
    engine: Engine, ground: Ground, change: Callable[[Ground], None]
) -> None:
    before, rows = await engine.mark(), await engine.menu_rows(Wanted(TAG))
    assert await engine.mark() == before
    await asyncio.to_thread(change, ground)
    assert await engine.mark() != before
    assert await engine.menu_rows(Wanted(TAG)) != rows


@pytest.mark.usefixtures("jobs")
async def test_a_mark_that_is_shared_is_the_same_for_every_copy(
    engine: Engine, ground: Ground
) -> None:
    copy = another(ground)
    try:
        assert (await copy.mark() == await engine.mark()) or not engine.shares_marks
        assert await copy.menu_rows(Wanted(TAG)) == await engine.menu_rows(Wanted(TAG))
    finally:
        await copy.close()


# Machines.


async def test_a_machine_is_found_by_its_strongest_key_however_it_is_written(
    engine: Engine, ground: Ground
) -> None:
    id_ = ground.add_computer("STAFF-0117", PC)
    ground.add_computer("STAFF-0118", new_machine(1))
    uuid = identity(PC).uuid or ""
    for known in (
        identity(PC),
        Identity(uuid=swap_uuid(uuid)),
        Identity(serial="5cg9207xk1"),
        Identity(macs=("3c5282a1b701",)),
        # A card that has moved from another machine.
        Identity(uuid=uuid, macs=identity(new_machine(1)).macs),
    ):
        found = await engine.find(known)
        assert found is not None, known
        assert (found.id, found.name) == (id_, "STAFF-0117")


async def test_an_unknown_machine_is_none(engine: Engine, ground: Ground) -> None:
    ground.add_computer("STAFF-0117", PC)
    assert await engine.find(identity(new_machine(1))) is None
    # Its card is known, but it is another machine's by its UUID.
    assert await engine.find(Identity(uuid="0" * 31 + "7", macs=identity(PC).macs)) is None


async def test_of_two_computers_that_match_alike_none_is_guessed(
    engine: Engine, ground: Ground
) -> None:
    ids = [ground.add_computer(name, Machine(serial=PC.serial)) for name in ("ONE", "TWO")]
    with refused("ambiguous_machine") as problems:
        await engine.find(Identity(serial=PC.serial))
    assert [each.id for each in problems[0].details.computers or ()] == ids


async def test_an_address_that_stands_at_two_computers_tells_no_machine(
    engine: Engine, ground: Ground
) -> None:
    for number in (1, 2):
        shared = Machine(serial=f"SERIAL{number}", macs=PC.macs)
        ground.add_computer(f"STAFF-{number}", shared)
    with refused("bad_machine"):
        await engine.find(Identity(macs=identity(PC).macs))


async def test_many_machines_are_found_at_once_each_its_own(engine: Engine, ground: Ground) -> None:
    ids = [ground.add_computer(f"PC-{number}", new_machine(number)) for number in range(20)]
    machines = [identity(new_machine(number)) for number in range(40)]
    found = await asyncio.gather(*map(engine.find, machines))
    assert [each and each.id for each in found] == ids + [None] * 20


# Judging.


@pytest.mark.usefixtures("jobs")
async def test_a_wish_that_can_be_carried_out_is_told_with_its_title_and_nothing_is_written(
    engine: Engine, ground: Ground
) -> None:
    wanted = wish(order(PC, MEMORY))
    assert await engine.judge(wanted) == Possible("Test the memory")
    assert ground.names() == {}
    assert await engine.record(wanted.wish.request_id) is None


@pytest.mark.usefixtures("jobs")
async def test_each_reason_to_refuse_a_wish_is_told_by_its_code_and_writes_nothing(
    engine: Engine, ground: Ground
) -> None:
    known = ground.add_computer("STAFF-0117", PC)
    ground.add_computer("STAFF-0118", new_machine(1))
    ground.add_computer("TWIN-1", Machine(serial="TWINS-1"))
    ground.add_computer("TWIN-2", Machine(serial="TWINS-1"))
    before = ground.names()
    fixed = Options(may_rename=False)
    inside = Options(root_folder="Deploy/Office")
    refusals = {
        "unknown_item": [
            *(order(PC, item) for item in ("job:999", "job:105", "folder:12", "rubbish")),
            order(PC, MEMORY, options=inside),
        ],
        "forbidden": [
            order(PC, MEMORY, rights=Rights()), order(PC, MEMORY, "NEW-NAME", options=fixed),
            order(PC, OFFICE, rights=Rights(whole=True, jobs=frozenset({(103, False)}))),
        ],
        "bad_name": [order(PC, MEMORY, "-"), order(new_machine(2), MEMORY, "N" * 16)],
        "name_taken": [
            order(PC, MEMORY, "staff-0118"), order(new_machine(2), MEMORY, "STAFF-0117"),
        ],
        "ambiguous_machine": [order(Machine(serial="TWINS-1"), MEMORY)],
    }  # fmt: skip
    for code, orders in refusals.items():
        for each in orders:
            assert await code_of(engine.judge(wish(each))) == code
            assert await code_of(carried(engine, each)) == code
            assert await engine.record(each.wish.request_id) is None
    assert ground.names() == before
    assert ground.pending(known) == []


# Carrying out.


@pytest.mark.usefixtures("jobs")
async def test_an_unknown_machine_gets_a_computer_and_its_jobs_in_order(
    engine: Engine, ground: Ground
) -> None:
    wanted = order(PC, OFFICE, "FRONT-DESK")
    outcome = await carried(engine, wanted)
    assert (outcome.request_id, outcome.state) == (wanted.wish.request_id, "scheduled")
    assert outcome.computer is not None
    assert (outcome.computer.name, outcome.computer.created) == ("FRONT-DESK", True)
    assert outcome.computer.renamed_from is None
    assert [job.id for job in outcome.jobs] == OFFICE_JOBS
    assert [job.name for job in outcome.jobs] == ["2. Image", "10. Drivers", "1. Programs"]
    assert outcome.replaced == 0
    assert ground.names() == {outcome.computer.id: "FRONT-DESK"}
    assert ground.pending(outcome.computer.id) == OFFICE_JOBS
    assert ground.starts_in(outcome.computer.id) == {timedelta(0)}
    found = await engine.find(identity(PC))
    assert found is not None
    assert found.id == outcome.computer.id


@pytest.mark.usefixtures("jobs")
async def test_a_name_that_is_not_asked_for_comes_from_the_rule(
    engine: Engine, ground: Ground
) -> None:
    rule = Options(naming="%SITE%-%SERIAL%", name_max_length=30)
    outcome = await carried(engine, order(PC, options=rule))
    assert outcome.computer is not None
    assert outcome.computer.name == "lab-5CG9207XK1"


@pytest.mark.usefixtures("jobs")
async def test_a_known_computer_is_renamed_and_its_pending_jobs_alone_are_replaced(
    engine: Engine, ground: Ground
) -> None:
    own = ground.add_computer("STAFF-0117", PC)
    other = ground.add_computer("STAFF-0118", new_machine(1))
    for computer in (own, other):
        for job, status in ((105, None), (106, None), (104, -1), (104, 0)):
            ground.add_row(computer, job, status)
    outcome = await carried(engine, order(PC, OFFICE, "RENAMED"))
    assert outcome.computer is not None
    assert (outcome.computer.id, outcome.computer.created) == (own, False)
    assert outcome.computer.renamed_from == "STAFF-0117"
    assert outcome.replaced == 2
    assert ground.names() == {own: "RENAMED", other: "STAFF-0118"}
    assert ground.pending(own) == OFFICE_JOBS
    assert ground.pending(other) == [105, 106]
    statuses = [row.status for row in await engine.rows({own}, 0)]
    # What has begun stays, and the new rows come after all others.
    assert statuses == [-1, 0, None, None, None]


@pytest.mark.usefixtures("jobs")
async def test_jobs_start_when_it_was_asked_for(engine: Engine, ground: Ground) -> None:
    later = datetime.now(UTC) + timedelta(hours=30)
    outcome = await carried(engine, order(PC, start_at=later))
    assert outcome.start_at == later
    assert outcome.computer is not None
    assert ground.starts_in(outcome.computer.id) == {timedelta(hours=30)}


@pytest.mark.usefixtures("jobs")
async def test_a_request_is_recorded_as_it_was_carried_out(engine: Engine) -> None:
    wanted = order(PC)
    began = datetime.now(UTC).replace(microsecond=0)
    outcome = await carried(engine, wanted)
    record = await engine.record(wanted.wish.request_id)
    assert record is not None
    assert outcome_of(record) == outcome
    assert (record.site, record.machine, record.state) == ("lab", identity(PC).uuid, "scheduled")
    assert (record.digest, record.item_id) == (wanted.wish.digest, OFFICE)
    assert began <= record.created_at <= datetime.now(UTC)
    assert await engine.judge(wish(wanted)) == record
    assert await engine.record(new_id()) is None


@pytest.mark.usefixtures("jobs")
async def test_a_request_that_comes_again_is_done_once_whatever_has_changed_meanwhile(
    engine: Engine, ground: Ground
) -> None:
    wanted = order(PC, MEMORY)
    outcome = await carried(engine, wanted)
    assert outcome.computer is not None
    ground.rename_job(104, "No item any more")
    ground.add_row(outcome.computer.id, 105, None)
    again = await carried(engine, Order(wanted.wish, wanted.options, Rights()))
    assert again == outcome
    assert ground.pending(outcome.computer.id) == [104, 105]


@pytest.mark.usefixtures("jobs")
async def test_a_request_that_two_copies_carry_out_at_once_is_done_once(
    engine: Engine, ground: Ground
) -> None:
    copy = another(ground)
    wanted = order(PC)
    try:
        outcomes = await asyncio.gather(
            *(carried(each, wanted) for each in (engine, copy) for _ in range(3))
        )
    finally:
        await copy.close()
    assert all(each == outcomes[0] for each in outcomes)
    assert outcomes[0].computer is not None
    assert list(ground.names()) == [outcomes[0].computer.id]
    assert ground.pending(outcomes[0].computer.id) == OFFICE_JOBS


@pytest.mark.usefixtures("jobs")
async def test_many_orders_at_once_come_each_to_its_own_end(engine: Engine, ground: Ground) -> None:
    taken = ground.add_computer("TAKEN", new_machine(999))
    good = [order(new_machine(number)) for number in range(25)]
    bad = [order(new_machine(100 + number), name="TAKEN") for number in range(5)]
    orders = [each for pair in zip(good[::5], bad, strict=True) for each in pair] + [
        each for number, each in enumerate(good) if number % 5
    ]

    async def end(each: Orders) -> Outcome | Problem:
        try:
            return await carried(engine, each)
        except Problem as problem:
            return problem

    ends = dict(zip((each.wish.request_id for each in orders), await asyncio.gather(
        *map(end, orders)), strict=True))  # fmt: skip
    for each in bad:
        problem = ends[each.wish.request_id]
        assert isinstance(problem, Problem)
        assert problem.code == "name_taken"
        assert [owner.id for owner in problem.details.computers or ()] == [taken]
    computers = []
    for each in good:
        outcome = ends[each.wish.request_id]
        assert isinstance(outcome, Outcome)
        assert outcome.computer is not None
        assert ground.pending(outcome.computer.id) == OFFICE_JOBS
        computers.append(outcome.computer.id)
    assert set(ground.names()) == {taken, *computers}
    assert len(set(computers)) == len(good)


@pytest.mark.usefixtures("jobs")
async def test_of_machines_that_want_one_name_at_once_one_gets_it(
    engine: Engine, ground: Ground
) -> None:
    copy = another(ground)
    wanted = [order(new_machine(number), MEMORY, "SAME-NAME") for number in range(8)]
    try:
        codes = await asyncio.gather(
            *(
                code_of(carried(each, one))
                for each, one in zip([engine, copy] * 4, wanted, strict=True)
            )
        )
    finally:
        await copy.close()
    assert sorted(codes) == [""] + ["name_taken"] * 7
    assert list(ground.names().values()) == ["SAME-NAME"]


@pytest.mark.usefixtures("jobs")
async def test_who_gives_up_leaves_an_order_that_is_done_wholly_or_not_at_all(
    engine: Engine, ground: Ground
) -> None:
    wanted = order(PC)
    with ground.busy(PC):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await engine.carry_out(wanted)
        assert ground.names() == {}
    outcome = await carried(engine, wanted)
    assert outcome.computer is not None
    assert list(ground.names()) == [outcome.computer.id]
    assert ground.pending(outcome.computer.id) == OFFICE_JOBS


@pytest.mark.usefixtures("jobs")
async def test_nobody_sees_an_order_that_is_done_in_part(engine: Engine, ground: Ground) -> None:
    whole: set[int] = set()

    def look() -> None:
        for computer in ground.names().keys() - whole:
            assert ground.pending(computer) == OFFICE_JOBS
            whole.add(computer)

    async def carry(numbers: range) -> None:
        for number in numbers:
            await carried(engine, order(new_machine(number)))

    carrying = asyncio.gather(*(carry(range(start, 60, 4)) for start in range(4)))
    try:
        while not carrying.done():
            await asyncio.to_thread(look)
    finally:
        await carrying
    await asyncio.to_thread(look)
    assert len(whole) == 60


@pytest.mark.usefixtures("jobs")
async def test_of_who_is_killed_every_order_is_done_wholly_or_not_at_all(
    engine: Engine, ground: Ground
) -> None:
    began = datetime.now(UTC)
    told: list[str] = []
    for first in (1_000, 2_000, 3_000):
        command = [sys.executable, "-m", "tests.engine.killed", ground.address, str(first)]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                told += [(await process.stdout.readline()).decode().strip() for _ in range(12)]
        finally:
            process.kill()
            left = await process.stdout.read()
            await process.wait()
        # The last line may have been cut off.
        told += [line.decode() for line in left.splitlines(keepends=True) if line.endswith(b"\n")]
    done = {each.request_id: each.computer_id for each in await engine.scheduled(began)}
    assert done.keys() >= {each.strip() for each in told}
    assert sorted(done.values()) == sorted(ground.names())
    assert all(ground.pending(computer) == OFFICE_JOBS for computer in ground.names())
    assert (await carried(engine, order(PC))).state == "scheduled"


# Rejected requests, and old ones.


@pytest.mark.usefixtures("jobs")
async def test_a_request_that_was_rejected_stays_so(engine: Engine, ground: Ground) -> None:
    wanted = order(PC)
    rejected = await engine.reject(wanted.wish, Problem("name_taken"))
    assert rejected.state == "rejected"
    assert rejected.problem is not None
    assert rejected.problem.code == "name_taken"
    record = await engine.record(wanted.wish.request_id)
    assert record is not None
    assert (record.state, outcome_of(record)) == ("rejected", rejected)
    assert await carried(engine, wanted) == rejected
    assert await engine.reject(wanted.wish, Problem("forbidden")) == rejected
    assert isinstance(await engine.judge(wish(wanted)), Record)
    assert ground.names() == {}


@pytest.mark.usefixtures("jobs")
async def test_a_request_that_was_carried_out_is_not_rejected_any_more(engine: Engine) -> None:
    wanted = order(PC)
    outcome = await carried(engine, wanted)
    assert await engine.reject(wanted.wish, Problem("internal_error")) == outcome


@pytest.mark.usefixtures("jobs")
async def test_only_the_old_records_of_the_own_site_are_forgotten(
    engine: Engine, ground: Ground
) -> None:
    ours, theirs = order(PC), order(new_machine(1), site="paris")
    paris = another(ground, "paris")
    try:
        await carried(engine, ours)
        await carried(paris, theirs)
        await engine.forget(datetime.now(UTC) - timedelta(days=1))
        assert await engine.record(ours.wish.request_id)
        await engine.forget(datetime.now(UTC) + timedelta(days=1))
        assert await engine.record(ours.wish.request_id) is None
        assert await paris.record(theirs.wish.request_id)
    finally:
        await paris.close()


# Progress.


@pytest.mark.usefixtures("jobs")
async def test_what_becomes_of_a_requests_jobs_is_told_row_by_row(
    engine: Engine, ground: Ground
) -> None:
    outcome = await carried(engine, order(PC))
    other = await carried(engine, order(new_machine(1)))
    assert outcome.computer is not None
    assert outcome.rows is not None
    assert other.rows is not None
    computer, (first, last) = outcome.computer.id, outcome.rows
    assert last < other.rows[0]
    seen = []
    for change in (None, (0, -1), (0, 0), (1, 7)):
        if change:
            ground.set_status(first + change[0], change[1])
        rows = await engine.rows({computer}, first)
        assert [(row.computer_id, row.job.id) for row in rows] == [
            (computer, job) for job in OFFICE_JOBS
        ]
        assert [row.id for row in rows][::2] == [first, last]
        seen.append([row.status for row in rows])
    assert seen == [[None, None, None], [-1, None, None], [0, None, None], [0, 7, None]]
    assert rows[0].job.name == "2. Image"
    assert await engine.rows({computer}, last + 1) == []
    ground.remove_row(last)
    assert len(await engine.rows({computer}, first)) == 2


@pytest.mark.usefixtures("jobs")
async def test_how_rows_stand_is_another_thing_exactly_when_one_has_changed(
    engine: Engine, ground: Ground
) -> None:
    one, two = [await carried(engine, order(new_machine(number))) for number in (1, 2)]
    assert one.computer is not None
    assert two.computer is not None
    assert one.rows is not None
    assert two.rows is not None
    computers, first = [one.computer.id, two.computer.id], one.rows[0]
    changes: list[Callable[[], None]] = [
        lambda: ground.set_status(first, -1),
        lambda: ground.set_status(first, 0),
        lambda: ground.set_status(first + 1, 3),
        lambda: ground.remove_row(first + 2),
    ]
    ranges = [one.rows, two.rows]
    before, by_computer = await engine.ranges(ranges), await engine.standings(computers, first)
    for change in changes:
        assert await engine.ranges(ranges) == before
        assert await engine.standings(computers, first) == by_computer
        change()
        after, now = await engine.ranges(ranges), await engine.standings(computers, first)
        assert (after[0] != before[0], after[1]) == (True, before[1])
        assert now[computers[0]] != by_computer[computers[0]]
        assert now[computers[1]] == by_computer[computers[1]]
        before, by_computer = after, now
    assert await engine.standings([computers[0]], two.rows[1] + 1) == {}


@pytest.mark.usefixtures("jobs")
async def test_which_rows_later_requests_got_is_told(engine: Engine) -> None:
    began = datetime.now(UTC)
    first = await carried(engine, order(PC))
    second = await carried(engine, order(PC, MEMORY))
    await engine.reject(order(PC).wish, Problem("forbidden"))
    assert first.computer is not None
    assert first.rows is not None
    assert second.rows is not None
    told = {each.request_id: each for each in await engine.scheduled(began)}
    assert set(told) == {first.request_id, second.request_id}
    assert {each.computer_id for each in told.values()} == {first.computer.id}
    assert told[first.request_id].rows == first.rows
    assert told[second.request_id].rows == second.rows
    assert first.rows[1] < second.rows[0]
    assert await engine.scheduled(datetime.now(UTC) + timedelta(hours=1)) == []


# A deployment server that is away, and the end.


def everything(engine: Engine) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Each question that there is, by its name."""
    return {
        "mark": engine.mark,
        "menu_rows": lambda: engine.menu_rows(Wanted(TAG)),
        "find": lambda: engine.find(identity(PC)),
        "judge": lambda: engine.judge(wish(order(PC))),
        "carry_out": lambda: engine.carry_out(order(PC)),
        "reject": lambda: engine.reject(order(PC).wish, Problem("forbidden")),
        "record": lambda: engine.record(new_id()),
        "forget": lambda: engine.forget(datetime.now(UTC)),
        "ranges": lambda: engine.ranges([(1, 2)]),
        "standings": lambda: engine.standings({1}, 1),
        "rows": lambda: engine.rows({1}, 1),
        "scheduled": lambda: engine.scheduled(datetime.now(UTC)),
        "sign_of_life": engine.sign_of_life,
    }


@pytest.mark.usefixtures("jobs")
async def test_while_the_deployment_server_is_away_all_say_so_and_then_all_answer(
    ground: Ground,
) -> None:
    steps: list[bool] = []
    with ground.away():
        engine = find(ground.address).open("lab", lambda _step, _took, well: steps.append(well))
        try:
            for name, question in everything(engine).items():
                with pytest.raises(EngineUnavailable) as caught:
                    await question()
                assert caught.value.code == "deployment_server_unavailable", name
                assert caught.value.reason, name
                assert ground.address not in str(caught.value), name
        except BaseException:
            await engine.close()
            raise
    assert not all(steps)
    try:
        await engine.sign_of_life()
        assert steps[-1]
        assert (await carried(engine, order(PC))).state == "scheduled"
    finally:
        await engine.close()


@pytest.mark.usefixtures("jobs")
async def test_a_closed_engine_says_that_it_is_unavailable(ground: Ground) -> None:
    engine = another(ground)
    await engine.sign_of_life()
    await engine.close()
    await engine.close()
    for question in everything(engine).values():
        with pytest.raises(EngineUnavailable):
            await question()
    assert ground.names() == {}


@pytest.mark.usefixtures("jobs")
async def test_closing_breaks_off_what_is_under_way_wholly(ground: Ground) -> None:
    engine, wanted = another(ground), order(PC)
    with ground.busy(PC):
        task = asyncio.create_task(engine.carry_out(wanted))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(task)
        async with asyncio.timeout(10):
            await engine.close()
        with pytest.raises(EngineUnavailable):
            await task
    copy = another(ground)
    try:
        outcome = await carried(copy, wanted)
    finally:
        await copy.close()
    assert outcome.computer is not None
    assert list(ground.names()) == [outcome.computer.id]
    assert ground.pending(outcome.computer.id) == OFFICE_JOBS
