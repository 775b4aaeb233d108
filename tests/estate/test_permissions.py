"""What each credential may do: all that its program does, and nothing of another's."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus import credentials, subjects
from bus.claims import User, sign
from bus.connection import connect
from bus.credentials import Credentials
from bus.door import Door
from bus.messages import Request, Schedule
from bus.nkeys import KeyPair
from bus.options import DEFAULTS
from bus.request_store import RequestStore
from bus.sessions import Signer
from engine.finding import find
from estate.keyring import Keyring
from services.monitor.retention import Retention
from services.scheduler.intake import digest_of
from tests.estate.servers import EstateServer, add_site, new_estate, site_server
from tests.estate.whole_site import ALL, WholeSite
from tests.site import (
    DESKTOP,
    LAPTOP,
    STAFF_0117,
    eventually,
    new_id,
    new_machine,
    problem_of,
)

SITE = "campus"


@pytest.fixture
def campus(tmp_path: Path) -> WholeSite:
    """A site of an estate without a hub."""
    estate = new_estate(tmp_path / "estate")
    add_site(estate, SITE, "127.0.0.0/8")
    return WholeSite(estate, SITE, tmp_path)


async def test_a_whole_site_does_all_its_work_and_nothing_of_it_is_refused(
    campus: WholeSite,
) -> None:
    async with campus.working(*ALL):
        await _technicians_deploy(campus)
        await _the_operator_decides(campus)
        await _a_request_is_rejected_and_replayed(campus)
        await _the_operator_looks(campus)
        await _what_is_rare_is_done(campus)
    assert campus.server.violations() == []


async def _technicians_deploy(site: WholeSite) -> None:
    visit, again = new_id(), new_id()
    async with site.machine(STAFF_0117) as asker:
        await asker.welcome(STAFF_0117, visit)
        assert (await asker.show(visit=visit)).entries
        first = await asker.schedule(STAFF_0117, DESKTOP, request_id=again)
        assert first.state == "scheduled"
        assert await asker.schedule(STAFF_0117, DESKTOP, request_id=again) == first
        assert (await asker.status(STAFF_0117, again, wait=True)).state == "scheduled"
        assert await problem_of(asker.schedule(STAFF_0117, "job:1")) == "unknown_item"
    async with site.machine(new_machine(1)) as asker:
        # A computer is made, and then renamed.
        for name in ("LAB-01", "LAB-02"):
            assert (await asker.schedule(new_machine(1), LAPTOP, name)).state == "scheduled"


async def _the_operator_decides(site: WholeSite) -> None:
    await site.type("options", "set", "timeout", "7")
    await site.type("options", "reset", "timeout")
    await site.type("options", "password", typed="open sesame now\n")
    await site.type("options", "set", "protection", "hash")
    async with site.machine(STAFF_0117) as asker:

        async def session() -> str:
            return (await asker.login(STAFF_0117, "open sesame now")).token

        token = await session()
        assert (await asker.show(token=token)).entries
        assert await problem_of(asker.show(token="x.y.z")) == "login_required"
        assert await problem_of(asker.login(STAFF_0117, "wrong")) == "login_failed"
        await site.type("options", "set", "protection", "server")
        await site.type("account", "add", "alice", "--group", "Staff", typed="correct horse 1\n")
        await site.type("access", "allow", "group:Staff", "all")
        await site.type("account", "join", "alice", "Exam")
        await site.type("account", "leave", "alice", "Exam")
        await site.type("account", "password", "alice", typed="correct horse 2\n")
        token = (await asker.login(STAFF_0117, "correct horse 2", "alice")).token
        assert (await asker.show(token=token)).entries
        while await problem_of(asker.login(STAFF_0117, "wrong", "alice")) != "locked_out":
            pass
        assert "alice" in await site.type("account", "list")
        await site.type("account", "unlock", "alice")
        await site.type("access", "list")
        await site.type("access", "explain", "alice")
        await site.type("access", "remove", "group:Staff", "all")
        await site.type("account", "remove", "alice")
        await site.type("options", "set", "protection", "none")


async def _a_request_is_rejected_and_replayed(site: WholeSite) -> None:
    wish = Schedule(request_id=new_id(), machine=STAFF_0117, item_id="job:99999")
    connection = await connect(site.server.url, "command", door=site.server.door("operator"))
    try:
        request = Request(
            request_id=wish.request_id,
            site=SITE,
            machine=STAFF_0117,
            item_id=wish.item_id,
            accepted_at=datetime.now(UTC),
            digest=digest_of(wish),
        )
        await RequestStore(connection, SITE).put(request)
    finally:
        await connection.close()

    async def listed() -> str:
        return await site.type("requests", "list", "--state", "rejected")

    await eventually(listed, lambda text: wish.request_id in text, 20)
    await site.type("requests", "show", wish.request_id)
    await site.type("requests", "replay", wish.request_id, status=3)


async def _the_operator_looks(site: WholeSite) -> None:
    async def live() -> str:
        return await site.type("live")

    await eventually(live, lambda text: "STAFF-0117" in text, 20)
    for command in ("stats", "audit", "doctor", "options show", "requests list"):
        await site.type(*command.split())
    await site.watch("events", "tail", until="option_changed")


async def _what_is_rare_is_done(site: WholeSite) -> None:
    """What services do every few hours only, done as they do it."""
    url, door = site.server.url, site.server.door
    auth = await connect(url, f"auth-{SITE}", door=door("auth"))
    try:
        signer = Signer(SITE, rotate_every=0)
        first = signer.key_id
        await signer.publish(auth)
        await signer.publish(auth)
        assert signer.key_id != first
    finally:
        await auth.close()
    engine = find(site.dsn).open(SITE)
    monitor = await connect(url, f"monitor-{SITE}", door=door("monitor"))

    async def forget(_before: datetime, _events: datetime) -> None:
        """The history is no part of the bus."""

    try:
        retention = Retention(monitor, SITE, lambda: DEFAULTS, engine, forget)
        assert await retention.sweep()
    finally:
        await monitor.close()
        await engine.close()


API = "$JS.API"
OTHERS = {
    "menu": (
        *(f"{API}.STREAM.{verb}.{subjects.REQUESTS}" for verb in ("PURGE", "DELETE", "UPDATE")),
        f"{API}.STREAM.PURGE.{subjects.EVENTS}",
        f"{API}.CONSUMER.MSG.NEXT.{subjects.REQUESTS}.{subjects.carrier(SITE)}",
        subjects.request(SITE, "m"),
        subjects.rejected(SITE, "m"),
        subjects.event(SITE, "m", "jobs_scheduled"),
        subjects.event(SITE, "m", "login_succeeded"),
        f"$KV.{subjects.OPTIONS}.{SITE}.protection",
        f"$KV.{subjects.KEYS}.{SITE}.0123456789abcdef",
        f"$KV.{subjects.TECHNICIANS}.{SITE}.server.alice",
        f"$KV.{subjects.MENUS}.other.head",
        f"{API}.STREAM.MSG.GET.KV_{subjects.ACCOUNTS}",
        "_INBOX_command.x",
        "_INBOX_auth-campus.x",
    ),
    "auth": (
        f"{API}.STREAM.PURGE.{subjects.EVENTS}",
        f"{API}.STREAM.PURGE.KV_{subjects.ACCOUNTS}",
        subjects.request(SITE, "m"),
        subjects.event(SITE, "m", "jobs_scheduled"),
        f"$KV.{subjects.ACCESS}.{SITE}.x",
        f"$KV.{subjects.REVOKED}.estate.winpe",
        subjects.CALLOUT,
    ),
    "scheduler": (
        f"{API}.STREAM.PURGE.{subjects.REQUESTS}",
        f"{API}.STREAM.DELETE.{subjects.REQUESTS}",
        f"{API}.CONSUMER.DELETE.{subjects.REQUESTS}.{subjects.carrier(SITE)}",
        f"{API}.CONSUMER.CREATE.{subjects.EVENTS}",
        f"{API}.STREAM.MSG.GET.KV_{subjects.ACCOUNTS}",
        f"$KV.{subjects.KEYS}.{SITE}.0123456789abcdef",
        f"$KV.{subjects.OPTIONS}.{SITE}.protection",
        subjects.event(SITE, "m", "login_succeeded"),
        subjects.endpoint(SITE, "auth", "login", "m"),
        "_INBOX_command.x",
        "_INBOX_menu-campus.x",
    ),
    "monitor": (
        f"{API}.STREAM.PURGE.{subjects.REQUESTS}",
        f"{API}.STREAM.DELETE.{subjects.EVENTS}",
        f"{API}.STREAM.PURGE.KV_{subjects.ACCESS}",
        f"$KV.{subjects.OPTIONS}.{SITE}.mail_to",
        f"$KV.{subjects.TECHNICIANS}.{SITE}.server.alice",
        subjects.request(SITE, "m"),
        subjects.event(SITE, "m", "request_accepted"),
    ),
    "operator": (
        f"{API}.STREAM.PURGE.{subjects.EVENTS}",
        f"{API}.STREAM.DELETE.{subjects.REQUESTS}",
        f"{API}.STREAM.CREATE.MINE",
        f"$KV.{subjects.KEYS}.{SITE}.0123456789abcdef",
        f"$KV.{subjects.LIVE}.{SITE}.m",
        subjects.event(SITE, "m", "jobs_scheduled"),
        subjects.event(SITE, "m", "login_succeeded"),
        "$SYS.REQ.SERVER.PING",
    ),
    "callout": (f"{API}.INFO", "$SYS.REQ.USER.INFO", subjects.request(SITE, "m")),
    "system": ("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ"),
}
"""What each credential may not publish to."""
OVERHEARD = {
    "menu": (">", "_INBOX.>", "_INBOX_command.>", "_INBOX_auth-campus.>", "$KV.>",
        subjects.request(SITE), subjects.event(SITE), subjects.endpoint(SITE, "auth", "login"),
        subjects.endpoint(SITE, "scheduler", "schedule"), "$SYS.>", "imaging.>"),
    "auth": (">", "$SYS.>", subjects.CALLOUT, subjects.endpoint(SITE, "scheduler", "schedule"),
        subjects.request(SITE), "_INBOX_menu-campus.>"),
    "scheduler": (">", subjects.endpoint(SITE, "auth", "login"), subjects.event(SITE),
        "_INBOX_command.>", subjects.request(SITE)),
    "monitor": (">", subjects.endpoint(SITE, "auth", "login"), subjects.event(SITE),
        subjects.request(SITE), "$KV.>"),
    "operator": (">", subjects.endpoint(SITE, "auth", "login"), subjects.request(SITE), "$KV.>",
        "$SRV.PING", "_INBOX_menu-campus.>"),
    "callout": (">", "$SYS.>", "_INBOX_menu-campus.>"),
    "system": (">", "$SYS.>", "$SYS.ACCOUNT.*.CONNECT"),
}  # fmt: skip
"""What each credential may not listen to."""


@pytest.fixture
def server(campus: WholeSite) -> Iterator[EstateServer]:
    """The server of a site that has no services."""
    campus.server.start()
    yield campus.server
    campus.server.stop()


@pytest.mark.parametrize("who", OTHERS)
async def test_a_credential_is_refused_what_is_anothers(server: EstateServer, who: str) -> None:
    refused: list[str] = []

    async def report(error: Exception) -> None:
        refused.append(str(error).casefold())

    name = f"{who}-{SITE}" if who != "operator" else "command"
    connection = await connect(server.url, name, door=server.door(who), report=report)
    try:
        for subject in OTHERS[who]:
            await connection.publish(subject, b"{}")
        for subject in OVERHEARD[who]:
            await connection.subscribe(subject)
        await connection.flush()
    finally:
        await connection.close()
    told = "\n".join(refused)
    for subject in OTHERS[who]:
        assert f'publish to "{subject}"'.casefold() in told, subject
    for subject in OVERHEARD[who]:
        assert f'subscription to "{subject}"'.casefold() in told, subject


async def test_a_credential_of_one_site_opens_no_other(tmp_path: Path) -> None:
    estate = new_estate(tmp_path / "estate")
    for name in (SITE, "lab"):
        add_site(estate, name)
    here, there = site_server(estate, SITE), site_server(estate, "lab")
    there.start()
    try:
        for who in OTHERS:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connect(there.url, who, door=here.door(who)), 1)
    finally:
        there.stop()
    assert there.log().count("authentication error") >= len(OTHERS)


async def test_the_key_of_a_role_makes_users_of_that_role_and_of_no_other(
    server: EstateServer, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "estate" / "keys").site(SITE)
    own = KeyPair.generate("user")
    # Whoever has the boot signing key writes what he likes into the claims.
    everything = User(version=2, issuer_account=keys.account.public, subs=-1, payload=-1, data=-1)
    token = sign(keys.roles["boot"], own.public, everything, name="mine")
    file = tmp_path / "mine.creds"
    credentials.write(file, Credentials.of(token, own))
    door = Door(ca=server.ready / "tls" / "ca.pem", credentials=file)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connect(server.url, "mine", door=door), 1)


async def test_a_service_answers_whoever_asked_and_says_nothing_unasked(
    server: EstateServer,
) -> None:
    refused: list[str] = []

    async def report(error: Exception) -> None:
        refused.append(str(error))

    menu = await connect(server.url, f"menu-{SITE}", door=server.door("menu"), report=report)
    operator = await connect(server.url, "command", door=server.door("operator"))
    try:

        async def answer(message: Msg) -> None:
            for _ in range(2):
                await message.respond(b"here")

        await menu.subscribe("$SRV.PING", cb=answer)
        await menu.flush()
        assert (await operator.request("$SRV.PING", timeout=5)).data == b"here"
        await menu.publish("_INBOX_command.unasked", b"")
        await menu.flush()
    finally:
        await operator.close()
        await menu.close()
    # The second answer, and what nobody has asked for.
    assert len([each for each in refused if "_inbox_command" in each.casefold()]) == 2
