"""What is asked of the deployment server about its computers, and done to them."""

from collections.abc import Iterator, Sequence
from typing import Final

from bus.machines import Identity, normal_mac, normal_text, normal_uuid, swap_uuid
from bus.messages import ComputerRef, Machine
from bus.problems import Problem
from express.connection import DatabaseUnavailable
from express.database import MAX_ROWS, Transaction, Value, WriteConflict, markers
from express.dialects import KEYS
from express.matching import Candidate, match, unshared
from express.schema import Layout

_NAMED: Final = (
    "SELECT computer_id, name FROM computer"
    " WHERE group_id IS NOT NULL AND LOWER(name) IN (LOWER(?), LOWER(?), LOWER(?))"
)
_CREATED: Final = "SELECT computer_id, name FROM computer WHERE group_id IS NOT NULL AND name = ?"
_RENAME: Final = "UPDATE computer SET name = ? WHERE computer_id = ?"
_GROUP: Final = "SELECT MIN(group_id) FROM computer_group WHERE LOWER(name) = LOWER(?)"

_COLUMNS: Final = {"uuid": "uuid", "serial": "serial_num", "asset_tag": "asset_tag"}
"""The column that holds each key of an identity."""


def find(tx: Transaction, layout: Layout, identity: Identity) -> ComputerRef | None:
    """The computer that the machine is, None for an unknown machine.

    Raises:
        Problem: ``ambiguous_machine``, or ``bad_machine`` when nothing is left of the identity
            without the addresses that stand at several computers.
    """
    if not identity:
        raise Problem("bad_machine")
    statement, values = candidates_query(layout, identity)
    if not statement:
        return None
    ids = [int(row[0]) for row in tx.fetch(statement, *values)]
    if not ids:
        return None
    candidates = _load(tx, layout, ids)
    if not unshared(identity, candidates):
        raise Problem("bad_machine")
    found = match(identity, candidates)
    return ComputerRef(id=found.id, name=found.name) if found else None


def candidates_query(layout: Layout, identity: Identity) -> tuple[str, list[Value]]:
    """The statement that finds every computer that shares a key with the machine, and its values.

    Both sides are brought to one form, since inventories write these values in many. Empty when
    the database holds none of the machine's keys.
    """
    queries: list[str] = []
    values: list[Value] = []
    if identity.uuid and "uuid" in layout.owners:
        table = layout.owners["uuid"]
        queries.append(f"SELECT computer_id FROM {table} WHERE {KEYS['uuid']} IN (?, ?)")
        values += [identity.uuid, swap_uuid(identity.uuid)]
    for key, text in (("serial_num", identity.serial), ("asset_tag", identity.asset_tag)):
        if text and key in layout.owners:
            table = layout.owners[key]
            queries.append(f"SELECT computer_id FROM {table} WHERE {KEYS[key]} = ?")
            values.append(text.lower())
    if identity.macs and layout.nics:
        marks = markers(len(identity.macs))
        queries.append(f"SELECT computer_id FROM nics WHERE {KEYS['mac_addr']} IN ({marks})")
        values += identity.macs
    return " UNION ".join(queries), values


def details_query(layout: Layout, count: int) -> str:
    """The statement that reads what identifies ``count`` computers, leftovers left out."""
    joined = "hardware" if layout.hardware else "computer"
    uuid, serial, asset_tag = (
        f"{'h' if layout.owners[name] == 'hardware' else 'c'}.{name}"
        if name in layout.owners
        else "NULL"
        for name in _COLUMNS.values()
    )
    return (
        f"SELECT c.computer_id, c.name, CAST({uuid} AS varchar(64)), {serial}, {asset_tag}"
        f" FROM computer c LEFT JOIN {joined} h ON h.computer_id = c.computer_id"
        f" WHERE c.group_id IS NOT NULL AND c.computer_id IN ({markers(count)})"
    )


