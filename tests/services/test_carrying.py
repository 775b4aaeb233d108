"""Requests that are carried out together come to what they come to one after the other."""

import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from bus.access import ALL_RIGHTS, Rights
from bus.machines import machine_key
from bus.messages import ComputerRef, Machine, Outcome, Request, ScheduledComputer
from bus.options import DEFAULTS, Options
from bus.problems import Problem
from engine.orders import MOST_JOBS, Order
from engine.protocol import Step
from express.carrying import carry_out
from express.connection import sqlite_dsn
from express.database import Database, Transaction, WriteConflict
from express.layout_cache import LayoutCache
from express.schema import Layout, read_layout
from tests.site import (
    DESKTOP,
    DESKTOP_JOBS,
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Express,
    new_id,
    new_machine,
)

Orders = Sequence[Order[Request]]
Ends = list[Outcome | Exception]
only_sqlite = pytest.mark.parametrize("kind", ["sqlite"])


def order(
    machine: Machine,
    item: str = DESKTOP,
    name: str | None = None,
    *,
    options: Options = DEFAULTS,
    rights: Rights = ALL_RIGHTS,
    start_at: datetime | None = None,
) -> Order[Request]:
    request = Request(
        request_id=new_id(),
        site="lab",
        machine=machine,
        item_id=item,
        accepted_at=datetime.now(UTC),
        digest="0" * 64,
        computer_name=name,
        start_at=start_at,
    )
    return Order(request, options, rights)


@pytest.fixture
def statements() -> Counter[Step]:
    """How many statements, commits and connections the database was asked for."""
    return Counter()


@pytest.fixture
async def database(dsn: str, statements: Counter[Step]) -> AsyncIterator[Database]:
    def observe(step: Step, _seconds: float, _well: bool) -> None:
        statements[step] += 1

    found = Database(dsn, observe=observe)
    yield found
    await found.close()


async def carried_out(database: Database, orders: Orders) -> Ends:
    """What becomes of orders in one transaction."""
    return await database.transact(lambda tx: carry_out(tx, read_layout, "lab", orders))


def code_of(end: object) -> str:
    assert isinstance(end, Problem), end
    return end.code


def computer_of(end: object) -> ScheduledComputer:
    assert isinstance(end, Outcome), end
    assert end.computer is not None
    return end.computer


def recorded(express: Express) -> set[str]:
    return {str(row[0]) for row in express.sql("SELECT request_id FROM ii_request")}


# What is known of each.


async def test_each_of_many_gets_what_was_ordered_and_refusals_write_nothing(
    database: Database, express: Express
) -> None:
    later = datetime(2099, 7, 1, 20, 30, tzinfo=UTC)
    express.schedule_row(2000194, "STAFF-0117", None)
    express.schedule_row(2000194, "STAFF-0118", None)
    orders = [
        order(new_machine(1), LAPTOP, start_at=later),
        order(new_machine(2), name="staff-0118"),
        order(STAFF_0117, DESKTOP, "RENAMED"),
        order(new_machine(3), "job:1"),
        order(new_machine(4), MEMORY_TEST, rights=Rights()),
        order(new_machine(5), MEMORY_TEST, "FRONT-DESK"),
        order(Machine(asset_tag="U-20001", macs=("001b21aabb01",)), MEMORY_TEST),
    ]
    one, two, three, four, five, six, seven = await carried_out(database, orders)
    assert [code_of(each) for each in (two, four, five)] == [
        "name_taken", "unknown_item", "forbidden",
    ]  # fmt: skip
    assert computer_of(one).created
    assert (computer_of(one).name, computer_of(six).name) == ("NEW0000001", "FRONT-DESK")
    assert computer_of(three) == ScheduledComputer(
        id=1, name="RENAMED", created=False, renamed_from="STAFF-0117"
    )
    assert computer_of(seven).name == "LIB-KIOSK-01"
    assert isinstance(one, Outcome)
    assert isinstance(three, Outcome)
    assert (one.replaced, three.replaced) == (0, 1)
    assert express.scheduled("NEW0000001") == list(LAPTOP_JOBS)
    assert express.scheduled("RENAMED") == list(DESKTOP_JOBS)
    assert express.scheduled("FRONT-DESK") == express.scheduled("LIB-KIOSK-01") == [2000190]
    assert express.scheduled("STAFF-0118") == [2000194]
    starts = express.sql("SELECT COUNT(*) FROM event_schedule WHERE start_time > '2090-01-01'")
    assert starts == [(len(LAPTOP_JOBS),)]
    assert recorded(express) == {orders[n].wish.request_id for n in (0, 2, 5, 6)}
    assert express.tables("ii_lock") == {"ii_lock": []}
    # The same again finds all of them done, and touches nothing.
    rows = express.tables()
    again = await carried_out(database, orders)
    assert [again[n] for n in (0, 2, 5, 6)] == [one, three, six, seven]
    assert express.tables() == rows


