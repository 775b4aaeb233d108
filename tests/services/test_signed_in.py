"""What technicians with accounts of the site see, and what they may deploy."""

import time
from collections.abc import AsyncIterator

import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from bus import subjects
from bus.machines import machine_key
from bus.problems import Problem
from bus.sessions import Claims, Signer
from services.auth.program import program as auth
from services.menu.program import program as menu
from services.scheduler.program import program as scheduler
from tests.guarded import RIGHT, WRONG, Guarded, protected
from tests.site import (
    DESKTOP,
    LAPTOP,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    eventually,
    intake_only,
    new_id,
    refused,
    running,
)

KEY = machine_key(STAFF_0117)


@pytest.fixture
async def guarded(url: str, name: str, dsn: str, client: Asker) -> AsyncIterator[Guarded]:
    """A site with every service, where accounts of its own are asked for."""
    async with (
        protected(client) as site,
        running(url, name, auth, menu(dsn), scheduler(dsn)),
    ):
        yield site


async def test_a_technician_sees_and_schedules_what_the_rules_allow_and_nothing_else(
    guarded: Guarded, express: Express
) -> None:
    await guarded.employ("Ann Lee", "Techs")
    await guarded.rule("group:techs", DESKTOP)
    token = await guarded.enter("ann lee")
    assert await eventually(lambda: guarded.seen(token), bool) == {DESKTOP}
    outcome = await guarded.schedule(STAFF_0117, DESKTOP, token=token)
    assert outcome.state == "scheduled"
    before = express.tables("event_schedule")
    with refused("forbidden"):
        await guarded.schedule(STAFF_0117, MEMORY_TEST, token=token)
    assert express.tables("event_schedule") == before


async def test_where_nothing_is_allowed_the_menu_is_empty(guarded: Guarded) -> None:
    await guarded.employ("ann")
    token = await guarded.enter("ann")
    assert await guarded.seen(token) == set()
    with refused("forbidden"):
        await guarded.schedule(STAFF_0117, DESKTOP, token=token)


async def test_administrators_see_all(guarded: Guarded) -> None:
    await guarded.employ("root", "imageinvoker administrators")
    await guarded.rule("user:root", "all", "deny")
    token = await guarded.enter("root")
    everything = await guarded.seen(token)
    assert {DESKTOP, LAPTOP, MEMORY_TEST} <= everything
    await guarded.set("administrators", "none")
    assert await eventually(lambda: guarded.seen(token), lambda seen: not seen) == set()


