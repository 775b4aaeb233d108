"""Whether every machine got its jobs exactly once: right worlds, and each way to be wrong."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.machines import machine_key
from bus.messages import JobRef, Outcome, ScheduledComputer, encode
from bus.options import Options
from bus.problems import Problem
from cli.storm.journeys import Passage
from cli.storm.ledger import Ledger, Told
from cli.storm.machines import Fleet, RequestIds
from cli.storm.reckoning import (
    MOST_FINDINGS,
    Batch,
    Before,
    Done,
    Reckoner,
    Verdict,
    as_told,
    before,
    jobs_of,
    reckon,
    settled,
)
from express.database import Database
from tests.site import DESKTOP, DESKTOP_JOBS, LAPTOP, LAPTOP_JOBS, MEMORY_TEST, Express

FLEET: Final = Fleet(7, "STORM")
IDS: Final = RequestIds.new()
JOBS: Final = (11, 12, 13)
KINDS: Final = ("lost", "doubled", "unasked", "disordered", "contradicted")


def scheduled(number: int, computer: int, jobs: tuple[int, ...] = JOBS, **of: bool) -> Outcome:
    return Outcome(
        request_id=IDS.of(number),
        state="scheduled",
        computer=ScheduledComputer(id=computer, name=FLEET.name(number), created=True, **of),
        jobs=tuple(JobRef(id=job, name="") for job in jobs),
    )


def rejected(number: int) -> Outcome:
    problem = Problem("unknown_item").body()
    return Outcome(request_id=IDS.of(number), state="rejected", problem=problem)


def note(ledger: Ledger, number: int, told: Told, outcome: Outcome | None = None) -> None:
    passage = Passage(number, FLEET.machine(number), FLEET.name(number), IDS.of(number))
    passage.asked = told != "nothing"
    passage.accepted = told == "accepted"
    passage.outcome = outcome
    ledger.note(passage)


class World:
    """Machines that were told what is so, and a database in which it is so; until it is damaged."""

    def __init__(self, machines: int) -> None:
        self.ledger = Ledger(machines)
        self.done: dict[int, Done] = {}
        self.named: dict[str, list[int]] = defaultdict(list)
        self.jobs: dict[int, list[int]] = {}
        for number in range(1, machines + 1):
            computer = 1000 + number
            note(self.ledger, number, "scheduled", scheduled(number, computer))
            self.done[number] = Done(
                machine_key(FLEET.machine(number)), scheduled(number, computer)
            )
            self.named[FLEET.name(number).lower()].append(computer)
            self.jobs[computer] = list(JOBS)

    def nothing_done(self, number: int) -> None:
        del self.done[number]
        self.jobs.pop(1000 + number, None)
        self.named.pop(FLEET.name(number).lower(), None)

    def only_told(self, number: int, told: Told) -> None:
        note(self.ledger, number, told, rejected(number) if told == "rejected" else None)

    def verdict(self, *, known: bool = False, ordered: bool = True) -> Verdict:
        reckoner = Reckoner(self.ledger, FLEET, JOBS, known=known, ordered=ordered)
        for numbers in self.ledger.batches(4):
            done = {number: self.done[number] for number in numbers if number in self.done}
            reckoner.judge(numbers, Batch(done, self.named, self.jobs))
        return reckoner.findings.verdict(with_database=True)


def all_is_well(world: World, number: int) -> None:
    """Nothing happens to this machine."""


def a_job_is_missing(world: World, number: int) -> None:
    world.jobs[1000 + number].remove(JOBS[1])


def all_jobs_are_missing(world: World, number: int) -> None:
    del world.jobs[1000 + number]


def a_job_is_there_twice(world: World, number: int) -> None:
    world.jobs[1000 + number].append(JOBS[0])


def all_jobs_are_there_twice(world: World, number: int) -> None:
    world.jobs[1000 + number] *= 2


def a_strange_job_instead(world: World, number: int) -> None:
    world.jobs[1000 + number][0] = 99


def another_order(world: World, number: int) -> None:
    world.jobs[1000 + number].reverse()


def a_second_computer(world: World, number: int) -> None:
    world.named[FLEET.name(number).lower()].append(2000 + number)


def a_second_computer_with_jobs(world: World, number: int) -> None:
    a_second_computer(world, number)
    world.jobs[2000 + number] = list(JOBS)


def never_done(world: World, number: int) -> None:
    world.nothing_done(number)


def the_record_is_gone(world: World, number: int) -> None:
    del world.done[number]


def accepted_and_done(world: World, number: int) -> None:
    world.only_told(number, "accepted")


def accepted_and_rejected_later(world: World, number: int) -> None:
    world.only_told(number, "accepted")
    world.nothing_done(number)
    world.done[number] = Done(machine_key(FLEET.machine(number)), rejected(number))


def accepted_and_never_done(world: World, number: int) -> None:
    world.only_told(number, "accepted")
    world.nothing_done(number)


def asked_and_done(world: World, number: int) -> None:
    world.only_told(number, "asked")


def asked_and_never_done(world: World, number: int) -> None:
    world.only_told(number, "asked")
    world.nothing_done(number)


def rejected_and_not_done(world: World, number: int) -> None:
    world.only_told(number, "rejected")
    world.nothing_done(number)


def rejected_and_done(world: World, number: int) -> None:
    world.only_told(number, "rejected")


def never_came_and_done(world: World, number: int) -> None:
    world.only_told(number, "nothing")


def told_another_computer(world: World, number: int) -> None:
    note(world.ledger, number, "scheduled", scheduled(number, 3000 + number))


def done_for_another_machine(world: World, number: int) -> None:
    world.done[number] = Done("f" * 32, world.done[number].outcome)


DAMAGES: Final[dict[Callable[[World, int], None], dict[str, int]]] = {
    all_is_well: {},
    a_job_is_missing: {"lost": 1},
    all_jobs_are_missing: {"lost": len(JOBS)},
    a_job_is_there_twice: {"doubled": 1},
    all_jobs_are_there_twice: {"doubled": len(JOBS)},
    a_strange_job_instead: {"lost": 1, "doubled": 1},
    another_order: {"disordered": 1},
    a_second_computer: {"doubled": 1},
    a_second_computer_with_jobs: {"doubled": 1 + len(JOBS)},
    never_done: {"lost": 1},
    the_record_is_gone: {"lost": 1, "unasked": 1},
    accepted_and_done: {},
    accepted_and_rejected_later: {},
    accepted_and_never_done: {"lost": 1},
    asked_and_done: {},
    asked_and_never_done: {},
    rejected_and_not_done: {},
    rejected_and_done: {"unasked": 1},
    never_came_and_done: {"unasked": 1},
    told_another_computer: {"contradicted": 1},
    done_for_another_machine: {"contradicted": 1},
}


@given(st.lists(st.sampled_from(list(DAMAGES)), min_size=1, max_size=40))
def test_every_damage_is_found_and_counted_once(
    damages: list[Callable[[World, int], None]],
) -> None:
    world = World(len(damages))
    expected: Counter[str] = Counter()
    for number, damage in enumerate(damages, 1):
        damage(world, number)
        expected.update(DAMAGES[damage])
    verdict = world.verdict()
    assert {kind: getattr(verdict, kind) for kind in KINDS} == {
        kind: expected[kind] for kind in KINDS
    }
    assert verdict.well == (not expected.total())
    assert len(verdict.findings) <= MOST_FINDINGS
    assert bool(verdict.findings) == bool(expected.total())


def test_two_machines_on_one_computer_are_doubled() -> None:
    world = World(3)
    world.done[2] = Done(world.done[2].machine, scheduled(2, 1001))
    world.named[FLEET.name(2).lower()] = [1001]
    verdict = world.verdict()
    assert (verdict.doubled, verdict.lost) == (1, 0)


def test_without_ids_of_rows_no_order_is_known() -> None:
    world = World(2)
    another_order(world, 1)
    assert world.verdict(ordered=False).well


def test_known_machines_keep_whichever_names_they_have() -> None:
    world = World(2)
    world.named.clear()
    assert world.verdict(known=True).well


def test_machines_alone_know_what_was_accepted_and_never_ended() -> None:
    world = World(3)
    accepted_and_done(world, 2)
    verdict = as_told(world.ledger)
    assert (verdict.with_database, verdict.lost, verdict.well) == (False, 1, False)
    assert as_told(World(3).ledger).well


def test_machines_alone_know_of_a_shared_computer_and_of_other_jobs() -> None:
    ledger = Ledger(3)
    note(ledger, 1, "scheduled", scheduled(1, 5))
    note(ledger, 2, "scheduled", scheduled(2, 5))
    note(ledger, 3, "scheduled", scheduled(3, 6, (11, 12)))
    verdict = as_told(ledger)
    assert (verdict.doubled, verdict.contradicted) == (1, 1)


def test_a_new_computer_that_had_jobs_was_carried_out_twice() -> None:
    ledger = Ledger(1)
    outcome = msgspec.structs.replace(scheduled(1, 5), replaced=3)
    note(ledger, 1, "scheduled", outcome)
    assert as_told(ledger).contradicted == 1


class Deployed:
    """A database in which machines have their jobs, as schedulers write it."""

    def __init__(self, database: Database, express: Express, then: Before, machines: int) -> None:
        self.database = database
        self.express = express
        self.then = then
        self.ledger = Ledger(machines)

    def deploy(self, number: int) -> None:
        name = FLEET.name(number)
        self.express.sql("INSERT INTO computer (group_id, name) VALUES (2, ?)", name)
        computer = self.express.computer_id(name)
        for job in LAPTOP_JOBS:
            self.express.schedule_row(job, name, None)
        outcome = scheduled(number, computer, LAPTOP_JOBS)
        self.record(number, IDS.of(number), outcome)
        note(self.ledger, number, "scheduled", outcome)

    def record(self, number: int, request_id: str, outcome: Outcome) -> None:
        self.express.sql(
            "INSERT INTO ii_request (request_id, site, machine, digest, state, outcome, item_id,"
            " created_at) VALUES (?, 'main', ?, '', ?, ?, ?, ?)",
            request_id,
            machine_key(FLEET.machine(number)),
            outcome.state,
            encode(outcome).decode(),
            LAPTOP,
            datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 (the database's own clock)
        )

    async def reckon(self) -> Verdict:
        return await reckon(
            self.database, self.ledger, FLEET, IDS, self.then, LAPTOP_JOBS, known=False
        )


@pytest.fixture
async def deployed(database: Database, dsn: str) -> Deployed:
    express = Express(dsn)
    express.schedule_row(DESKTOP_JOBS[0], "STAFF-0117", 0)
    made = Deployed(database, express, await before(database, FLEET, 5), 5)
    for number in (1, 2, 3, 5):
        made.deploy(number)
    return made


async def test_a_right_database_is_found_right(deployed: Deployed) -> None:
    verdict = await deployed.reckon()
    assert verdict == Verdict(with_database=True)
    assert verdict.well


async def test_a_row_that_is_lost_and_one_that_is_doubled_are_found(deployed: Deployed) -> None:
    lost = "DELETE FROM event_schedule WHERE event_id = ? AND computer_id = ?"
    computer = deployed.express.computer_id(FLEET.name(2))
    deployed.express.sql(lost, LAPTOP_JOBS[2], computer)
    deployed.express.schedule_row(LAPTOP_JOBS[0], FLEET.name(3), None)
    verdict = await deployed.reckon()
    assert (verdict.lost, verdict.doubled, verdict.well) == (1, 1, False)
    assert verdict.findings == (
        f"{FLEET.name(2)} lacks jobs {LAPTOP_JOBS[2]}",
        f"{FLEET.name(3)} has jobs too many: {LAPTOP_JOBS[0]}",
    )


async def test_a_request_that_is_gone_a_computer_too_many_and_a_machine_that_never_asked(
    deployed: Deployed,
) -> None:
    sql = deployed.express.sql
    sql("DELETE FROM ii_request WHERE request_id = ?", IDS.of(1))
    sql("INSERT INTO computer (group_id, name) VALUES (2, ?)", FLEET.name(5).lower())
    sql("INSERT INTO computer (group_id, name) VALUES (2, ?)", FLEET.name(4))
    verdict = await deployed.reckon()
    # The first machine's computer has no request any more, the fourth never sent one.
    assert (verdict.lost, verdict.doubled, verdict.unasked) == (1, 1, 2)


async def test_a_request_under_an_id_that_no_machine_sent_is_found(deployed: Deployed) -> None:
    deployed.record(2, RequestIds.new().of(2), rejected(2))
    assert (await deployed.reckon()).unasked == 1


async def test_what_was_cut_off_is_waited_for_until_nothing_more_is_done(
    deployed: Deployed,
) -> None:
    note(deployed.ledger, 4, "accepted")
    settling = asyncio.create_task(settled(deployed.database, deployed.ledger, IDS))
    done, _ = await asyncio.wait({settling}, timeout=0.5)
    assert not done
    deployed.deploy(4)
    await settling
    assert (await deployed.reckon()).well


async def test_jobs_of_an_item_are_read_in_their_order(database: Database) -> None:
    async def jobs(item: str) -> list[int]:
        return await database.transact(lambda tx: jobs_of(tx, Options(), item))

    assert tuple(await jobs(DESKTOP)) == DESKTOP_JOBS
    assert await jobs(MEMORY_TEST) == [2000190]
    assert await jobs("job:2000194") == []
    assert await jobs("folder:999") == []