async def test_nothing_is_read_before_the_machines_are_locked(database: Database) -> None:
    """On SQLite who has read before another wrote can write no more, and would wait in vain."""
    before: list[int] = []

    def layout_of(tx: Transaction) -> Layout:
        before.append(len(tx.steps))
        return read_layout(tx)

    wanted = [order(new_machine(1), LAPTOP)]
    await database.transact(lambda tx: carry_out(tx, layout_of, "lab", wanted))
    lock_and_records = 2
    assert before == [lock_and_records]


async def test_two_machines_that_are_one_computer_are_carried_out_one_after_the_other(
    database: Database, express: Express
) -> None:
    first = order(Machine(uuid=STAFF_0117.uuid), DESKTOP, "BY-UUID")
    second = order(Machine(serial=STAFF_0117.serial), LAPTOP, "BY-SERIAL")
    done, waits = await carried_out(database, [first, second])
    assert computer_of(done).name == "BY-UUID"
    assert isinstance(waits, WriteConflict)
    assert recorded(express) == {first.wish.request_id}
    assert express.scheduled("BY-UUID") == list(DESKTOP_JOBS)
    (end,) = await carried_out(database, [second])
    assert computer_of(end).renamed_from == "BY-UUID"
    assert express.scheduled("BY-SERIAL") == list(LAPTOP_JOBS)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Machine(serial="new0000001"), True),
        (Machine(asset_tag="t-000001", macs=("001b21aabb01",)), True),
        (Machine(uuid="01000000-317a-024c-9d5e-1b6f00c4e2d7", serial="OTHER-1"), True),
        (Machine(serial="OTHER-1", macs=("525400000001",)), False),
    ],
    ids=["serial", "asset tag", "UUID turned round", "address"],
)
async def test_two_machines_that_share_a_key_do_not_get_a_computer_each_at_once(
    database: Database, express: Express, other: Machine, same: bool
) -> None:
    orders = [order(new_machine(1), DESKTOP, "ONE"), order(other, LAPTOP, "TWO")]
    done, waits = await carried_out(database, orders)
    assert computer_of(done).created
    assert isinstance(waits, WriteConflict)
    assert recorded(express) == {orders[0].wish.request_id}
    (end,) = await carried_out(database, orders[1:])
    # Whether it is the first one is decided by all that is known of that by now.
    assert computer_of(end).renamed_from == ("ONE" if same else None)


async def test_of_two_that_want_one_name_the_second_waits_and_then_sees_it_taken(
    database: Database, express: Express
) -> None:
    orders = [
        order(new_machine(1), DESKTOP, "SAME-NAME"),
        order(new_machine(2), DESKTOP, "same-name"),
        order(STAFF_0117, DESKTOP, "Same-Name"),
        order(new_machine(3), DESKTOP, "OTHER-NAME"),
    ]
    first, *waiting, last = await carried_out(database, orders)
    assert (computer_of(first).name, computer_of(last).name) == ("SAME-NAME", "OTHER-NAME")
    assert [type(each) for each in waiting] == [WriteConflict] * 2
    for each in orders[1:3]:
        (end,) = await carried_out(database, [each])
        assert isinstance(end, Problem)
        assert end.details.computers == (ComputerRef(id=computer_of(first).id, name="SAME-NAME"),)
    assert recorded(express) == {orders[0].wish.request_id, orders[3].wish.request_id}
    assert express.scheduled("STAFF-0117") == []


async def test_an_order_that_came_twice_is_carried_out_once(
    database: Database, express: Express
) -> None:
    for twice in (order(new_machine(1)), order(STAFF_0117)):
        first, second = await carried_out(database, [twice, twice])
        assert first == second
        assert express.scheduled(computer_of(first).name) == list(DESKTOP_JOBS)


