"""What a boot client can do that wants more than it may: on a real server, with a real role.

Whoever has a boot credential can be any machine. It must not reach beyond that machine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import nats.errors
import pytest
from nats.aio.msg import Msg

from bus import subjects
from bus.caller import Caller
from bus.connection import Connection, ask
from bus.contract import LOGIN, SHOW, WHERE
from bus.events import EventLog
from bus.machines import machine_key
from bus.messages import Login, Menu, ShowMenu, Where, encode
from bus.option_store import OptionStore
from bus.options import PASSWORD, parse
from bus.problems import Problem
from bus.revocations import RevocationStore
from services.admission import Admission
from services.auth.passwords import Passwords
from services.running import Site
from tests.guests import (
    MAX_PAYLOAD,
    MAX_SUBSCRIPTIONS,
    Entry,
    Guest,
    guest,
    plain_guest,
    secured,
    soon,
)
from tests.site import Asker, new_machine

MINE, ANOTHERS = machine_key(new_machine(1)), machine_key(new_machine(2))
FORBIDDEN = (
    subjects.endpoint("main", "menu", "show", ANOTHERS),
    subjects.endpoint("main", "auth", "login", ANOTHERS),
    subjects.endpoint("main", "scheduler", "schedule", ANOTHERS),
    subjects.endpoint(subjects.ESTATE, "auth", "where", ANOTHERS),
    subjects.endpoint("south", "menu", "show", MINE),
    subjects.endpoint("south", "scheduler", "schedule", MINE),
    subjects.event("main", MINE, "jobs_scheduled"),
    subjects.request("main", MINE),
    subjects.rejected("main", MINE),
    subjects.menu_checked("main"),
    subjects.admitted("main"),
    f"{subjects.inbox(ANOTHERS)}.answer",
    f"{subjects.inbox('scheduler-main')}.answer",
    "_INBOX.answer",
    f"$KV.{subjects.OPTIONS}.main.protection",
    f"$KV.{subjects.ACCESS}.main.rule",
    f"$KV.{subjects.REVOKED}.estate.win11",
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    f"$JS.API.STREAM.INFO.{subjects.EVENTS}",
    f"$JS.API.STREAM.PURGE.{subjects.EVENTS}",
    f"$JS.API.STREAM.PURGE.{subjects.REQUESTS}",
    f"$JS.API.STREAM.DELETE.{subjects.REQUESTS}",
    f"$JS.API.STREAM.MSG.GET.{subjects.EVENTS}",
    f"$JS.API.DIRECT.GET.{subjects.REQUESTS}",
    f"$JS.API.DIRECT.GET.KV_{subjects.ACCOUNTS}",
    f"$JS.API.CONSUMER.CREATE.{subjects.EVENTS}",
    f"$JS.ACK.{subjects.REQUESTS}.scheduler-main.1.1.1.1.1",
    "$SRV.PING",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    subjects.kick("any"),
    subjects.CALLOUT,
)
UNHEARD = (
    ">",
    "imaging.>",
    "$JS.>",
    "$SYS.>",
    "$KV.>",
    "_INBOX.>",
    f"{subjects.inbox(ANOTHERS)}.>",
    subjects.inbox("menu-main") + ".>",
    subjects.event("main"),
    subjects.event("main", ANOTHERS),
    subjects.event("south", MINE),
    subjects.endpoint("main", "auth", "login"),
    subjects.endpoint("main", "auth", "login", MINE),
    subjects.request("main"),
    subjects.admitted("main"),
    subjects.CALLOUT,
)


@pytest.fixture
async def entry(tmp_path: Path) -> AsyncIterator[Entry]:
    entry = secured(tmp_path)
    entry.server.start()
    try:
        async with entry.open():
            yield entry
    finally:
        entry.server.stop()


@pytest.fixture
async def insider(entry: Entry) -> AsyncIterator[Connection]:
    async with entry.insider() as insider:
        yield insider


@pytest.fixture
async def thief(entry: Entry) -> AsyncIterator[Guest]:
    """Somebody with a laptop and the credential of a stolen stick."""
    async with guest(entry, 1) as thief:
        yield thief


async def overheard(connection: Connection) -> list[Msg]:
    """All that is said on the site's bus from now on."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await connection.subscribe(">", cb=hear)
    await connection.flush()
    return heard


