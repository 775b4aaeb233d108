"""Where the access rules of a site are kept."""

import nats.errors
import pytest

from bus import subjects
from bus.access import Rule, make_rule
from bus.access_store import AccessStore, KeptRules
from bus.buckets import prepare
from bus.connection import Connection

STAFF = make_rule("group:Staff", "folder:2", "allow")


@pytest.fixture
async def store(connection: Connection) -> AccessStore:
    await prepare(connection.jetstream())
    return await AccessStore.open(connection, "main")


async def test_rules_are_kept_for_each_site(connection: Connection, store: AccessStore) -> None:
    alice = make_rule("user:alice", "job:7", "deny")
    other = await AccessStore.open(connection, "london")
    assert await store.read() == KeptRules([], [])
    await store.write(STAFF)
    await store.write(alice)
    await other.write(alice)
    assert sorted(rule.who for rule in (await store.read()).rules) == ["group:Staff", "user:alice"]
    assert await store.find("user:alice", "job:7") == alice
    assert await other.read() == KeptRules([alice], [])


async def test_there_is_one_rule_for_each_pair_in_whatever_case(store: AccessStore) -> None:
    denied = Rule(who="group:STAFF", what="folder:2", effect="deny")
    await store.write(STAFF)
    await store.write(denied)
    assert (await store.read()).rules == [denied]
    assert await store.find("group:staff", "folder:2") == denied
    assert await store.find("group:staff", "folder:3") is None
    assert await store.find("user:staff", "folder:2") is None


async def test_a_rule_that_is_removed_is_gone_and_removed_once(store: AccessStore) -> None:
    await store.write(STAFF)
    assert not await store.remove("group:staff", "folder:3")
    assert await store.remove("group:staff", "folder:2")
    assert not await store.remove("group:staff", "folder:2")
    assert await store.read() == KeptRules([], [])


@pytest.mark.parametrize("junk", [b"", b"\xff", b"[]", b'{"who": "user:eve", "effect": "permit"}'])
async def test_while_a_rule_cannot_be_read_none_is_in_force(
    connection: Connection, store: AccessStore, junk: bytes
) -> None:
    await store.write(STAFF)
    bucket = await connection.jetstream().key_value(subjects.ACCESS)
    await bucket.put(subjects.site_key("main", "junk"), junk)
    kept = await store.read()
    assert kept == KeptRules([STAFF], ["junk"])
    assert kept.in_force == []
    await bucket.delete(subjects.site_key("main", "junk"))
    assert (await store.read()).in_force == [STAFF]


async def test_a_bus_that_keeps_no_rules_says_so(connection: Connection) -> None:
    with pytest.raises(nats.errors.Error):
        await AccessStore.open(connection, "main")