async def test_new_computers_go_each_into_the_group_of_its_options(
    database: Database, express: Express
) -> None:
    def into(group: str) -> Options:
        return msgspec.structs.replace(DEFAULTS, new_computer_group=group)

    groups = ["New Computers", "staff", "Nowhere", "Teaching Labs", "Staff"]
    orders = [order(new_machine(n), options=into(group)) for n, group in enumerate(groups)]
    ends = await carried_out(database, orders)
    assert code_of(ends[2]) == "deployment_server_unavailable"
    assert "Nowhere" in str(ends[2])
    ids = [computer_of(ends[n]).id for n in (0, 1, 3, 4)]
    found: dict[int, int] = dict(
        express.sql("SELECT computer_id, group_id FROM computer WHERE computer_id > 5")
    )
    assert [found[id_] for id_ in ids] == [2, 3, 5, 3]


async def test_many_cost_hardly_more_statements_than_one(
    database: Database, statements: Counter[Step]
) -> None:
    layouts = LayoutCache()

    async def steps_of(orders: Orders) -> int:
        before = statements["statement"]
        ends = await database.transact(lambda tx: carry_out(tx, layouts.layout, "lab", orders))
        assert all(isinstance(each, Outcome) for each in ends)
        return statements["statement"] - before

    await steps_of([order(new_machine(99))])
    one = await steps_of([order(new_machine(1))])
    many = await steps_of([order(new_machine(number)) for number in range(2, 18)])
    assert many == one


# Databases of which not all is known.


async def test_where_a_computer_would_have_to_be_guessed_known_ones_are_scheduled_alone(
    database: Database, express: Express
) -> None:
    express.sql("DROP TABLE nics")
    express.sql("CREATE TABLE nics (computer_id int, nic_id int NOT NULL, mac_addr varchar(32))")
    new, known = await carried_out(database, [order(new_machine(1)), order(STAFF_0117)])
    assert code_of(new) == "deployment_server_unavailable"
    assert "New computers cannot be created" in str(new)
    assert "nics.nic_id" in str(new)
    assert computer_of(known).id == 1
    assert len(express.tables("computer")["computer"]) == 5


async def test_nothing_is_scheduled_where_a_row_would_have_to_be_guessed(
    database: Database, express: Express
) -> None:
    express.sql("DROP TABLE event_schedule")
    express.sql(
        "CREATE TABLE event_schedule (schedule_id int NOT NULL, event_id int, computer_id int,"
        " start_time varchar(30), status_code int)"
    )
    before = express.tables()
    for end in await carried_out(database, [order(new_machine(1)), order(STAFF_0117)]):
        assert code_of(end) == "deployment_server_unavailable"
        assert "Jobs cannot be scheduled" in str(end)
        assert "event_schedule.schedule_id" in str(end)
    assert express.tables() == before


@only_sqlite
async def test_an_item_of_too_many_jobs_is_refused_alone(
    database: Database, express: Express
) -> None:
    express.sql("INSERT INTO event_folder (folder_id, name) VALUES (900, 'All (MI)')")
    express.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= ?)"
        " INSERT INTO event (event_id, folder_id, name) SELECT i, 900, 'Step' FROM n",
        MOST_JOBS,
    )
    orders = [order(new_machine(1), "folder:900"), order(new_machine(2))]
    ends = await carried_out(database, orders)
    assert code_of(ends[0]) == "bad_request"
    assert computer_of(ends[1]).created


# Against orders that are carried out one after the other.

NAMES = ["STAFF-0118", "staff-0117", "N-1", "n-1", "N-2", "N-3", "-PC"]
ITEMS = [DESKTOP, LAPTOP, MEMORY_TEST, "folder:12", "job:2000191", "folder:20"]
NO_ITEMS = ["job:2000111", "job:9999", "folder:1", "x", "job:9999999999999999999"]
RULES = [
    Rights(),
    Rights(whole=True),
    Rights(whole=True, jobs=frozenset({(2000105, False), (2000190, False)})),
    Rights(folders=frozenset({(5, True), (11, True)})),
    Rights(jobs=frozenset((id_, True) for id_ in range(2000130, 2000134))),
]
OPTIONS = [
    msgspec.structs.replace(DEFAULTS, may_rename=False),
    msgspec.structs.replace(DEFAULTS, root_folder="Deploy"),
    msgspec.structs.replace(DEFAULTS, new_computer_group="Nowhere"),
    msgspec.structs.replace(DEFAULTS, new_computer_group="Staff", naming="L-%ASSETTAG%"),
    msgspec.structs.replace(DEFAULTS, tag="Windows 11"),
]
SEEN = {
    "scheduled", "created", "renamed", "WriteConflict", "done before", "name_taken", "unknown_item",
    "forbidden", "ambiguous_machine", "bad_machine", "bad_name", "deployment_server_unavailable",
}  # fmt: skip