async def test_whatever_it_publishes_elsewhere_reaches_nobody(
    insider: Connection, thief: Guest
) -> None:
    heard = await overheard(insider)
    for subject in FORBIDDEN:
        await thief.connection.publish(subject, b"{}", reply=f"{subjects.inbox(MINE)}.x")
    await thief.connection.flush()
    await insider.flush()
    assert [each.subject for each in heard if each.subject in FORBIDDEN] == []
    for subject in FORBIDDEN:
        await thief.complained(f'publish to "{subject.lower()}"')


async def test_it_hears_nothing_that_is_not_for_it(insider: Connection, thief: Guest) -> None:
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    for subject in UNHEARD:
        await thief.connection.subscribe(subject, cb=hear)
    await thief.connection.flush()
    for subject in (
        subjects.event("main", ANOTHERS, "menu_shown"),
        f"{subjects.inbox(ANOTHERS)}.answer",
        subjects.endpoint("main", "auth", "login", ANOTHERS),
        subjects.endpoint("main", "auth", "login", MINE),
    ):
        await insider.publish(subject, b"a secret")
    await insider.flush()
    await thief.connection.flush()
    assert heard == []
    for subject in UNHEARD:
        await thief.complained(f'subscription to "{subject.lower()}"')


async def test_it_hears_its_own_events_and_answers(insider: Connection, thief: Guest) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    await thief.connection.subscribe(subjects.event("main", MINE), cb=hear)
    await thief.connection.flush()
    await EventLog(insider, "main").record("menu_shown", machine=MINE)
    await soon(lambda: heard == [subjects.event("main", MINE, "menu_shown")])
    assert thief.complaints == []


async def test_no_stream_and_no_bucket_can_be_read_or_emptied(
    insider: Connection, thief: Guest
) -> None:
    await EventLog(insider, "main").record("menu_shown", machine=ANOTHERS)
    stream = thief.connection.jetstream(timeout=0.3)
    for attack in (
        lambda: stream.purge_stream(subjects.EVENTS),
        lambda: stream.delete_stream(subjects.REQUESTS),
        lambda: stream.get_msg(subjects.EVENTS, 1),
        lambda: stream.get_last_msg(subjects.EVENTS, subjects.event("main"), direct=True),
        lambda: stream.key_value(subjects.ACCOUNTS),
        lambda: stream.pull_subscribe(subjects.event("main"), "thief", subjects.EVENTS),
    ):
        with pytest.raises(nats.errors.Error):
            await attack()
    kept = await Asker(insider, "main").kept(subjects.EVENTS, subjects.event("main", ANOTHERS))
    assert len(kept) == 1


async def test_no_answer_goes_to_anothers_inbox_because_it_asks_for_that(
    entry: Entry, insider: Connection, thief: Guest
) -> None:
    async with guest(entry, 2) as victim:
        got: list[Msg] = []

        async def hear(message: Msg) -> None:
            got.append(message)

        await victim.connection.subscribe(f"{subjects.inbox(ANOTHERS)}.>", cb=hear)
        await victim.connection.flush()
        heard = await overheard(insider)
        question = encode(Where(machine=thief.machine))
        subject = subjects.endpoint(subjects.ESTATE, "auth", "where", MINE)
        for reply in (
            f"{subjects.inbox(ANOTHERS)}.answer",
            subjects.request("main", ANOTHERS),
            f"$KV.{subjects.OPTIONS}.main.protection",
            f"{subjects.inbox(MINE)}",
            f"{subjects.inbox(MINE)}x.answer",
        ):
            await thief.connection.publish(subject, question, reply=reply)
        answer = await thief.connection.request(subject, question, timeout=5)
        assert WHERE.answered_decoder.decode(answer.data).site == "main"
        await victim.connection.flush()
        assert got == []
        asked = [each for each in heard if each.subject == subject]
        answered = [each for each in heard if each.subject in {one.reply for one in asked}]
        assert len(answered) == 1