def _load(tx: Transaction, layout: Layout, ids: Sequence[int]) -> list[Candidate]:
    names: dict[int, str] = {}
    uuids: dict[int, str] = {}
    serials: dict[int, str] = {}
    asset_tags: dict[int, str] = {}
    macs: dict[int, list[str]] = {}
    for batch in _batches(ids):
        for id_, name, uuid, serial, asset_tag in tx.fetch(
            details_query(layout, len(batch)), *batch
        ):
            names[id_] = name or ""
            for store, value in (
                (uuids, normal_uuid(uuid)),
                (serials, normal_text(serial)),
                (asset_tags, normal_text(asset_tag)),
            ):
                if value:
                    store.setdefault(id_, value)
        if layout.nics:
            statement = (
                f"SELECT computer_id, mac_addr FROM nics WHERE computer_id IN"
                f" ({markers(len(batch))})"
            )
            for id_, address in tx.fetch(statement, *batch):
                mac = normal_mac(address)
                if mac:
                    macs.setdefault(id_, []).append(mac)
    return [
        Candidate(
            id=id_,
            name=name,
            identity=Identity(
                uuid=uuids.get(id_),
                serial=serials.get(id_),
                asset_tag=asset_tags.get(id_),
                macs=tuple(macs.get(id_, ())),
            ),
        )
        for id_, name in names.items()
    ]


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), MAX_ROWS):
        yield ids[start : start + MAX_ROWS]


def named(tx: Transaction, name: str) -> list[ComputerRef]:
    """The computers that have this name in any case; leftovers hold no name."""
    # A database may know the cases of ASCII letters only: the other forms of the rest are given.
    rows = tx.fetch(_NAMED, name, name.lower(), name.upper())
    return [
        ComputerRef(id=int(row[0]), name=str(row[1]))
        for row in rows
        # A collation may take more for equal, such as letters with and without accents.
        if str(row[1]).casefold() == name.casefold()
    ]


def create(
    tx: Transaction, layout: Layout, machine: Machine, identity: Identity, name: str, group: int
) -> int:
    """Creates the machine's computer and returns its id.

    The caller holds the lock of the name, and has seen that nobody else has it.

    Raises:
        DatabaseUnavailable: this database does not let computers be created; the text says why.
        WriteConflict: another computer of this name appeared.
    """
    if layout.cannot_create:
        raise DatabaseUnavailable(
            layout.cannot_create,
            "This deployment server does not let new computers be created: "
            f"{layout.cannot_create}.",
        )
    values = _about(layout, machine, identity)
    of_computer = {c: v for c, v in values.items() if layout.owners[c] == "computer"}
    of_hardware = {c: v for c, v in values.items() if layout.owners[c] == "hardware"}
    row: dict[str, Value] = {"name": name, "group_id": group, **of_computer}
    tx.insert("computer", list(row), [list(row.values())])
    ids = [int(id_) for id_, found in tx.fetch(_CREATED, name) if found == name]
    if len(ids) != 1:
        raise WriteConflict(f"{len(ids)} computers are named {name!r}")
    if layout.hardware:
        row = {"computer_id": ids[0], **of_hardware}
        tx.insert("hardware", list(row), [list(row.values())])
    if layout.nics:
        tx.insert(
            "nics",
            ("computer_id", "mac_addr"),
            [(ids[0], mac.upper()) for mac in identity.macs],
        )
    return ids[0]


def _about(layout: Layout, machine: Machine, identity: Identity) -> dict[str, Value]:
    """What is known of the machine, by column, as far as the database has a place for it."""
    uuid = identity.uuid and "-".join(
        identity.uuid[start:end].upper()
        for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    )
    keys = {"uuid": uuid, "serial_num": identity.serial, "asset_tag": identity.asset_tag}
    # A clipped key would match another machine; a clipped description does no harm.
    values: dict[str, Value] = {
        column: text
        for column, text in keys.items()
        if column in layout.owners and text and len(text) <= layout.sizes[column]
    }
    descriptions = {"manuf": machine.manufacturer, "prod_name": machine.model}
    values |= {
        column: text.strip()[: layout.sizes[column]]
        for column, text in descriptions.items()
        if column in layout.owners and text
    }
    return values


def rename(tx: Transaction, computer_id: int, name: str) -> None:
    """Gives a computer another name."""
    tx.execute(_RENAME, name, computer_id)


def group_id(tx: Transaction, name: str) -> int | None:
    """The id of a computer group, None when there is none of this name."""
    found = (tx.fetch(_GROUP, name))[0][0]
    return None if found is None else int(found)
