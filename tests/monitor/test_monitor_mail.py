"""Operators are told by mail of rejected requests: all of them, once, and at most once a minute."""

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.js.api import KeyValueConfig
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.events import Event, EventLog
from bus.messages import ComputerRef, encode
from bus.options import DEFAULTS, Options
from services.monitor.credentials import credentials
from services.monitor.digest import SHOWN, Rejections, digest
from services.monitor.listening import Listening
from services.monitor.mail import INTERVAL, Mailer
from services.monitor.metrics import MailMetrics
from services.monitor.smtp import MailServer, mail_server
from tests.buses import BusServer, free_port
from tests.echo import KEY, until
from tests.monitor.mail_server import Postbox, serving
from tests.samba import Authority

AT = datetime(2026, 11, 23, 8, 10, 2, tzinfo=UTC)
BUCKET = "mailed"
TO = ("ops@lab.example", "boss@lab.example")
SECOND = timedelta(seconds=1)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Mail of the tests")


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


@pytest.fixture
def server(postbox: Postbox, tmp_path: Path, authority: Authority) -> Iterator[str]:
    """A mail server with STARTTLS that takes everything."""
    with serving(postbox, tmp_path / "mail", authority, "starttls") as name:
        yield name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(connection: Connection) -> EventLog:
    """The events of site ``main``, on a bus that has all a mailer needs."""
    stream = connection.jetstream()
    await prepare(stream)
    await stream.create_key_value(KeyValueConfig(bucket=BUCKET))
    return EventLog(connection, "main")


def options(server: str | None, **more: Any) -> Options:
    return msgspec.structs.replace(DEFAULTS, mail_to=TO, mail_server=server, **more)


def mailer(connection: Connection, settings: Options, trust: ssl.SSLContext, **more: Any) -> Mailer:
    how: dict[str, Any] = {"bucket": BUCKET, "patience": 5.0} | more
    metrics = MailMetrics(how.pop("registry", CollectorRegistry()), "main")
    return Mailer(connection, "main", lambda: settings, metrics, trust=trust, **how)


def handed_in(registry: CollectorRegistry) -> dict[str, float | None]:
    """How often mails were handed in, by what came of them."""
    return {
        outcome: registry.get_sample_value(
            "imageinvoker_mails_total", {"site": "main", "outcome": outcome}
        )
        for outcome in ("sent", "failed")
    }


@asynccontextmanager
async def working(mailer: Mailer) -> AsyncIterator[Mailer]:
    listening = Listening(mailer._connection, "main", mailer)
    await mailer.start()
    await listening.start()
    try:
        yield mailer
    finally:
        await listening.stop()
        await mailer.stop()


async def rejected(log: EventLog, count: int = 1, problem: str = "name_taken") -> list[str]:
    """Keeps so many rejections; returns the requests' ids."""
    requests = [str(uuid.uuid4()) for _ in range(count)]
    for request in requests:
        details = {"request": request, "item": "folder:10", "problem": problem}
        await log.record(
            "request_rejected", machine=KEY, of=request, technician="alice", details=details
        )
    return requests


def text_of(mail: EmailMessage) -> str:
    text = mail.get_content()
    assert isinstance(text, str)
    return text


def event(**more: Any) -> Event:
    values: dict[str, Any] = {"id": "e", "site": "main", "kind": "request_rejected", "at": AT}
    return Event(**(values | more))


def rejections(*events: Event) -> Rejections:
    found = Rejections()
    for each in events:
        found.add(each)
    return found


# What operators read.


def test_a_mail_says_who_where_what_why_and_when() -> None:
    one = event(
        machine=KEY,
        computer=ComputerRef(id=6, name="LAB-01"),
        technician="alice",
        details={"request": "r1", "item": "folder:10", "problem": "name_taken"},
    )
    mail = digest("london", rejections(one), "ii@lab.example", TO, AT)
    text = text_of(mail)
    assert mail["Subject"] == "ImageInvoker at london: 1 request was rejected"
    assert mail["To"] == "ops@lab.example, boss@lab.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    for part in (
        "alice", "LAB-01", KEY, "folder:10", "r1", "2026-11-23 08:10:02 UTC",
        "name_taken: Another computer has this name.",
    ):  # fmt: skip
        assert part in text