async def test_nobody_answers_in_a_services_place(entry: Entry, thief: Guest) -> None:
    async with guest(entry, 2) as victim:
        question = encode(Where(machine=victim.machine))
        subject = subjects.endpoint(subjects.ESTATE, "auth", "where", ANOTHERS)
        asking = asyncio.create_task(victim.connection.request(subject, question, timeout=5))
        for number in range(1, 50):
            # The prefix of a client's inbox is a secret; the thief may even know it.
            prefix = (victim.connection._resp_sub_prefix or b"_INBOX").decode()
            await thief.connection.publish(f"{prefix}{number}", b'{"site": "evil"}')
            await asyncio.sleep(0)
        assert WHERE.answered_decoder.decode((await asking).data).site == "main"
        await thief.complained("publish to")


@pytest.mark.parametrize(
    ("reply", "headers"),
    [
        (b".\xff", b"NATS/1.0\r\n\r\n"),
        (b".\v1", b"NATS/1.0\r\n\r\n"),
        (b".1", b"NATS/1.0 \xff\r\n\r\n"),
    ],
    ids=["inbox", "space", "headers"],
)
async def test_a_message_that_nobody_can_read_makes_no_service_deaf(
    entry: Entry, insider: Connection, thief: Guest, reply: bytes, headers: bytes
) -> None:
    subject = subjects.endpoint(subjects.ESTATE, "auth", "where", MINE)
    heard = await overheard(insider)
    inbox = subjects.inbox(MINE).encode() + reply
    await thief.connection._send_command(
        f"HPUB {subject} ".encode() + inbox + f" {len(headers)} {len(headers)}\r\n".encode()
        + headers + b"\r\n"
    )  # fmt: skip
    async with guest(entry, 2) as other:
        for _ in range(3):
            asked = Where(machine=other.machine)
            await ask(other.connection, subjects.ESTATE, WHERE, other.key, asked, timeout=5)
    assert len([each for each in heard if each.reply.startswith(subjects.inbox(ANOTHERS))]) == 3


async def test_a_session_of_another_machine_opens_nothing(entry: Entry) -> None:
    async with entry.running(_menu_of_admitted) as site, entry.insider() as insider:
        passwords = Passwords()
        store = await OptionStore.open(insider, "main")
        await store.write(PASSWORD, (await passwords.hash("open sesame")).encode())
        await store.write("protection", parse("protection", "hash"))
        await passwords.close()
        await soon(lambda: site.options.current.protection == "hash")
        async with guest(entry, 2) as victim, guest(entry, 1) as thief:
            login = Login(machine=victim.machine, password="open sesame")
            session = await _insist(victim.connection, login)
            shown = ShowMenu(machine=victim.machine, token=session)
            assert (await ask(victim.connection, "main", SHOW, ANOTHERS, shown)).entries == ()
            stolen = ShowMenu(machine=thief.machine, token=session)
            with pytest.raises(Problem) as info:
                await ask(thief.connection, "main", SHOW, MINE, stolen)
            assert info.value.code in {"session_expired", "login_required"}
            # Nor where it says to be the other machine, on the one subject that it may use.
            with pytest.raises(Problem) as info:
                await ask(thief.connection, "main", SHOW, MINE, shown)
            assert info.value.code == "bad_machine"


async def test_too_large_a_message_ends_the_connection_and_reaches_nobody(
    entry: Entry, insider: Connection
) -> None:
    heard = await overheard(insider)
    client = await plain_guest(entry, 1, entry.issue())
    subject = subjects.endpoint("main", "auth", "login", MINE)
    client._max_payload = 2 * MAX_PAYLOAD
    with contextlib.suppress(nats.errors.Error, OSError):
        await client.publish(subject, b"x" * (MAX_PAYLOAD + 1))
        await client.flush()
    await soon(lambda: client.is_closed)
    assert [each for each in heard if each.subject == subject] == []


