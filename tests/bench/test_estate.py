"""The computers of a large estate."""

from itertools import pairwise
from pathlib import Path

import pytest

from bench.estate import add_computers, known_machine, spread
from bus.machines import identity, machine_key
from bus.messages import ComputerRef
from express import computers
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import read_layout


async def test_each_known_machine_is_a_computer_of_its_own(tmp_path: Path) -> None:
    dsn = sqlite_dsn(tmp_path / "express.db")
    await add_computers(dsn, 300)
    known = [identity(known_machine(number)) for number in (0, 1, 255, 256, 299, 300)]
    database = Database(dsn)
    try:
        found = await database.transact(lambda tx: computers.find(tx, read_layout(tx), known))
    finally:
        await database.close()
    *there, stranger = found
    names = [each.name for each in there if isinstance(each, ComputerRef)]
    assert names == ["ESTATE000000", "ESTATE000001", "ESTATE000255", "ESTATE000256", "ESTATE000299"]
    assert stranger is None


def test_known_machines_have_different_keys() -> None:
    numbers = [*range(1000), *range(99_000, 100_000)]
    assert len({machine_key(known_machine(number)) for number in numbers}) == len(numbers)


@pytest.mark.parametrize(("count", "asked"), [(100_000, 100), (1_000, 100), (7, 3)])
def test_those_who_ask_are_spread_over_all(count: int, asked: int) -> None:
    numbers = spread(count, asked, 4)
    assert len(set(numbers)) == asked
    ordered = sorted(numbers)
    gaps = [later - former for former, later in pairwise(ordered)]
    assert ordered[0] >= 0
    assert ordered[-1] < count
    assert max(gaps) <= -(-count // asked)


def test_nobody_of_many_asks_twice() -> None:
    asked = [number for turn in range(32) for number in spread(100_000, 100, turn)]
    assert len(set(asked)) == len(asked)
