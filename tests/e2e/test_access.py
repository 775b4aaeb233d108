"""An operator says who may deploy what, and is told why."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bus import subjects
from bus.access_store import AccessStore
from bus.buckets import prepare
from bus.connection import Connection
from bus.messages import Protection, encode
from bus.option_store import OptionStore
from bus.options import parse
from bus.technicians import Technician, technician_key
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk


@pytest.fixture
async def bare(bus: BusServer, connection: Connection, tmp_path: Path) -> Desk:
    """A desk from which no database can be reached."""
    await prepare(connection.jetstream())
    return Desk(bus.url, connection, tmp_path / "home")


@pytest.fixture
async def desk(bare: Desk, tmp_path: Path) -> Desk:
    """A desk beside the sample job tree."""
    dsn = sqlite_dsn(tmp_path / "express.db")
    database = Database(dsn, create=True)
    await create_embedded(database, sample=True)
    await database.close()
    bare.environment["IMAGEINVOKER_DATABASE"] = dsn
    return bare


async def signed_in(desk: Desk, protection: Protection, name: str, *groups: str) -> None:
    """Somebody whom the site has seen."""
    bucket = await desk.connection.jetstream().key_value(subjects.TECHNICIANS)
    key = subjects.site_key(SITE, technician_key(protection, name))
    await bucket.put(key, encode(Technician(name=name, groups=groups)))


async def option(desk: Desk, name: str, value: str) -> None:
    store = await OptionStore.open(desk.connection, SITE)
    await store.write(name, parse(name, value))


def rules(desk: Desk) -> Any:
    return desk.json("access", "list")


def explained(desk: Desk, user: str, *arguments: str) -> Any:
    return desk.json("access", "explain", user, *arguments)


def test_a_folder_is_told_by_its_path_or_id_and_listed_by_name(desk: Desk) -> None:
    said = desk.done("access", "allow", "group:Help Desk", "user:alice", "Deploy/Staff")
    assert said.splitlines() == [
        "lab: group:Help Desk may deploy folder:2 (Deploy/Staff)",
        "lab: user:alice may deploy folder:2 (Deploy/Staff)",
    ]
    desk.done("access", "deny", "group:Help Desk", "job:2000191")
    desk.done("access", "allow", "user:bob", "/")
    assert rules(desk) == [
        {"who": "group:Help Desk", "what": "folder:2", "effect": "allow", "name": "Deploy/Staff"},
        {
            "who": "group:Help Desk",
            "what": "job:2000191",
            "effect": "deny",
            "name": "Maintenance/Wipe disk (MI)",
        },
        {"who": "user:alice", "what": "folder:2", "effect": "allow", "name": "Deploy/Staff"},
        {"who": "user:bob", "what": "all", "effect": "allow", "name": "everything"},
    ]
    shown = desk.done("access", "list").splitlines()
    assert shown[0].split() == ["WHO", "EFFECT", "WHAT", "NAME"]
    assert shown[1] == "group:Help Desk  allow   folder:2     Deploy/Staff"


def test_the_last_word_on_a_pair_counts_and_each_change_is_told(desk: Desk) -> None:
    desk.done("access", "deny", "group:Staff", "folder:10")
    desk.done("access", "allow", "group:STAFF", "folder:10")
    desk.done("access", "allow", "group:STAFF", "Deploy/Staff/Standard Desktop")
    assert [(rule["who"], rule["effect"]) for rule in rules(desk)] == [("group:STAFF", "allow")]
    desk.done("access", "remove", "group:staff", "folder:10")
    assert rules(desk) == []
    events = desk.audit("--kind", "access_changed")
    assert [event.details for event in events] == [
        {"who": "group:Staff", "what": "folder:10", "effect": "deny"},
        {"who": "group:STAFF", "what": "folder:10", "effect": "allow"},
        {"who": "group:staff", "what": "folder:10", "effect": "removed"},
    ]
    assert all("@" in (event.operator or "") for event in events)


def test_a_rule_that_is_not_there_cannot_be_removed(desk: Desk) -> None:
    done = desk.run("access", "remove", "user:alice", "folder:10")
    assert done.returncode == 1
    assert done.stderr == "There is no rule of user:alice on folder:10.\n"


def test_without_a_database_ids_are_taken_as_they_are_but_paths_are_refused(bare: Desk) -> None:
    done = bare.run("access", "allow", "user:alice", "folder:4711", "--json")
    assert (done.returncode, rules(bare)[0]["name"]) == (0, None)
    assert "folder:4711 is taken as it is" in done.stderr
    assert bare.run("access", "allow", "user:alice", "all").stderr == ""
    path = bare.run("access", "allow", "user:alice", "Deploy/Staff")
    assert path.returncode == 1
    assert "IMAGEINVOKER_DATABASE" in path.stderr
    listed = bare.run("access", "list")
    assert "folder:4711" in listed.stdout
    assert "Names of folders and jobs are not shown" in listed.stderr
    assert bare.run("access", "remove", "user:alice", "folder:4711").returncode == 0


def test_a_database_that_does_not_answer_is_as_good_as_none(bare: Desk, tmp_path: Path) -> None:
    bare.environment["IMAGEINVOKER_DATABASE"] = sqlite_dsn(tmp_path / "not-there.db")
    done = bare.run("access", "allow", "user:alice", "job:1")
    assert done.returncode == 0
    assert "cannot be reached" in done.stderr


def test_what_has_gone_from_the_database_is_listed_as_gone(desk: Desk, tmp_path: Path) -> None:
    desk.done("access", "allow", "user:alice", "job:2000194")
    with closing(sqlite3.connect(tmp_path / "express.db")) as database, database:
        database.execute("DELETE FROM event WHERE event_id = 2000194")
    assert "does not exist any more" in desk.done("access", "list")
    assert rules(desk)[0]["name"] is None
    desk.done("access", "remove", "user:alice", "job:2000194")


async def test_explain_says_for_each_item_which_rule_decides(desk: Desk) -> None:
    await signed_in(desk, "server", "alice", "Staff")
    desk.done("access", "allow", "group:staff", "Deploy")
    desk.done("access", "deny", "user:alice", "job:2000133")
    found = explained(desk, "Alice")
    assert (found["user"], found["protection"], found["known"]) == ("alice", "server", True)
    assert found["groups"] == ["Staff"]
    items = {item["id"]: item for item in found["items"]}
    desktop, finance, memory = items["folder:10"], items["folder:12"], items["job:2000190"]
    assert (desktop["permitted"], desktop["job"]) == (True, None)
    assert [rule["what"] for rule in desktop["rules"]] == ["folder:1"]
    assert (finance["permitted"], finance["job"]) == (
        False,
        "Deploy/Staff/Finance Office/Finance Applications/2. Install payroll client",
    )
    assert finance["rules"][0]["effect"] == "deny"
    assert (memory["permitted"], memory["rules"]) == (False, [])
    told = desk.run("access", "explain", "alice")
    assert told.stderr.startswith("The protection is none, so access rules do not count yet")
    lines = told.stdout.splitlines()
    assert lines[0] == "alice (server), groups: Staff"
    (line,) = (line for line in lines if "Memory test" in line)
    assert line.split() == ["no", "Memory", "test", "Maintenance", "no", "rule"]
    (line,) = (line for line in lines if "Finance Office" in line)
    assert line.startswith("no ")
    assert "deny user:alice job:2000133" in line
    assert "for its job Deploy/Staff/" in line


async def test_explain_knows_administrators_and_groups_that_are_told(desk: Desk) -> None:
    await option(desk, "protection", "domain")
    await signed_in(desk, "domain", "alice", "LAB Deployers")
    await option(desk, "administrators", "LAB Deployers")
    assert all(item["administrator"] for item in explained(desk, "LAB\\alice")["items"])
    desk.done("access", "allow", "group:Helpdesk", "job:2000190")
    unknown = desk.run("access", "explain", "bob", "--group", "helpdesk")
    assert unknown.returncode == 0
    assert "'bob' has never signed in here" in unknown.stderr
    found = explained(desk, "bob", "--group", "helpdesk", "--protection", "domain")
    assert [item["id"] for item in found["items"] if item["permitted"]] == ["job:2000190"]
    assert not any(item["permitted"] for item in explained(desk, "bob")["items"])
    nobody = desk.run("access", "explain", "carol", "--protection", "server")
    assert "There is no account 'carol'" in nobody.stderr
    assert "do not count" not in nobody.stderr


async def test_a_rule_that_cannot_be_read_is_told_of_with_the_cure(desk: Desk) -> None:
    desk.done("access", "allow", "user:alice", "all")
    bucket = await desk.connection.jetstream().key_value(subjects.ACCESS)
    await bucket.put(subjects.site_key(SITE, "junk"), b"{")
    listed = desk.run("access", "list")
    assert listed.returncode == 1
    assert "nats kv del imaging_access lab.junk" in listed.stderr
    why = desk.run("access", "explain", "alice")
    assert "yes" not in why.stdout
    assert "lab.junk" in why.stderr


def test_no_rules_are_told_as_what_they_mean(desk: Desk) -> None:
    done = desk.run("access", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "only administrators see anything" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("allow",), "Say who and what"),
        (("allow", "group:Staff"), "Say who and what"),
        (("allow", "Staff", "all"), "'Staff' is nobody: say user:NAME or group:NAME"),
        (("deny", "user:", "all"), "is nobody"),
        (("deny", "user:al\x1bice", "all"), "is nobody"),
        (("allow", "user:alice", "folder:x"), "'folder:x' is nothing to deploy"),
        (("allow", "user:alice", "17"), "'17' is nothing to deploy"),
        (("allow", "user:alice", ""), "is nothing to deploy"),
        (("allow", "user:alice", "folder:4711"), "There is no folder:4711"),
        (("allow", "user:alice", "job:9999999999999999999"), "There is no job:99999"),
        (("deny", "user:alice", "Deploy/Nowhere"), "no single job folder 'Deploy/Nowhere'"),
        (("remove", "user:alice", "Deploy/Nowhere"), "no single job folder 'Deploy/Nowhere'"),
        (("remove", "user:alice", "job:"), "is nothing to deploy"),
        (("allow", "user:alice", "all", "--database-file", "no-such-file"), "no-such-file"),
        (("explain", " "), "Say the name of an account"),
        (("explain", "alice", "--protection", "hash"), "--protection"),
        (("explain",), "USER"),
    ],
)
async def test_wrong_use_ends_with_status_2_and_a_sentence(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    assert words in desk.refused("access", *arguments)
    kept = await (await AccessStore.open(desk.connection, SITE)).read()
    assert kept.rules == []
