"""The computers of a large estate, and the machines that they are."""

from collections.abc import Sequence
from typing import Final

from bus.messages import Machine
from express.database import Database, Transaction
from express.schema import create_embedded

_GROUP: Final = 2
"""New Computers, which every database has."""
_PREFIX: Final = "ESTATE"


def known_machine(number: int) -> Machine:
    """The machine that is the computer of this number, from 0 on."""
    return Machine(
        uuid=f"{number:08X}-31D4-4A7C-9B52-0D6E8A2F4417",
        serial=f"ES7GX{number:07}",
        macs=(f"3C:52:82:{number >> 16 & 255:02X}:{number >> 8 & 255:02X}:{number & 255:02X}",),
    )


def spread(count: int, asked: int, turn: int) -> list[int]:
    """``asked`` numbers below ``count``, evenly spread over all of them, other ones each turn."""
    return [(index * count // asked + turn * 7919) % count for index in range(asked)]


async def add_computers(dsn: str, count: int, *, sample: bool = False) -> None:
    """Puts computers into an embedded database, which is made where there is none."""
    database = Database(dsn, create=True, statement_timeout=60)
    try:
        await create_embedded(database, sample=sample)
        await database.transact(lambda tx: _add(tx, count))
    finally:
        await database.close()


def _add(tx: Transaction, count: int) -> None:
    names = [(_GROUP, f"{_PREFIX}{number:06}", 1) for number in range(count)]
    tx.insert("computer", ("group_id", "name", "status"), names)
    ids = _ids(tx)
    machines = [(id_, known_machine(number)) for number, id_ in enumerate(ids)]
    tx.insert(
        "hardware",
        ("computer_id", "serial_num", "uuid"),
        [(id_, machine.serial, machine.uuid) for id_, machine in machines],
    )
    tx.insert(
        "nics",
        ("computer_id", "mac_addr"),
        [(id_, mac) for id_, machine in machines for mac in machine.macs],
    )
    if tx.dialect == "postgres":
        # As PostgreSQL does by itself when its time has come.
        for table in ("computer", "hardware", "nics"):
            tx.execute(f"ANALYZE {table}")


def _ids(tx: Transaction) -> Sequence[int]:
    found = tx.fetch(f"SELECT computer_id FROM computer WHERE name LIKE '{_PREFIX}%' ORDER BY name")
    return [int(row[0]) for row in found]