async def test_with_one_password_for_all_there_are_no_rights(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    await client.protect(RIGHT)
    async with running(url, name, auth, menu(dsn), scheduler(dsn)):
        site = Guarded(client.connection, client.site)
        await site.rule("group:techs", "all", "deny")
        token = (await site.login(STAFF_0117, RIGHT)).token
        assert {DESKTOP, MEMORY_TEST} <= await site.seen(token)
        assert (await site.schedule(STAFF_0117, DESKTOP, token=token)).state == "scheduled"


async def test_the_rules_that_count_are_those_of_now_not_those_of_the_sign_in(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann", "techs")
    await guarded.rule("group:techs", "all")
    token = await guarded.enter("ann")
    assert MEMORY_TEST in await eventually(lambda: guarded.seen(token), bool)
    await guarded.rule("user:ann", MEMORY_TEST, "deny")
    await eventually(lambda: guarded.seen(token), lambda seen: MEMORY_TEST not in seen)
    with refused("forbidden"):
        await guarded.schedule(STAFF_0117, MEMORY_TEST, token=token)
    await (await guarded.accounts()).leave("ann", ["techs"])
    await eventually(lambda: guarded.seen(token), lambda seen: not seen)
    await (await guarded.accounts()).join("ann", ["techs"])
    await eventually(lambda: guarded.seen(token), bool)


async def test_a_right_that_is_taken_away_while_a_request_waits_stops_it(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    request = new_id()
    async with protected(client) as site:
        await site.employ("ann")
        await site.rule("user:ann", "all")
        async with running(url, name, auth, intake_only(dsn)):
            token = await site.enter("ann")
            outcome = await site.schedule(STAFF_0117, DESKTOP, request_id=request, token=token)
            assert outcome.state == "accepted"
        await site.rule("user:ann", DESKTOP, "deny")
        before = express.tables("event_schedule", "computer")
        async with running(url, name, scheduler(dsn)):
            settled = await site.settled(STAFF_0117, request)
        assert settled.state == "rejected"
        assert settled.problem is not None
        assert settled.problem.code == "forbidden"
        assert express.tables("event_schedule", "computer") == before
        (event,) = await site.events("request_rejected")
        assert (event.technician, event.details["problem"]) == ("ann", "forbidden")


async def test_a_removed_account_is_out_at_once_and_stays_out_when_it_is_added_anew(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", "all")
    token = await guarded.enter("ann")
    await eventually(lambda: guarded.seen(token), bool)
    await (await guarded.accounts()).remove("ann")

    async def seen() -> str:
        try:
            await guarded.seen(token)
        except Problem as problem:
            return problem.code
        return ""

    assert await eventually(seen, bool) == "session_expired"
    await guarded.employ("ann")
    assert await eventually(lambda: guarded.enter("ann"), bool)
    assert await seen() == "session_expired"
    with refused("session_expired"):
        await guarded.schedule(STAFF_0117, DESKTOP, token=token)


async def test_a_new_password_ends_the_sessions_made_with_the_old_one(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", "all")
    token = await guarded.enter("ann")
    await eventually(lambda: guarded.seen(token), bool)
    await (await guarded.accounts()).set_password("ann", PasswordHasher().hash("another one"))

    async def out() -> bool:
        try:
            await guarded.seen(token)
        except Problem as problem:
            return problem.code == "session_expired"
        return False

    await eventually(out, bool)
    with refused("login_failed"):
        await guarded.enter("ann")


async def test_all_that_happens_at_a_portal_is_in_the_audit(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", DESKTOP)
    with refused("login_failed"):
        await guarded.login(STAFF_0117, WRONG, "ann")
    token = await guarded.enter("ann")
    await eventually(lambda: guarded.seen(token), bool)
    outcome = await guarded.schedule(STAFF_0117, DESKTOP, "NEW-NAME", token=token)
    with refused("forbidden"):
        await guarded.schedule(STAFF_0117, MEMORY_TEST, token=token)

    async def told() -> list[str]:
        return [event.kind for event in await guarded.events()]

    assert await eventually(told, lambda kinds: len(kinds) >= 6) == [
        "login_failed",
        "login_succeeded",
        "request_accepted",
        "computer_renamed",
        "jobs_scheduled",
        "request_refused",
    ]
    for event in await guarded.events():
        assert (event.technician, event.machine, event.site) == ("ann", KEY, guarded.site)
    (scheduled,) = await guarded.events("jobs_scheduled")
    assert scheduled.computer is not None
    assert (scheduled.computer.name, scheduled.details["jobs"]) == ("NEW-NAME", 10)
    assert scheduled.details["request"] == outcome.request_id


async def test_what_is_told_of_a_request_is_told_once_however_often_it_is_sent(
    guarded: Guarded,
) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", DESKTOP)
    token = await guarded.enter("ann")
    await eventually(lambda: guarded.seen(token), bool)
    machine, request = STAFF_0117, new_id()
    for _ in range(3):
        await guarded.schedule(machine, DESKTOP, request_id=request, token=token)

    async def told() -> list[str]:
        return [e.kind for e in await guarded.events() if e.details.get("request") == request]

    assert await eventually(told, lambda kinds: "jobs_scheduled" in kinds) == [
        "request_accepted",
        "jobs_scheduled",
    ]


def _token(site: str, changes: dict[str, object], key: Ed25519PrivateKey, kid: str) -> str:
    now = int(time.time())
    usual: dict[str, object] = {
        "iss": "imageinvoker", "aud": site, "sub": KEY, "iat": now, "exp": now + 60,
        "name": "ann", "protection": "server", "generation": 1,
    }  # fmt: skip
    return jwt.encode(usual | changes, key, "EdDSA", headers={"kid": kid})


async def test_a_token_that_does_not_count_is_refused_and_told_of(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", "all")
    signer = Signer(guarded.site)
    await signer.publish(guarded.connection)
    own, kid = signer._private, signer.key_id
    elsewhere = Signer("elsewhere")
    await elsewhere.publish(guarded.connection)
    ann = Claims(username="ann", protection="server")
    good = await guarded.enter("ann")
    head, payload, _ = good.split(".")
    signature = _token(guarded.site, {}, own, kid).split(".")[2]
    none = jwt.encode({"sub": KEY, "aud": guarded.site}, "", "none", headers={"kid": kid})
    gone = Signer(guarded.site).session(KEY, ann).token
    past = int(time.time()) - 60
    bad = {
        "junk": ("malformed", "login_required"),
        f"{head}.{payload}.{signature}": ("forged", "login_required"),
        _token(guarded.site, {}, Ed25519PrivateKey.generate(), kid): ("forged", "login_required"),
        _token(guarded.site, {"exp": past}, own, kid): ("expired", "session_expired"),
        _token("elsewhere", {}, own, kid): ("other site", "login_required"),
        elsewhere.session(KEY, ann).token: ("unknown key", "login_required"),
        _token(guarded.site, {"sub": "mac001122334455"}, own, kid): (
            "other machine",
            "login_required",
        ),
        none: ("unknown key|malformed", "login_required"),
        gone: ("unknown key", "login_required"),
        _token(guarded.site, {"protection": "hash"}, own, kid): (
            "other protection",
            "login_required",
        ),
        _token(guarded.site, {"name": "nobody"}, own, kid): ("account changed", "session_expired"),
    }
    with capture_logs() as lines:
        for token, (_, code) in bad.items():
            for asking in (
                guarded.show(STAFF_0117, token),
                guarded.schedule(STAFF_0117, DESKTOP, token=token),
            ):
                with pytest.raises(Problem) as caught:
                    await asking
                assert caught.value.code == code, token
    events = await guarded.events("session_refused")
    told = [event.details["reason"] for event in events]
    expected = [reason for reason, _ in bad.values() for _ in range(2)]
    assert len(told) == len(expected)
    for reason, wanted in zip(told, expected, strict=True):
        assert reason in wanted.split("|")
    said = str(lines) + repr(events)
    for token in bad:
        assert token not in said


async def test_rules_that_cannot_be_read_allow_nothing(guarded: Guarded) -> None:
    await guarded.employ("ann")
    await guarded.rule("user:ann", "all")
    token = await guarded.enter("ann")
    await eventually(lambda: guarded.seen(token), bool)
    bucket = await guarded.connection.jetstream().key_value(subjects.ACCESS)
    await bucket.put(subjects.site_key(guarded.site, "junk"), b'{"effect": "perhaps"}')
    await eventually(lambda: guarded.seen(token), lambda seen: not seen)
    await bucket.delete(subjects.site_key(guarded.site, "junk"))
    await eventually(lambda: guarded.seen(token), bool)
