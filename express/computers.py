"""What is asked of the deployment server about its computers, and done to them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from bus.machines import Identity, normal_mac, normal_text, normal_uuid, swap_uuid
from bus.messages import ComputerRef, Machine
from bus.problems import Problem
from engine.matching import Candidate, which
from express.database import MAX_ROWS, Transaction, Value, WriteConflict, markers
from express.dialects import KEYS
from express.schema import Layout

_NAMED: Final = (
    "SELECT computer_id, name FROM computer WHERE group_id IS NOT NULL AND LOWER(name) IN"
)
_CREATED: Final = "SELECT computer_id, name FROM computer WHERE group_id IS NOT NULL AND name IN"
_RENAME: Final = "UPDATE computer SET name = ? WHERE computer_id = ?"
_GROUP: Final = "SELECT MIN(group_id) FROM computer_group WHERE LOWER(name) = LOWER(?)"

_COLUMNS: Final = {"uuid": "uuid", "serial": "serial_num", "asset_tag": "asset_tag"}
"""The column that holds each key of an identity."""


class Newcomer(Struct, frozen=True):
    """A machine that is to get a computer of this name."""

    machine: Machine
    identity: Identity
    name: str


def find(
    tx: Transaction, layout: Layout, identities: Sequence[Identity]
) -> list[ComputerRef | Problem | None]:
    """The computers that machines are, None for an unknown machine.

    A machine's problem is ``ambiguous_machine``, or ``bad_machine`` when nothing is left of its
    identity without the addresses that stand at several computers.
    """
    statement, values = candidates_query(layout, identities)
    ids = [int(row[0]) for row in tx.fetch(statement, *values)] if statement else []
    candidates = _load(tx, layout, ids)
    return [which(identity, candidates) for identity in identities]


def candidates_query(layout: Layout, identities: Sequence[Identity]) -> tuple[str, list[Value]]:
    """The statement that finds every computer that shares a key with a machine, and its values.

    Both sides are brought to one form, since inventories write these values in many. Empty when
    the database holds none of the machines' keys.
    """
    uuids = [uuid for each in identities if each.uuid for uuid in (each.uuid, swap_uuid(each.uuid))]
    serials = [each.serial.lower() for each in identities if each.serial]
    asset_tags = [each.asset_tag.lower() for each in identities if each.asset_tag]
    macs = [mac for each in identities for mac in each.macs]
    queries: list[str] = []
    values: list[Value] = []
    for key, keys in (("uuid", uuids), ("serial_num", serials), ("asset_tag", asset_tags)):
        if keys and key in layout.owners:
            queries.append(_sharing(layout.owners[key], key, keys))
            values += keys
    if macs and layout.nics:
        queries.append(_sharing("nics", "mac_addr", macs))
        values += macs
    return " UNION ".join(queries), values


def _sharing(table: str, key: str, keys: Sequence[str]) -> str:
    return f"SELECT computer_id FROM {table} WHERE {KEYS[key]} IN ({markers(len(keys))})"


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


def named(tx: Transaction, names: Collection[str]) -> dict[str, list[ComputerRef]]:
    """The computers that have these names in any case, by name; leftovers hold no name."""
    # A database may know the cases of ASCII letters only: the other forms of the rest are given.
    forms = [
        form
        for name in names
        for form in ((name,) if name.isascii() else (name, name.lower(), name.upper()))
    ]
    if not forms:
        return {}
    marks = ", ".join(["LOWER(?)"] * len(forms))
    found = [
        ComputerRef(id=int(id_), name=str(name))
        for id_, name in tx.fetch(f"{_NAMED} ({marks})", *forms)
    ]
    # A collation may take more for equal, such as letters with and without accents.
    return {
        name: [each for each in found if each.name.casefold() == name.casefold()] for name in names
    }


def create(
    tx: Transaction, layout: Layout, group: int, newcomers: Sequence[Newcomer]
) -> dict[str, int]:
    """Creates computers in a group; returns their ids by their names, which are all different.

    The caller holds the locks of the names, and has seen that nobody else has them; the layout says
    that computers can be created.

    Raises:
        WriteConflict: another computer of such a name appeared.
    """
    if not newcomers:
        return {}
    about = {each.name: _about(layout, each.machine, each.identity) for each in newcomers}
    _insert(
        tx,
        "computer",
        [
            {"name": name, "group_id": group, **_owned_by("computer", layout, values)}
            for name, values in about.items()
        ],
    )
    ids: dict[str, int] = {}
    for id_, name in tx.fetch(f"{_CREATED} ({markers(len(about))})", *about):
        if name in about:
            if name in ids:
                raise WriteConflict(f"several computers are named {name!r}")
            ids[name] = int(id_)
    if len(ids) != len(about):
        raise WriteConflict("a computer that was created is gone")
    if layout.hardware:
        _insert(
            tx,
            "hardware",
            [
                {"computer_id": ids[name], **_owned_by("hardware", layout, values)}
                for name, values in about.items()
            ],
        )
    if layout.nics:
        rows = [(ids[each.name], mac.upper()) for each in newcomers for mac in each.identity.macs]
        tx.insert("nics", ("computer_id", "mac_addr"), rows)
    return ids


def _owned_by(table: str, layout: Layout, values: Mapping[str, Value]) -> dict[str, Value]:
    return {column: value for column, value in values.items() if layout.owners[column] == table}


def _insert(tx: Transaction, table: str, rows: Sequence[Mapping[str, Value]]) -> None:
    """Inserts rows that need not have the same columns: the rest is left to the database."""
    alike: defaultdict[tuple[str, ...], list[list[Value]]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(list(row.values()))
    for columns, values in alike.items():
        tx.insert(table, columns, values)


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