def test_a_mail_calls_what_was_picked_by_its_title() -> None:
    one = event(details={"item": "job:7", "title": "Memory test", "request": "r1"})
    text = text_of(digest("london", rejections(one), "ii@lab.example", TO, AT))
    assert "Memory test" in text
    assert "job:7" not in text


def test_what_is_not_known_is_left_out() -> None:
    text = text_of(digest("london", rejections(event()), "ii@lab.example", TO, AT))
    assert "technician" not in text
    assert "None" not in text


def test_a_long_mail_counts_what_it_does_not_show() -> None:
    found = rejections(
        *(event(details={"problem": "name_taken"}) for _ in range(SHOWN)),
        *(event(details={"problem": "forbidden"}) for _ in range(950)),
    )
    mail = digest("london", found, "ii@lab.example", TO, AT)
    text = text_of(mail)
    assert mail["Subject"] == "ImageInvoker at london: 1000 requests were rejected"
    assert "and 950 more" in text
    assert "950  forbidden" in text
    assert len(text.splitlines()) < 8 * SHOWN


@given(st.text(max_size=400), st.text(max_size=400))
@settings(max_examples=150)
def test_no_text_of_an_event_makes_a_header_or_a_line_of_its_own(name: str, item: str) -> None:
    one = event(
        technician=f"x\r\nBcc: all@lab.example\r\n\r\n{name}",
        details={"item": f"\n{item}", "problem": f"y\r\nSubject: {name}", "request": item},
    )
    mail = digest("london", rejections(one), "ii@lab.example", TO, AT)
    plain = digest("london", rejections(event()), "ii@lab.example", TO, AT)
    assert set(mail.keys()) == set(plain.keys())
    known = ("technician", "machine", "item", "problem", "request")
    lines = text_of(mail).splitlines()
    of_one = lines[3 : lines.index("", 3)]
    assert [line.split()[0] for line in of_one] == [
        each for each in known if each != "request" or item
    ]


@pytest.mark.parametrize("bad", ["a@b\nBcc: c@d", "a@b\r\n\r\nbody"])
def test_an_address_of_several_lines_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="linefeed"):
        digest("london", rejections(event()), bad, TO, AT)
    with pytest.raises(ValueError, match="linefeed"):
        digest("london", rejections(event()), "ii@lab.example", (bad,), AT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.lab.example", ("mail.lab.example", 587, False)),
        ("mail:25", ("mail", 25, False)),
        ("smtp://mail.lab.example/", ("mail.lab.example", 587, False)),
        ("smtps://mail.lab.example", ("mail.lab.example", 465, True)),
        ("smtps://[::1]:4465", ("::1", 4465, True)),
    ],
)
def test_a_mail_server_is_named_by_host_port_and_scheme(
    text: str, expected: tuple[str, int, bool]
) -> None:
    host, port, tls = expected
    assert mail_server(text) == MailServer(host=host, port=port, tls=tls)


@pytest.mark.parametrize("text", ["", "http://mail", "mail:0", "mail:70000", "a b", "user@mail"])
def test_what_names_no_mail_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no mail server"):
        mail_server(text)


def test_credentials_are_a_file_of_two_lines_and_do_not_show() -> None:
    known = credentials("ii\nopen sesame\n")
    assert known
    assert (known.user, known.password) == ("ii", "open sesame")
    assert "sesame" not in f"{known} {known!r}"
    assert known == credentials("ii\r\nopen sesame\r\n\n") == credentials("ii\nopen sesame")
    assert credentials("") is credentials("\n") is None
    for text in ("open sesame", "\nopen sesame", "ii\nopen\nsesame"):
        with pytest.raises(ValueError, match="two lines") as info:
            credentials(text)
        assert "sesame" not in str(info.value)