class Chance:
    """Orders as they may come."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._asked: list[Order[Request]] = []
        self._machines = [
            STAFF_0117,
            Machine(
                uuid="6f0c2b5e-31d4-4a7c-9b52-0d6e8a1f4c02",
                serial="5CG9207XK2",
                asset_tag="U-10118",
            ),
            Machine(serial="TWINS-1", asset_tag="AMB-9", macs=("001b21aabb77",)),
            Machine(macs=("001b21aabb77",)),
            Machine(serial="LEFT-1", macs=("001b21aabb78",)),
        ]
        self._batches = 0
        self._last = STAFF_0117

    def orders(self, most: int) -> Orders:
        """Those of different machines, some of which came before."""
        self._batches += 1
        found: dict[str, Order[Request]] = {}
        for _ in range(most):
            if self._asked and self._random.random() < 0.15:
                each = self._random.choice(self._asked)
            else:
                each = self._new()
            found.setdefault(machine_key(each.wish.machine), each)
        self._asked += found.values()
        return list(found.values())

    def _new(self) -> Order[Request]:
        chance = self._random
        # Some that came with the batch before, and some that nobody has seen.
        new = (new_machine(3 * self._batches + number) for number in range(6))
        # Often the same once more, which may be known by another key then.
        others = [*self._machines, *new]
        machine = self._last = self._last if chance.random() < 0.3 else chance.choice(others)
        part = chance.choice(["all", "all", "uuid", "serial", "macs"])
        only = Machine() if part == "all" else Machine(**{part: getattr(machine, part)})
        if part == "all" or not (only.uuid or only.serial or only.macs):
            only = machine
        return order(
            only,
            chance.choice(NO_ITEMS if self._seldom() else ITEMS),
            None if chance.random() < 0.5 else chance.choice(NAMES),
            options=chance.choice(OPTIONS) if self._seldom() else DEFAULTS,
            rights=chance.choice(RULES) if self._seldom() else ALL_RIGHTS,
            start_at=chance.choice([None, datetime(2099, 1, 1, tzinfo=UTC)]),
        )

    def _seldom(self) -> bool:
        return self._random.random() < 0.2


async def all_carried_out(
    database: Database, express: Express, orders: Orders, seen: Counter[str]
) -> dict[str, Outcome | Problem]:
    """What becomes of orders, those that must wait carried out again; in the order they counted.

    A problem is what stands before anything is written. Then those that are known by now come
    before those that get computers: nobody can be taken for a computer that comes later.
    """
    ended: dict[str, Outcome | Problem] = {}
    waiting = orders
    while waiting:
        before = recorded(express)
        ends = await carried_out(database, waiting)
        again: list[Order[Request]] = []
        turns: dict[int, dict[str, Outcome | Problem]] = {0: {}, 1: {}, 2: {}}
        for each, end in zip(waiting, ends, strict=True):
            id_ = each.wish.request_id
            if isinstance(end, WriteConflict):
                seen["WriteConflict"] += 1
                again.append(each)
            elif isinstance(end, Outcome):
                new = id_ not in before
                created, renamed = computer_of(end).created, computer_of(end).renamed_from
                turns[2 if new and created else 1 if new else 0][id_] = end
                seen["scheduled" if new else "done before"] += 1
                seen["created"] += created
                seen["renamed"] += bool(renamed)
                if new:
                    assert rows_of(express, end) == [job.id for job in end.jobs]
            else:
                assert isinstance(end, Problem), end
                turns[0][id_] = end
                seen[end.code] += 1
        # Nothing is written of those that are refused or must wait.
        assert recorded(express) - before == turns[1].keys() | turns[2].keys()
        assert len(again) < len(waiting)
        ended |= turns[0] | turns[1] | turns[2]
        waiting = again
    return ended


def rows_of(express: Express, done: Outcome) -> list[int]:
    assert done.rows is not None
    rows = express.sql(
        "SELECT event_id FROM event_schedule WHERE computer_id = ? AND schedule_id BETWEEN ? AND ?"
        " ORDER BY schedule_id",
        computer_of(done).id,
        *done.rows,
    )
    return [int(row[0]) for row in rows]


class Told:
    """What was told and stands there, where computers are called by the requests that made them."""

    def __init__(self, express: Express) -> None:
        self._express = express
        self._makers: dict[int, str] = {}

    def ends(self, ended: Mapping[str, Outcome | Problem]) -> dict[str, object]:
        for id_, end in ended.items():
            if isinstance(end, Outcome) and computer_of(end).created:
                self._makers[computer_of(end).id] = id_
        return {id_: self._end(end) for id_, end in ended.items()}

    def _end(self, end: Outcome | Problem) -> object:
        if isinstance(end, Problem):
            owners = {(self._label(each.id), each.name) for each in end.details.computers or ()}
            return end.code, end.message, owners
        computer = computer_of(end)
        return (
            self._label(computer.id),
            computer.name,
            computer.created,
            computer.renamed_from,
            end.jobs,
            end.replaced,
            end.start_at,
        )

    def _label(self, computer: int) -> object:
        return self._makers.get(computer, computer)

    def tables(self) -> list[object]:
        """Every row, but for ids and for moments that are now."""
        sql = self._express.sql
        scheduled = sql(
            "SELECT computer_id, event_id, status_code, start_time > '2090-01-01'"
            " FROM event_schedule ORDER BY schedule_id"
        )
        rows: list[object] = [
            sorted(
                ((self._label(row[0]), *row[1:]) for row in sql(f"SELECT {columns} FROM {table}")),
                key=repr,
            )
            for table, columns in (
                ("computer", "computer_id, group_id, name, computer_name, status"),
                ("hardware", "*"),
                ("nics", "computer_id, mac_addr"),
            )
        ]
        rows.append(
            sorted(sql("SELECT request_id, site, machine, digest, state, item_id FROM ii_request"))
        )
        # In the order in which each computer has them.
        rows.append(
            sorted(((self._label(row[0]), *row[1:]) for row in scheduled), key=_by_computer)
        )
        rows += [sql("SELECT * FROM ii_lock"), sql("SELECT * FROM event ORDER BY event_id")]
        return rows


def _by_computer(row: tuple[object, ...]) -> str:
    return repr(row[0])


def populate(express: Express) -> None:
    """Twins, an address at two computers, a leftover, and jobs that are pending or were done."""
    for name, group in (("TWIN-A", 2), ("TWIN-B", 2), ("LEFTOVER", None)):
        express.sql("INSERT INTO computer (name, group_id) VALUES (?, ?)", name, group)
        serial, mac = ("TWINS-1", "001B21AABB77") if group else ("LEFT-1", "001B21AABB78")
        express.sql(
            "INSERT INTO hardware (computer_id, serial_num)"
            " SELECT MAX(computer_id), ? FROM computer",
            serial,
        )
        express.sql(
            "INSERT INTO nics (computer_id, mac_addr) SELECT MAX(computer_id), ? FROM computer", mac
        )
    for status in (None, None, 0, -1):
        express.schedule_row(2000194, "STAFF-0117", status)
        express.schedule_row(2000194, "CAD-LAB-01", status)


@only_sqlite
@pytest.mark.parametrize("seed", range(8))
async def test_together_they_come_to_what_they_come_to_one_after_the_other(
    database: Database, dsn: str, express: Express, tmp_path: Path, seed: int
) -> None:
    chance = Chance(seed)
    populate(express)
    path = tmp_path / "reference.db"
    shutil.copy(tmp_path / "express.db", path)
    assert dsn == sqlite_dsn(tmp_path / "express.db")
    alone = Express(sqlite_dsn(path))
    reference = Database(alone.dsn)
    told, expected = Told(express), Told(alone)
    seen: Counter[str] = Counter()
    try:
        for _ in range(15):
            orders = chance.orders(16)
            by_id = {each.wish.request_id: each for each in orders}
            ended = await all_carried_out(database, express, orders, seen)
            slowly: dict[str, Outcome | Problem] = {}
            for id_ in ended:
                (end,) = await carried_out(reference, [by_id[id_]])
                assert isinstance(end, Outcome | Problem)
                slowly[id_] = end
            assert told.ends(ended) == expected.ends(slowly)
            assert told.tables() == expected.tables()
    finally:
        await reference.close()
    assert set(seen) >= SEEN
