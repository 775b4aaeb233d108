"""The document of the wire contract says what each kind of event tells: a real site is asked."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from bus.events import Event, Kind
from bus.messages import Request
from bus.problems import Problem
from bus.request_store import RequestStore
from tests.e2e.e2e_site import Site
from tests.guarded import RIGHT, WRONG, Guarded
from tests.site import (
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Express,
    asker,
    eventually,
    new_id,
    new_machine,
    refused,
)

CONTRACT = Path(__file__).parents[2] / "docs" / "wire-contract.md"
ELSEWHERE = {"connection_refused"}
"""Told of only where the bus trusts nobody: `tests/auth/test_callout_entry.py`."""
_ROW = re.compile(r"\| (?P<kinds>`[a-z_]+`(?:, `[a-z_]+`)*) \| (?P<details>.*?) ?\|")


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """By kind, the details that every event has and those that some have."""
    _, _, section = CONTRACT.read_text().partition("### What an event tells\n")
    found = {}
    for row in filter(None, map(_ROW.fullmatch, section.splitlines())):
        always, _, sometimes = row["details"].partition("sometimes")
        for kind in names(row["kinds"]):
            if kind in get_args(Kind):
                found[kind] = (names(always), names(sometimes))
    return found


def names(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_kind_of_event_is_documented() -> None:
    assert documented().keys() == set(get_args(Kind))


async def test_each_kind_of_event_tells_what_is_documented(site: Site) -> None:
    ready = site.ready
    async with asker(ready.nats_url, ready.site) as client:
        people = Guarded(client.connection, ready.site)
        await somebody_deploys(people, Express(ready.database))
        await a_request_is_rejected(people, site)
        await somebody_errs_at_the_door(people, site)
        events = await people.events()
    told = {event.kind for event in events}
    assert told == set(get_args(Kind)) - ELSEWHERE
    for event in events:
        always, sometimes = documented()[event.kind]
        assert always <= event.details.keys() <= always | sometimes, event


async def somebody_deploys(people: Guarded, express: Express) -> None:
    machine, visit = new_machine(1), new_id()
    await people.welcome(machine, visit)
    await people.show(machine, visit=visit)
    with refused("unknown_item"):
        await people.schedule(machine, "job:1")
    await people.schedule(machine, MEMORY_TEST)
    await people.schedule(machine, LAPTOP, "RENAMED-1")
    await all_told(people, "jobs_scheduled", 2)
    express.sql("UPDATE event_schedule SET status_code = -1 WHERE event_id = ?", LAPTOP_JOBS[0])
    await all_told(people, "job_started")
    express.sql("UPDATE event_schedule SET status_code = 0 WHERE event_id <> ?", LAPTOP_JOBS[-1])
    express.sql("UPDATE event_schedule SET status_code = 1 WHERE event_id = ?", LAPTOP_JOBS[-1])
    await all_told(people, "deployment_finished")


async def all_told(people: Guarded, kind: Kind, count: int = 1) -> list[Event]:
    def enough(events: Collection[Event]) -> bool:
        return len(events) >= count

    return await eventually(lambda: people.events(kind), enough, 30)


async def a_request_is_rejected(people: Guarded, site: Site) -> None:
    asked = Request(
        request_id=new_id(),
        site=people.site,
        machine=new_machine(2),
        item_id="job:1",
        accepted_at=datetime.now(UTC),
        digest="",
    )
    await RequestStore(people.connection, people.site).put(asked)
    await all_told(people, "request_rejected")
    site.run("requests", "replay", asked.request_id)


async def somebody_errs_at_the_door(people: Guarded, site: Site) -> None:
    added = site.run("account", "add", "alice", typed=f"{RIGHT}\n")
    assert added.returncode == 0, added.stderr
    assert site.run("access", "allow", "user:alice", MEMORY_TEST).returncode == 0
    assert site.run("options", "set", "protection", "server").returncode == 0
    await eventually(lambda: fails(people), lambda code: code == "login_failed")
    with refused("session_expired", "login_required"):
        await people.show(token="junk")
    await eventually(lambda: fails(people), lambda code: code == "locked_out")
    (locked, *_) = await people.events("login_locked")
    unlocked = site.run("account", "unlock", "--machine", locked.machine)
    assert unlocked.returncode == 0, unlocked.stderr
    await people.enter("alice")


async def fails(people: Guarded) -> str:
    try:
        await people.login(STAFF_0117, WRONG, "alice")
    except Problem as problem:
        return problem.code
    return ""