# When they read it.


async def test_a_rejection_is_mailed_to_everybody_named(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    (request,) = await rejected(log)
    assert await mailer(connection, options(server), trust).tell() is None
    (mail,) = postbox.mails
    assert request in text_of(mail)
    assert postbox.recipients == [list(TO)]
    assert mail["From"] == "imageinvoker@lab.example"
    assert postbox.sessions[0].ssl, "it came without TLS"


async def test_other_events_and_other_sites_are_no_reason_for_a_mail(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    await log.record("jobs_scheduled", machine=KEY, of="r1")
    await rejected(EventLog(connection, "paris"))
    assert await mailer(connection, options(server), trust).tell() is None
    assert postbox.mails == []


async def test_a_flood_of_a_thousand_is_two_mails_a_minute_apart(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    telling = mailer(connection, options(server), trust, now=clock)
    requests = await rejected(log)
    assert await telling.tell() is None
    requests += await rejected(log, 999)
    for second in range(1, 60):
        clock.at += SECOND
        assert await telling.tell() == 60 - second
        assert len(postbox.mails) == 1
    clock.at += SECOND
    assert await telling.tell() is None
    earlier, later = postbox.mails
    assert requests[0] in text_of(earlier)
    assert later["Subject"] == "ImageInvoker at main: 999 requests were rejected"
    clock.at += INTERVAL
    assert await telling.tell() is None
    assert len(postbox.mails) == 2


async def test_what_is_too_much_for_one_mail_is_left_to_the_next(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    requests = await rejected(log, 25)
    telling = mailer(connection, options(server), trust, now=clock, most=10)
    for wait in (60, 60, None):
        assert await telling.tell() == wait
        clock.at += INTERVAL
    texts = [text_of(mail) for mail in postbox.mails]
    assert [sum(request in text for request in requests) for text in texts] == [10, 10, 5]


async def test_a_clock_that_is_set_back_silences_nobody(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    telling = mailer(connection, options(server), trust, now=clock)
    await rejected(log)
    await telling.tell()
    clock.at -= timedelta(days=2)
    await rejected(log)
    assert await telling.tell() is None
    assert len(postbox.mails) == 2


async def test_two_copies_send_one_mail_a_minute_between_them(
    bus: BusServer, connection: Connection, log: EventLog, server: str, postbox: Postbox,
    trust: ssl.SSLContext, clock: Clock,
) -> None:  # fmt: skip
    other = await connect(bus.url, "other")
    copies = [
        mailer(each, options(server), trust, now=now)
        for each, now in ((connection, clock), (other, lambda: clock.at - SECOND / 2))
    ]
    told: list[str] = []
    for _ in range(3):
        told += await rejected(log, 5)
        await asyncio.gather(*(copy.tell() for copy in copies))
        clock.at += SECOND
        told += await rejected(log, 5)
        await asyncio.gather(*(copy.tell() for copy in copies))
        clock.at += INTERVAL + SECOND
    await asyncio.gather(*(copy.tell() for copy in copies))
    await other.close()
    texts = [text_of(mail) for mail in postbox.mails]
    assert len(texts) == 4
    assert all(sum(request in text for text in texts) == 1 for request in told)


async def test_what_was_rejected_while_no_monitor_ran_is_mailed_when_one_runs(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    await mailer(connection, options(server), trust, now=clock).tell()
    requests = await rejected(log, 3)
    clock.at += timedelta(days=3)
    await mailer(connection, options(server), trust, now=clock).tell()
    (mail,) = postbox.mails
    assert all(request in text_of(mail) for request in requests)


async def test_whoever_sets_mail_up_is_not_told_of_long_ago(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    await rejected(log, 3)
    await mailer(connection, options(None), trust, now=clock).tell()
    clock.at += timedelta(hours=1)
    telling = mailer(connection, options(server), trust, now=clock)
    assert await telling.tell() is None
    assert postbox.mails == []
    (request,) = await rejected(log)
    assert await telling.tell() is None
    (mail,) = postbox.mails
    assert request in text_of(mail)


async def test_options_are_in_force_at_once(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    current = options(None)
    metrics = MailMetrics(CollectorRegistry(), "main")
    telling = Mailer(connection, "main", lambda: current, metrics, bucket=BUCKET, trust=trust)
    await rejected(log)
    await telling.tell()
    assert postbox.mails == []
    current = options(server, mail_from="ImageInvoker <ii@lab.example>")
    await telling.tell()
    (mail,) = postbox.mails
    assert mail["From"] == "ImageInvoker <ii@lab.example>"


async def test_a_mailer_begins_with_what_came_before_it_and_goes_on_with_what_it_hears_of(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    await rejected(log)
    telling = mailer(connection, options(server), trust, now=clock, collecting=0.05)
    async with working(telling):
        await until(lambda: len(postbox.mails) == 1)
        clock.at += INTERVAL
        await rejected(log, 3)
        await until(lambda: len(postbox.mails) == 2)
    assert "3 requests" in postbox.mails[1]["Subject"]


# Mail servers as they are.


@pytest.mark.parametrize("how", ["starttls", "tls"])
async def test_credentials_are_given_over_tls(
    connection: Connection, log: EventLog, postbox: Postbox, tmp_path: Path, authority: Authority,
    trust: ssl.SSLContext, how: str,
) -> None:  # fmt: skip
    await rejected(log)
    known = credentials("ii\nopen sesame")
    with serving(postbox, tmp_path / "m", authority, how, accounts={"ii": "open sesame"}) as name:
        await mailer(connection, options(name), trust, known=known).tell()
    assert [session.authenticated for session in postbox.sessions] == [True]


async def test_without_a_word_the_authorities_of_the_system_are_believed(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, tmp_path: Path,
    authority: Authority, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await rejected(log)

    def telling() -> Mailer:
        metrics = MailMetrics(CollectorRegistry(), "main")
        return Mailer(connection, "main", lambda: options(server), metrics, bucket=BUCKET)

    with capture_logs() as lines:
        await telling().tell()
    assert postbox.mails == []
    assert "certificate" in lines[0]["why"]
    await connection.jetstream().purge_stream(f"KV_{BUCKET}")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    await telling().tell()
    assert len(postbox.mails) == 1


async def test_a_wrong_password_is_logged_without_it(
    connection: Connection, log: EventLog, postbox: Postbox, tmp_path: Path, authority: Authority,
    trust: ssl.SSLContext,
) -> None:  # fmt: skip
    await rejected(log)
    known = credentials("ii\nclose sesame")
    with (
        serving(postbox, tmp_path / "m", authority, "starttls", accounts={"ii": "open"}) as name,
        capture_logs() as lines,
    ):
        await mailer(connection, options(name), trust, known=known).tell()
    assert postbox.mails == []
    assert [line["why"] for line in lines] == ["SMTPAuthenticationError 535"]
    assert "sesame" not in repr(lines)


async def test_nothing_is_handed_to_a_server_without_tls(
    connection: Connection, log: EventLog, postbox: Postbox, tmp_path: Path, authority: Authority,
    trust: ssl.SSLContext,
) -> None:  # fmt: skip
    await rejected(log)
    with (
        serving(postbox, tmp_path / "m", authority, "plain") as name,
        capture_logs() as lines,
    ):
        await mailer(connection, options(name), trust).tell()
    assert postbox.mails == []
    assert lines[0]["event"] == "no mail could be sent"


@pytest.mark.parametrize("how", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_server_whose_certificate_is_not_good_gets_nothing(
    connection: Connection, log: EventLog, postbox: Postbox, tmp_path: Path, authority: Authority,
    trust: ssl.SSLContext, how: str, wrong: str,
) -> None:  # fmt: skip
    await rejected(log)
    issuer = Authority("Somebody else") if wrong == "authority" else authority
    name = "127.0.0.1" if wrong == "authority" else "mail.other.example"
    with (
        serving(postbox, tmp_path / "m", issuer, how, name=name) as server,
        capture_logs() as lines,
    ):
        wait = await mailer(connection, options(server), trust).tell()
    assert postbox.mails == []
    assert wait == 60
    assert "certificate" in lines[0]["why"]


@pytest.mark.parametrize("trouble", ["down", "hanging", "refusing", "breaking off"])
async def test_a_mail_server_in_trouble_is_asked_again_later_and_then_told_everything(
    connection: Connection, log: EventLog, postbox: Postbox, tmp_path: Path, authority: Authority,
    trust: ssl.SSLContext, clock: Clock, trouble: str,
) -> None:  # fmt: skip
    requests = await rejected(log, 2)
    with serving(postbox, tmp_path / "m", authority, "starttls") as good:
        async with in_trouble(trouble, good, postbox) as bad:
            telling = mailer(connection, options(bad), trust, now=clock, patience=0.5)
            with capture_logs() as lines:
                pauses = [await telling.tell()]
                assert await telling.tell() == 60  # nothing is tried before that
                for _ in range(6):
                    clock.at += timedelta(seconds=pauses[-1] or 0)
                    pauses.append(await telling.tell())
        assert pauses == [60, 120, 240, 480, 900, 900, 900]
        assert len(lines) == len(pauses)
        assert postbox.mails == []
        requests += await rejected(log, 2)
        # Another copy, with other options, has not to wait for long.
        clock.at += INTERVAL
        telling = mailer(connection, options(good), trust, now=clock)
        assert await telling.tell() is None
        (mail,) = postbox.mails
        assert all(request in text_of(mail) for request in requests)
        clock.at += INTERVAL
        await rejected(log)
        assert await telling.tell() is None
        assert len(postbox.mails) == 2


@asynccontextmanager
async def in_trouble(trouble: str, good: str, postbox: Postbox) -> AsyncIterator[str]:
    """The name of a mail server that takes nothing for now."""
    if trouble == "down":
        yield f"127.0.0.1:{free_port()}"
        return
    if trouble == "refusing":
        postbox.refusal = "451 come later"
        yield good
        postbox.refusal = ""
        return
    done = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if trouble == "hanging":
            await done.wait()
        else:
            writer.write(b"220 mail.test\r\n")
            await reader.readline()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1")
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done.set()


async def test_what_comes_of_each_mail_is_counted(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    registry = CollectorRegistry()
    telling = mailer(connection, options(server), trust, now=clock, registry=registry)
    await telling.tell()
    assert handed_in(registry) == {"sent": 0, "failed": 0}
    await rejected(log)
    postbox.refusal = "451 come later"
    for _ in range(2):
        wait = await telling.tell()
        clock.at += timedelta(seconds=wait or 0)
    assert handed_in(registry) == {"sent": 0, "failed": 2}
    postbox.refusal = ""
    await telling.tell()
    assert handed_in(registry) == {"sent": 1, "failed": 2}


async def test_a_mailer_that_waits_for_its_server_can_be_stopped_and_loses_nothing(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    (request,) = await rejected(log)
    asked, done = asyncio.Event(), asyncio.Event()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await done.wait()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1") as hanging, asyncio.timeout(10):
        bad = f"127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        async with working(mailer(connection, options(bad), trust, now=clock, patience=60.0)):
            await asked.wait()
        done.set()
    clock.at += INTERVAL
    await mailer(connection, options(server), trust, now=clock).tell()
    (mail,) = postbox.mails
    assert request in text_of(mail)


async def test_recipients_that_are_refused_keep_the_mail_from_no_others(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    postbox.refused_recipients = {TO[1]}
    await rejected(log)
    with capture_logs() as lines:
        assert await mailer(connection, options(server), trust).tell() is None
    assert postbox.recipients == [[TO[0]]]
    assert lines[0]["refused"] == [TO[1]]


@pytest.mark.parametrize(
    "wrong", [{"mail_server": "no server"}, {"mail_from": "a@b\nBcc: c@d"}], ids=["server", "from"]
)
async def test_options_that_make_no_sense_are_logged_and_end_nothing(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    wrong: Mapping[str, str],
) -> None:  # fmt: skip
    await rejected(log)
    settings = msgspec.structs.replace(options(server), **wrong)
    with capture_logs() as lines:
        await mailer(connection, settings, trust).tell()
    assert postbox.mails == []
    assert lines


# The bus as it is.


async def test_a_mailer_outlives_its_bus(
    bus: BusServer, connection: Connection, log: EventLog, server: str, postbox: Postbox,
    trust: ssl.SSLContext,
) -> None:  # fmt: skip
    telling = mailer(connection, options(server), trust, collecting=0.0)
    await telling.tell()
    async with working(telling):
        bus.stop()
        with pytest.raises((nats.errors.Error, TimeoutError, OSError)):
            await telling.tell()
        bus.start()
        await until(lambda: connection.is_connected)
        await rejected(log)
        await until(lambda: len(postbox.mails) == 1, 20)


async def test_a_stream_that_was_made_anew_silences_nobody(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext,
    clock: Clock,
) -> None:  # fmt: skip
    telling = mailer(connection, options(server), trust, now=clock)
    await rejected(log, 3)
    await telling.tell()
    await connection.jetstream().delete_stream(subjects.EVENTS)
    await prepare(connection.jetstream())
    (request,) = await rejected(log)
    clock.at += INTERVAL
    await telling.tell()
    assert request in text_of(postbox.mails[-1])
    assert len(postbox.mails) == 2


async def test_what_is_no_event_is_passed_over(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    subject = subjects.event("main", KEY, "request_rejected")
    telling = mailer(connection, options(server), trust)
    await connection.jetstream().publish(subject, b"\xff{")
    assert await telling.tell() is None
    await connection.jetstream().publish(subject, encode(event(machine=KEY)))
    assert await telling.tell() is None
    assert len(postbox.mails) == 1


async def test_a_rejection_of_an_absurd_moment_keeps_no_other_from_being_mailed(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    """Its moment is none in UTC: whoever reckons with it fails, and would at every start."""
    absurd = event(machine=KEY, at=datetime.fromisoformat("0001-01-01T00:00:00+14:00"))
    subject = subjects.event("main", KEY, "request_rejected")
    await connection.jetstream().publish(subject, encode(absurd))
    async with working(mailer(connection, options(server), trust, collecting=0.05)) as telling:
        (request,) = await rejected(log)
        await until(lambda: len(postbox.mails) == 1)
        for loop in telling.loops:
            await loop.check()
    assert request in text_of(postbox.mails[0])
    assert "1 request was" in postbox.mails[0]["Subject"]


async def test_a_mailer_that_fails_for_whatever_reason_goes_on_when_it_can(
    connection: Connection, log: EventLog, server: str, postbox: Postbox, trust: ssl.SSLContext
) -> None:
    await rejected(log)
    broken = True

    def current() -> Options:
        if broken:
            raise OverflowError
        return options(server)

    metrics = MailMetrics(CollectorRegistry(), "main")
    telling = Mailer(
        connection, "main", current, metrics, bucket=BUCKET, trust=trust, collecting=0.0
    )
    with capture_logs() as lines:
        async with working(telling):
            await until(lambda: sum(line["event"] == "work is held up" for line in lines) > 1)
            broken = False
            await until(lambda: len(postbox.mails) == 1)
