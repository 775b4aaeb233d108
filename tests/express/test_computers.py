"""Finding, naming and creating the computer of a machine, on every kind of server."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from bus.machines import identity, swap_uuid
from bus.messages import ComputerRef, Machine, ProblemBody
from bus.problems import Problem
from express.computers import (
    Newcomer,
    candidates_query,
    create,
    find,
    group_id,
    named,
    rename,
)
from express.database import Database, Transaction, WriteConflict, markers
from express.dialects import Dialect
from express.schedules import lock
from express.schema import read_layout

pytestmark = pytest.mark.express

UUID = "A0B1C2D3-E4F5-4678-9ABC-DEF012345678"
SWAPPED = "D3C2B1A0-F5E4-7846-9ABC-DEF012345678"


def add(
    tx: Transaction,
    name: str,
    *,
    group: int | None = 2,
    uuid: str | None = None,
    serial: str | None = None,
    asset_tag: str | None = None,
    macs: Sequence[str] = (),
) -> int:
    """A computer as an inventory may have written it."""
    tx.insert("computer", ("name", "group_id"), [(name, group)])
    rows = tx.fetch("SELECT MAX(computer_id) FROM computer")
    number = int(rows[0][0])
    tx.insert(
        "hardware",
        ("computer_id", "uuid", "serial_num", "asset_tag"),
        [(number, uuid, serial, asset_tag)],
    )
    tx.insert("nics", ("computer_id", "mac_addr"), [(number, mac) for mac in macs])
    return number


def look(tx: Transaction, machine: Machine) -> int | None:
    (found,) = find(tx, read_layout(tx), [identity(machine)])
    if isinstance(found, Problem):
        raise found
    return found.id if found else None


def having(tx: Transaction, name: str) -> list[int]:
    """The computers of a name."""
    return [ref.id for ref in named(tx, [name])[name]]


def create_one(tx: Transaction, machine: Machine, shared: frozenset[str] = frozenset()) -> int:
    newcomer = Newcomer(machine, identity(machine, shared), "PC-1")
    return create(tx, read_layout(tx), 2, [newcomer])["PC-1"]


async def test_a_uuid_is_found_in_any_form(database: Database) -> None:
    bare = UUID.replace("-", "")

    def work(tx: Transaction) -> None:
        for stored in (UUID, UUID.lower(), SWAPPED, bare, f"{{{UUID}}}", f"  {UUID} "):
            number = add(tx, "PC", uuid=stored)
            for asked in (UUID, SWAPPED.lower()):
                assert look(tx, Machine(uuid=asked)) == number
            tx.execute("DELETE FROM hardware WHERE computer_id = ?", number)

    await database.transact(work)


async def test_an_address_is_found_in_any_form(database: Database) -> None:
    def work(tx: Transaction) -> None:
        for stored in ("00:1b:21:aa:bb:cc", "001B21AABBCC", "00-1B-21-AA-BB-CC", "001b.21aa.bbcc"):
            number = add(tx, "PC", macs=["02:00:00:00:00:77", stored])
            assert look(tx, Machine(macs=("00:1B:21:AA:BB:CC",))) == number
            tx.execute("DELETE FROM nics WHERE computer_id = ?", number)

    await database.transact(work)


async def test_serial_number_and_asset_tag_are_found_in_any_case(database: Database) -> None:
    def work(tx: Transaction) -> None:
        one = add(tx, "PC-1", serial="  5cg9 abc ")
        two = add(tx, "PC-2", asset_tag="Inv-0042")
        assert look(tx, Machine(serial="5CG9 ABC")) == one
        assert look(tx, Machine(asset_tag="INV-0042")) == two
        assert look(tx, Machine(serial="INV-0042")) is None

    await database.transact(work)


async def test_an_unknown_machine_has_no_computer(database: Database) -> None:
    machine = Machine(uuid=UUID, serial="X-1", macs=("001b21aabbcc",))
    assert await database.transact(lambda tx: look(tx, machine)) is None


async def test_the_sample_computers_are_found(database: Database) -> None:
    known = identity(Machine(macs=("3c:52:82:a1:b7:01",)))
    (found,) = await database.transact(lambda tx: find(tx, read_layout(tx), [known]))
    assert isinstance(found, ComputerRef)
    assert found.name == "STAFF-0117"


async def test_a_leftover_never_matches_and_shares_no_address(database: Database) -> None:
    mac = "001b21aabbcc"

    def work(tx: Transaction) -> None:
        add(tx, "OLD", group=None, uuid=UUID, serial="X-1", macs=[mac])
        assert look(tx, Machine(uuid=UUID, serial="X-1", macs=(mac,))) is None
        number = add(tx, "NEW", macs=[mac])
        assert look(tx, Machine(macs=(mac,))) == number

    await database.transact(work)


async def test_a_shared_address_alone_identifies_nothing(database: Database) -> None:
    adapter, own = "001b21aabbcc", "001b21aabbdd"

    def work(tx: Transaction) -> None:
        one = add(tx, "ONE", uuid=UUID, macs=[adapter])
        two = add(tx, "TWO", macs=["00:1B:21:AA:BB:CC", own])
        with pytest.raises(Problem) as caught:
            look(tx, Machine(macs=(adapter,)))
        assert caught.value.code == "bad_machine"
        assert look(tx, Machine(uuid=UUID, macs=(adapter,))) == one
        assert look(tx, Machine(macs=(adapter, own))) == two
        assert look(tx, Machine(serial="NEW-1", macs=(adapter,))) is None

    await database.transact(work)


async def test_one_computer_with_an_address_twice_shares_it_with_nobody(
    database: Database,
) -> None:
    def work(tx: Transaction) -> None:
        number = add(tx, "PC", macs=["001b21aabbcc", "00-1B-21-AA-BB-CC"])
        assert look(tx, Machine(macs=("001b21aabbcc",))) == number

    await database.transact(work)


async def test_an_adapter_shared_by_thousands_is_no_trouble(database: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.insert("computer", ("name", "group_id"), [(f"PC-{n}", 2) for n in range(2200)])
        rows = tx.fetch("SELECT computer_id FROM computer WHERE name LIKE 'PC-%'")
        tx.insert("nics", ("computer_id", "mac_addr"), [(r[0], "001B21AABBCC") for r in rows])
        number = add(tx, "MINE", serial="X-1", macs=["001B21AABBCC"])
        assert look(tx, Machine(serial="x-1", macs=("001b21aabbcc",))) == number

    await database.transact(work)


async def test_two_computers_of_one_serial_number_are_ambiguous(database: Database) -> None:
    def work(tx: Transaction) -> None:
        numbers = [add(tx, name, serial="X-1") for name in ("A", "B")]
        with pytest.raises(Problem) as caught:
            look(tx, Machine(serial="x-1"))
        assert caught.value.code == "ambiguous_machine"
        assert caught.value.details.computers == tuple(
            ComputerRef(id=number, name=name) for number, name in zip(numbers, "AB", strict=True)
        )

    await database.transact(work)


async def test_a_machine_that_nothing_identifies_is_refused(database: Database) -> None:
    machine = Machine(serial="None", macs=("ff:ff:ff:ff:ff:ff",))
    with pytest.raises(Problem, match="bad_machine"):
        await database.transact(lambda tx: look(tx, machine))


async def test_what_looks_like_sql_is_a_value_like_any_other(database: Database) -> None:
    text = "x'); DELETE FROM computer; --"

    def work(tx: Transaction) -> None:
        number = add(tx, text, serial=text)
        assert look(tx, Machine(serial=text)) == number
        assert having(tx, text) == [number]

    await database.transact(work)


# Names.


@pytest.fixture(params=["as it is", "any case alike"])
async def names(request: pytest.FixtureRequest, kind: Dialect, database: Database) -> Database:
    """The database once as it is, once with names that its collation compares in any case."""
    if request.param == "as it is" or kind == "mssql":  # SQL Server does so of itself.
        return database

    def work(tx: Transaction) -> None:
        if kind == "sqlite":
            tx.execute("DROP INDEX computer_by_name")
            tx.execute("ALTER TABLE computer RENAME COLUMN name TO was")
            tx.execute("ALTER TABLE computer ADD COLUMN name varchar(64) COLLATE NOCASE")
            tx.execute("UPDATE computer SET name = was")
            tx.execute("ALTER TABLE computer DROP COLUMN was")
        else:
            tx.execute(
                "CREATE COLLATION any_case"
                " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
            tx.execute("ALTER TABLE computer ALTER COLUMN name TYPE varchar(64) COLLATE any_case")

    await database.transact(work)
    return database


async def test_a_name_is_taken_in_any_case(names: Database) -> None:
    def work(tx: Transaction) -> None:
        number = add(tx, "MÜLLER-PC")
        for asked in ("Müller-PC", "MÜLLER-PC", "müller-pc", "mÜller-pc"):
            assert having(tx, asked) == [number]

    await names.transact(work)


async def test_a_name_may_stand_at_several_computers_but_not_at_leftovers(names: Database) -> None:
    def work(tx: Transaction) -> None:
        numbers = {add(tx, name) for name in ("TWIN", "twin")}
        add(tx, "TWIN", group=None)
        add(tx, "TWIN-2")
        assert set(having(tx, "Twin")) == numbers
        assert having(tx, "nobody") == []

    await names.transact(work)


async def test_a_computer_is_renamed(names: Database) -> None:
    def work(tx: Transaction) -> None:
        number = add(tx, "BEFORE")
        rename(tx, number, "1-AFTER")
        assert having(tx, "1-after") == [number]
        assert having(tx, "BEFORE") == []

    await names.transact(work)


async def test_a_group_is_found_by_its_name(names: Database) -> None:
    def work(tx: Transaction) -> None:
        assert group_id(tx, "New Computers") == 2
        assert group_id(tx, "new computers") == 2
        assert group_id(tx, "Nowhere") is None

    await names.transact(work)


# Creating.


async def test_a_created_computer_is_found_again_by_each_of_its_keys(names: Database) -> None:
    machine = Machine(
        uuid=UUID.lower(),
        serial=" 5CG9 ",
        asset_tag="A-1",
        macs=("00:1b:21:aa:bb:cc", "00:1b:21:aa:bb:dd", "00:00:00:00:00:00"),
        manufacturer="ACME " * 200,
        model="Box",
    )
    shared = frozenset({"001b21aabbdd"})

    def create_it(tx: Transaction) -> int:
        lock(tx, ["name:pc-1"])
        return create_one(tx, machine, shared)

    number = await names.transact(create_it)

    def find_it(tx: Transaction) -> None:
        for part in (
            Machine(uuid=SWAPPED),
            Machine(serial="5cg9"),
            Machine(asset_tag="a-1"),
            Machine(macs=("00-1B-21-AA-BB-CC",)),
        ):
            assert look(tx, part) == number
        (stored,) = tx.fetch(
            "SELECT c.name, c.group_id, h.uuid, h.serial_num, h.manuf, h.prod_name"
            " FROM computer c JOIN hardware h ON h.computer_id = c.computer_id"
            " WHERE c.computer_id = ?",
            number,
        )
        macs = tx.fetch("SELECT mac_addr FROM nics WHERE computer_id = ?", number)
        assert tuple(stored[:4]) == ("PC-1", 2, UUID, "5CG9")
        assert stored[4] == ("ACME " * 200)[:255]
        assert stored[5] == "Box"
        assert [tuple(row) for row in macs] == [("001B21AABBCC",)]

    await names.transact(find_it)


async def test_creating_a_name_that_is_there_is_a_conflict_and_leaves_nothing(
    names: Database,
) -> None:
    machine = Machine(serial="X-1")

    def create_twice(tx: Transaction) -> None:
        add(tx, "PC-1")
        create_one(tx, machine)

    with pytest.raises(WriteConflict):
        await names.transact(create_twice)
    assert await names.transact(lambda tx: having(tx, "PC-1")) == []


async def test_a_leftover_of_the_same_name_does_not_stand_in_the_way(names: Database) -> None:
    machine = Machine(serial="X-1")

    def work(tx: Transaction) -> None:
        old = add(tx, "PC-1", group=None, serial="X-1")
        new = create_one(tx, machine)
        assert new != old
        assert look(tx, machine) == new

    await names.transact(work)


async def test_machines_of_which_different_things_are_known_are_created_together(
    database: Database,
) -> None:
    machines = {
        "ALL": Machine(
            uuid=UUID, serial="S-1", asset_tag="A-1", macs=("001b21aabb01",),
            manufacturer="ACME", model="Box",
        ),
        "SERIAL": Machine(serial="S-2"),
        "TAG": Machine(asset_tag="A-3", model="Box"),
        "MACS": Machine(macs=("001b21aabb04", "001b21aabb05")),
        "SERIAL-TOO": Machine(serial="S-6", macs=("001b21aabb06",)),
        "LONG": Machine(serial="S" * 256, asset_tag="A-7"),
    }  # fmt: skip

    def work(tx: Transaction) -> None:
        newcomers = [Newcomer(each, identity(each), name) for name, each in machines.items()]
        assert create(tx, read_layout(tx), 2, []) == {}
        ids = create(tx, read_layout(tx), 2, newcomers)
        stored = {
            str(row[0]): tuple(row[1:])
            for row in tx.fetch(
                "SELECT c.name, h.uuid, h.serial_num, h.asset_tag, h.manuf, h.prod_name"
                " FROM computer c JOIN hardware h ON h.computer_id = c.computer_id"
                f" WHERE c.group_id = 2 AND c.computer_id IN ({markers(len(ids))})",
                *ids.values(),
            )
        }
        assert stored == {
            "ALL": (UUID, "S-1", "A-1", "ACME", "Box"),
            "SERIAL": (None, "S-2", None, None, None),
            "TAG": (None, None, "A-3", None, "Box"),
            "MACS": (None, None, None, None, None),
            "SERIAL-TOO": (None, "S-6", None, None, None),
            # A clipped key would be another machine's.
            "LONG": (None, None, "A-7", None, None),
        }
        for name, machine in machines.items():
            assert look(tx, machine) == ids[name]
            macs = tx.fetch("SELECT mac_addr FROM nics WHERE computer_id = ?", ids[name])
            assert [row[0].lower() for row in macs] == list(identity(machine).macs)

    await database.transact(work)


async def test_where_no_table_is_about_hardware_what_is_known_stands_at_the_computer(
    database: Database,
) -> None:
    machines = [Machine(serial="S-1", asset_tag="A-1"), Machine(serial="S-2"), Machine(uuid=UUID)]

    def work(tx: Transaction) -> None:
        tx.execute("DROP TABLE hardware")
        tx.execute("DROP TABLE nics")
        tx.execute("ALTER TABLE computer ADD serial_num varchar(32)")
        tx.execute("ALTER TABLE computer ADD asset_tag varchar(32)")
        layout = read_layout(tx)
        newcomers = [Newcomer(each, identity(each), f"PC-{n}") for n, each in enumerate(machines)]
        ids = create(tx, layout, 2, newcomers)
        assert [look(tx, each) for each in machines] == [ids["PC-0"], ids["PC-1"], None]

    await database.transact(work)


async def test_a_name_that_is_there_lets_none_of_many_be_created(database: Database) -> None:
    machines = [Machine(serial=f"S-{number}") for number in range(3)]

    def create_all(tx: Transaction) -> None:
        newcomers = [Newcomer(each, identity(each), f"PC-{n}") for n, each in enumerate(machines)]
        add(tx, "PC-1")
        create(tx, read_layout(tx), 2, newcomers)

    with pytest.raises(WriteConflict):
        await database.transact(create_all)
    found = await database.transact(lambda tx: named(tx, ["PC-0", "pc-1", "PC-2"]))
    assert found == {"PC-0": [], "pc-1": [], "PC-2": []}


# Many at once.


async def test_of_many_names_each_has_its_own_owners(names: Database) -> None:
    def work(tx: Transaction) -> None:
        one, two = add(tx, "Ä-1"), add(tx, "b-2")
        found = named(tx, ["ä-1", "B-2", "C-3", "Ä-1"])
        owners = {name: [ref.id for ref in refs] for name, refs in found.items()}
        assert owners == {"ä-1": [one], "B-2": [two], "C-3": [], "Ä-1": [one]}
        assert named(tx, []) == {}

    await names.transact(work)


@pytest.mark.parametrize("seed", range(4))
async def test_many_machines_are_found_together_as_each_of_them_alone(
    database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    uuids = [f"{number:08x}-0000-4000-8000-0123456789ab" for number in range(1, 9)]
    uuids += [swap_uuid(uuids[0].replace("-", ""))]
    serials = [f"S-{number}" for number in range(8)]
    tags = [f"Tag {number}" for number in range(8)]
    cards = [f"001b21aabb{number:02x}" for number in range(8)]

    def any_of(values: Sequence[str]) -> str | None:
        return chance.choice([*values, None, None, None])

    def machine() -> Machine:
        macs = tuple(chance.sample(cards, chance.choice([0, 0, 1, 1, 2, 3])))
        return Machine(
            uuid=any_of(uuids), serial=any_of(serials), asset_tag=any_of(tags), macs=macs
        )

    def work(tx: Transaction) -> None:
        for number in range(12):
            each = machine()
            uuid = each.uuid and chance.choice([each.uuid.upper(), f"{{{each.uuid}}}"])
            serial = each.serial and chance.choice([each.serial.lower(), f" {each.serial} "])
            macs = [chance.choice([mac.upper(), f"{mac[:6]}-{mac[6:]}"]) for mac in each.macs]
            group = chance.choice([2, 2, 2, None])
            add(tx, f"PC-{number}", group=group, uuid=uuid, serial=serial,
                asset_tag=each.asset_tag, macs=macs)  # fmt: skip
        layout = read_layout(tx)
        seen: Counter[str] = Counter()
        for _ in range(25):
            asked = [identity(machine()) for _ in range(chance.randrange(17))]
            alone = [kept(find(tx, layout, [each])) for each in asked]
            assert kept(find(tx, layout, asked)) == [each for (each,) in alone]
            seen.update(type(each).__name__ for (each,) in alone)
            seen.update(each.code for (each,) in alone if isinstance(each, ProblemBody))
        assert {"ComputerRef", "NoneType", "ambiguous_machine", "bad_machine"} <= set(seen)

    await database.transact(work)


def kept(found: Sequence[ComputerRef | Problem | None]) -> list[ComputerRef | ProblemBody | None]:
    """What was found, so that it can be compared."""
    return [each.body() if isinstance(each, Problem) else each for each in found]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_the_embedded_default_looks_computers_up_in_its_indices(database: Database) -> None:
    machine = Machine(uuid=UUID, serial="X-1", asset_tag="A-1", macs=("001b21aabbcc",))

    def steps(tx: Transaction) -> list[str]:
        query, values = candidates_query(read_layout(tx), [identity(machine)] * 16)
        return [str(row[3]) for row in tx.fetch(f"EXPLAIN QUERY PLAN {query}", *values)]

    plan = await database.transact(steps)
    indices = ("hardware_by_uuid", "hardware_by_serial", "hardware_by_asset_tag", "nics_by_address")
    for index in indices:
        assert any(step.startswith("SEARCH") and index in step for step in plan)
    assert not any(step.startswith("SCAN") for step in plan)