async def test_too_many_subscriptions_are_refused(thief: Guest) -> None:
    for number in range(MAX_SUBSCRIPTIONS + 5):
        await thief.connection.subscribe(f"{subjects.inbox(MINE)}.{number}")
    await thief.complained("maximum subscriptions exceeded")


async def test_too_many_connections_of_one_machine_are_ended(entry: Entry) -> None:
    token = entry.issue()
    many = await asyncio.gather(
        *(plain_guest(entry, 1, token) for _ in range(30)), return_exceptions=True
    )
    clients = [each for each in many if not isinstance(each, BaseException)]
    await soon(lambda: sum(each.is_connected for each in clients) <= 4)
    for each in clients:
        await each.close()


async def test_a_flood_of_one_leaves_the_others_served(entry: Entry, thief: Guest) -> None:
    flooding = True
    subject = subjects.endpoint(subjects.ESTATE, "auth", "where", MINE)
    question = encode(Where(machine=thief.machine))

    async def flood() -> None:
        while flooding:
            with contextlib.suppress(nats.errors.Error):
                for _ in range(200):
                    await thief.connection.publish(
                        subject, question, reply=f"{subjects.inbox(MINE)}.flood"
                    )
                await thief.connection.flush()

    busy = asyncio.create_task(flood())
    try:
        for number in range(2, 7):
            async with guest(entry, number) as other:
                for _ in range(5):
                    asked = Where(machine=other.machine)
                    here = await ask(
                        other.connection, subjects.ESTATE, WHERE, other.key, asked, timeout=5
                    )
                    assert here.site == "main"
    finally:
        flooding = False
        await busy


async def test_a_crowd_that_knocks_with_forged_credentials_keeps_nobody_out(entry: Entry) -> None:
    knocking = True
    token = entry.issue()
    await (await plain_guest(entry, 1, token)).close()

    async def knock(number: int) -> None:
        while knocking:
            with contextlib.suppress(nats.errors.Error, OSError):
                await (await plain_guest(entry, number, "iib1.nonsense.nonsense")).close()

    crowd = [asyncio.create_task(knock(number)) for number in range(20, 36)]
    try:
        for number in range(2, 7):
            async with guest(entry, number, token=token) as other:
                await other.is_on()
    finally:
        knocking = False
        await asyncio.gather(*crowd)


async def test_the_server_had_nothing_to_complain_of_but_the_thief(
    entry: Entry, insider: Connection, thief: Guest
) -> None:
    """The service's own credentials are enough for what it does."""
    await (await RevocationStore.open(insider)).revoke("other", datetime.now(UTC))
    async with guest(entry, 2) as machine:
        asked = Where(machine=machine.machine)
        await ask(machine.connection, subjects.ESTATE, WHERE, machine.key, asked)
    assert entry.violations() == []
    assert thief.complaints == []


async def _insist(connection: Connection, login: Login) -> str:
    key = machine_key(login.machine)
    async with asyncio.timeout(10):
        while True:
            # The auth service may not have heard of the password yet.
            try:
                return (await ask(connection, "main", LOGIN, key, login)).token
            except Problem:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _menu_of_admitted(site: Site) -> AsyncIterator[None]:
    """A menu service whose menu is empty, and whose sessions are looked at as everywhere."""
    admission = Admission(
        site.connection, site.name, site.options, EventLog(site.connection, site.name)
    )

    async def show(asked: ShowMenu, caller: Caller) -> Menu:
        await admission.admit(asked.token, caller.machine)
        return Menu(version="1", type="flat", stale=False, entries=())

    service = site.service("menu", "Shows nothing")
    service.serve(SHOW, show)
    await admission.start()
    try:
        await service.start()
        yield
        await service.leave()
    finally:
        await admission.stop()
