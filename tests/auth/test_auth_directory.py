"""Signing in with Active Directory, against a real domain controller and against impostors."""

import asyncio
import contextlib
import gc
import logging
import re
import socket
import ssl
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rdatatype
import dns.rrset
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.waiting import end
from services.auth.controllers import Controllers, parse_controller
from services.auth.directory import (
    Directory,
    DirectorySettings,
    DirectoryUnavailable,
    Reason,
    SignInRefused,
    account_name,
    bind_name,
    refusal,
)
from tests.buses import free_port
from tests.samba import (
    ALICE,
    BOB,
    DISABLED,
    ERIN,
    EXPIRED,
    LOCKED,
    MUST_CHANGE,
    NEVER_NOW,
    ODD,
    ODD_GROUP,
    ROBERT,
    Authority,
    DomainController,
    hanging_server,
)

LAB = DirectorySettings(domain="lab.example")
PROMISED = 3.0
"""Seconds within which a sign-in is answered, whatever hangs."""

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def opened(settings: DirectorySettings, **more: tuple[str, int]) -> Iterator[Directory]:
    directory = Directory(settings, **more)
    try:
        yield directory
    finally:
        directory.close()


@pytest.fixture
def directory(controller: DomainController) -> Iterator[Directory]:
    """The controller's domain, as a service signs in to it."""
    with opened(controller.settings) as found:
        yield found


async def refused(directory: Directory, username: str, password: str) -> Reason:
    with pytest.raises(SignInRefused) as caught:
        await directory.sign_in(username, password)
    return caught.value.reason


async def unavailable(directory: Directory, username: str = "alice", password: str = "pw") -> str:
    """What the log gets to read when the directory cannot be asked."""
    async with asyncio.timeout(PROMISED):
        with pytest.raises(DirectoryUnavailable) as caught:
            await directory.sign_in(username, password)
    return str(caught.value)


class TestNames:
    """What was typed, as it is counted and as it is sent. Pure."""

    accounts = st.text(st.characters(categories=["L", "N"], include_characters=".-_' ()")).map(
        lambda text: f"x{text}y"
    )

    @given(
        account=accounts, change=st.sampled_from([str.upper, str.lower, str.title, str.swapcase])
    )
    def test_every_form_of_one_name_is_one_account(
        self, account: str, change: Callable[[str], str]
    ) -> None:
        counted = account_name(account, LAB)
        for form in (
            account,
            f"LAB\\{account}",
            f"lab\\{account}",
            f"lab.example\\{account}",
            f"{account}@lab.example",
            f"{account}@LAB.Example",
            f"  {account} ",
        ):
            assert account_name(form, LAB) == counted
            # Upper case is no round trip for every letter; in ASCII it is.
            if account.isascii():
                assert account_name(change(form), LAB) == counted

    @given(one=accounts, other=accounts)
    def test_different_names_are_different_accounts(self, one: str, other: str) -> None:
        if one.isascii() and other.isascii():
            same = one.lower() == other.lower()
            assert (account_name(one, LAB) == account_name(other, LAB)) is same

    @given(st.text())
    def test_whatever_is_typed_counts_under_some_name_that_stays(self, typed: str) -> None:
        assert account_name(typed, LAB) == account_name(typed, LAB)
        assert account_name(typed.strip(), LAB) == account_name(typed, LAB)

    @pytest.mark.parametrize(
        ("typed", "counted"),
        [
            ("ALICE", "alice"),
            ("ａｌｉｃｅ", "alice"),
            ("álicè", "alice"),
            ("a\N{COMBINING ACUTE ACCENT}lice", "alice"),
            ("CORP\\alice", "alice"),
            ("alice@other.example", "alice@other.example"),
            ("alice@other.example@lab.example", "alice@other.example"),
            ("", ""),
        ],
    )
    def test_an_account_is_counted_as_the_directory_compares_it(
        self, typed: str, counted: str
    ) -> None:
        assert account_name(typed, LAB) == counted

    @pytest.mark.parametrize(
        ("typed", "bound"),
        [
            ("alice", "alice@lab.example"),
            ("alice@LAB.EXAMPLE", "alice@lab.example"),
            ("lab.example\\alice", "alice@lab.example"),
            ("LAB\\alice", "LAB\\alice"),
            ("CORP\\alice", "CORP\\alice"),
            (" pat (it) ", "pat (it)@lab.example"),
            ("S-1-5-21-1-2-3-500", "S-1-5-21-1-2-3-500@lab.example"),
            ("*)(uid=*", "*)(uid=*@lab.example"),
        ],
    )
    def test_a_bare_name_is_never_bound_as_it_is(self, typed: str, bound: str) -> None:
        assert bind_name(typed, LAB) == bound

    @pytest.mark.parametrize(
        ("typed", "reason"),
        [
            ("", "malformed"),
            ("   ", "malformed"),
            ("@lab.example", "malformed"),
            ("LAB\\", "malformed"),
            ("\\alice", "malformed"),
            ("LAB\\x\\alice", "malformed"),
            ("LAB\\alice@lab.example", "malformed"),
            ("alice\0", "malformed"),
            ("ali\N{ZERO WIDTH SPACE}ce", "malformed"),
            ("alice\nlogin succeeded", "malformed"),
            ("\ud800", "malformed"),
            ("a" * 257, "malformed"),
            ("alice@other.example", "other_realm"),
            ("alice@lab.example.other", "other_realm"),
            ("alice@", "other_realm"),
        ],
    )
    def test_what_cannot_be_a_name_here_is_refused(self, typed: str, reason: Reason) -> None:
        with pytest.raises(SignInRefused) as caught:
            bind_name(typed, LAB)
        assert caught.value.reason == reason

    @given(st.text(max_size=300))
    def test_what_is_bound_is_always_a_name_in_a_domain(self, typed: str) -> None:
        try:
            bound = bind_name(typed, LAB)
        except SignInRefused:
            return
        assert bound.isprintable()
        account, at, realm = bound.rpartition("@")
        domain, backslash, rest = bound.partition("\\")
        assert (account and at and realm == "lab.example") or (domain and backslash and rest)

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("525", "unknown_account"),
            ("52e", "wrong_password"),
            ("52E", "wrong_password"),
            ("530", "not_now"),
            ("531", "not_here"),
            ("532", "password_expired"),
            ("533", "disabled"),
            ("701", "expired"),
            ("773", "must_change_password"),
            ("775", "locked"),
            ("fff", "refused"),
            ("", "refused"),
        ],
    )
    def test_the_reason_of_a_refusal_is_read_from_the_controllers_message(
        self, code: str, reason: Reason
    ) -> None:
        said = (
            "80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data %s, v4f7c"
        )
        assert refusal(said % code) == reason
        assert refusal("Invalid credentials") == "refused"

    def test_settings_are_compared_by_what_they_say(self) -> None:
        same = DirectorySettings(domain="lab.example", controllers=("dc1",))
        assert {same, msgspec.structs.replace(same)} == {same}
        assert same != LAB


class TestControllers:
    """Which controller is asked, and in which order. Pure, with a clock that the test sets."""

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("dc1.lab.example", "dc1.lab.example:636 (LDAPS)"),
            ("dc1:3269", "dc1:3269 (LDAPS)"),
            ("ldaps://dc1", "dc1:636 (LDAPS)"),
            ("LDAPS://dc1:1636/", "dc1:1636 (LDAPS)"),
            ("ldap://dc1", "dc1:389 (StartTLS)"),
            ("ldap://10.0.0.1:1389", "10.0.0.1:1389 (StartTLS)"),
            (" [fd00::1] ", "[fd00::1]:636 (LDAPS)"),
            ("ldap://[fd00::1]:3268", "[fd00::1]:3268 (StartTLS)"),
        ],
    )
    def test_an_address_says_how_the_line_is_secured(self, text: str, shown: str) -> None:
        assert str(parse_controller(text)) == shown
        in_clear = shown.replace("StartTLS", "clear text")
        assert str(parse_controller(text, clear_text=True)) == in_clear

    @pytest.mark.parametrize(
        "text",
        ["", "http://dc1", "dc1:0", "dc1:70000", "dc1:636:636", "dc 1", "ldap://", "dc1/base",
         "::1", "[:::]", "[127.0.0.1]", "user@dc1", "ldapi://dc1", "dc1\\"],
    )  # fmt: skip
    def test_what_is_no_address_is_refused_with_the_cure(self, text: str) -> None:
        with pytest.raises(ValueError, match="say HOST, HOST:PORT"):
            parse_controller(text)

    async def test_one_that_failed_is_asked_last_for_half_a_minute(self) -> None:
        now = 1000.0
        controllers = Controllers("lab.example", ["a", "b", "c"], clock=lambda: now)

        async def order() -> str:
            return "".join(each.host for each in await controllers.in_order())

        a, b, c = await controllers.in_order()
        assert await order() == "abc"
        controllers.failed(a)
        assert await order() == "bca"
        now += 10
        controllers.failed(b)
        assert await order() == "cab"
        now += 1
        controllers.failed(c)
        assert await order() == "abc"
        now += 20
        assert await order() == "abc"
        controllers.failed(a)
        assert await order() == "bca"
        now += 30
        assert await order() == "abc"


class TestWho:
    """Who comes in, under which name and in which groups."""

    @pytest.mark.parametrize(
        "form", ["alice", "ALICE", "LAB\\alice", "lab\\Alice", "alice@lab.example",
                 "Alice@LAB.EXAMPLE", "lab.example\\alice", " alice "],
    )  # fmt: skip
    async def test_every_form_of_a_name_signs_in_the_same_technician(
        self, directory: Directory, controller: DomainController, form: str
    ) -> None:
        found = await directory.sign_in(form, controller.password_of(ALICE))
        assert (found.name, found.display_name) == ("alice", "Alice Ng")

    async def test_groups_of_groups_count_and_others_do_not(
        self, directory: Directory, controller: DomainController
    ) -> None:
        alice = await directory.sign_in(ALICE, controller.password_of(ALICE))
        assert {"Imaging Techs", "Deploy Staff", "Everybody", "Domain Users"} <= {*alice.groups}
        assert "Imaging Crew" not in alice.groups
        bob = await directory.sign_in(BOB, controller.password_of(BOB))
        assert {*bob.groups}.isdisjoint({"Imaging Techs", "Deploy Staff", "Everybody"})
        assert bob.display_name is None

    async def test_the_primary_group_and_what_it_is_in_count_too(
        self, directory: Directory, controller: DomainController
    ) -> None:
        erin = await directory.sign_in(ERIN, controller.password_of(ERIN))
        assert {"Imaging Crew", "Deploy Staff", "Everybody"} <= {*erin.groups}
        assert "Imaging Techs" not in erin.groups

    @pytest.mark.parametrize("name", ODD)
    async def test_odd_characters_mean_nothing_else(
        self, directory: Directory, controller: DomainController, name: str
    ) -> None:
        for form in (name, name.upper(), f"LAB\\{name}", f"{name}@lab.example"):
            found = await directory.sign_in(form, controller.password_of(name))
            assert found.name == name
            assert ODD_GROUP in found.groups

    async def test_whoever_was_bound_gets_the_rights_whatever_name_was_typed(
        self, directory: Directory, controller: DomainController
    ) -> None:
        found = await directory.sign_in("robert.fox@lab.example", controller.password_of(ROBERT))
        assert found.name == ROBERT
        assert (await directory.sign_in("Robert.Fox", controller.password_of(ROBERT))) == found

    async def test_more_groups_than_one_question_holds_are_all_found(
        self, directory: Directory, controller: DomainController, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = await directory.sign_in(ALICE, controller.password_of(ALICE))
        monkeypatch.setattr("services.auth.directory._SIDS_AT_ONCE", 2)
        assert await directory.sign_in(ALICE, controller.password_of(ALICE)) == whole


class TestRefusals:
    """Who does not come in."""

    @pytest.mark.parametrize(
        ("user", "reason"),
        [
            (DISABLED, "disabled"),
            (EXPIRED, "expired"),
            (MUST_CHANGE, "must_change_password"),
            (LOCKED, "locked"),
            (NEVER_NOW, "not_now"),
        ],
    )
    async def test_the_log_learns_why_the_right_password_is_not_enough(
        self, directory: Directory, controller: DomainController, user: str, reason: Reason
    ) -> None:
        assert await refused(directory, user, controller.password_of(user)) == reason

    async def test_a_wrong_password_and_an_unknown_account_are_refused(
        self, directory: Directory, controller: DomainController
    ) -> None:
        assert await refused(directory, BOB, "wrong") == "wrong_password"
        assert (
            await refused(directory, BOB, controller.password_of(BOB).upper()) == "wrong_password"
        )
        unknown = await refused(directory, "nobody", controller.password_of(BOB))
        # Samba does not tell them apart.
        assert unknown in {"unknown_account", "wrong_password"}

    @pytest.mark.parametrize(
        "typed",
        ["*", "*)(uid=*", "alice)(|(sAMAccountName=*", "al*", "a\\2a", "LAB\\*", "alic\\65",
         "CN=alice,CN=Users,DC=lab,DC=example", "Alice Ng", "OTHER\\alice", "LAB\\alice ,x",
         "lab.example/Users/alice", "álice"],
    )  # fmt: skip
    async def test_no_name_stands_for_an_account_that_has_another(
        self, directory: Directory, controller: DomainController, typed: str
    ) -> None:
        await refused(directory, typed, controller.password_of(ALICE))

    @pytest.mark.parametrize(
        ("username", "password"),
        [
            ("alice", ""),
            ("", "password"),
            ("", ""),
            ("alice", "pass\0word"),
            ("ali\0ce", "password"),
            ("alice", "x" * 1025),
            ("alice", "x" * 10_240),
            ("x" * 257, "password"),
            ("alice", "\ud800"),
        ],
    )
    async def test_what_cannot_be_a_sign_in_is_refused_without_asking_anybody(
        self, username: str, password: str
    ) -> None:
        async with impostor(listening) as heard:
            with opened(DirectorySettings(domain="lab.example", controllers=(heard.at,))) as found:
                assert await refused(found, username, password) == "malformed"
            assert heard.connections == 0

    async def test_another_realm_is_refused_without_asking_anybody(self) -> None:
        async with impostor(listening) as heard:
            with opened(DirectorySettings(domain="lab.example", controllers=(heard.at,))) as found:
                assert await refused(found, "alice@other.example", "password") == "other_realm"
            assert heard.connections == 0

    async def test_a_controller_of_another_domain_lets_nobody_in(
        self, controller: DomainController
    ) -> None:
        other = msgspec.structs.replace(controller.settings, domain="other.example")
        with opened(other) as found:
            text = await unavailable(found, "LAB\\alice", controller.password_of(ALICE))
        assert "DC=other,DC=example" in text

    async def test_a_wrong_password_counts_once_however_many_controllers_there_are(
        self, controller: DomainController, directory: Directory
    ) -> None:
        address = controller.address
        several = msgspec.structs.replace(
            controller.settings, controllers=(address, f"ldap://{address}", f"{address}:3269")
        )
        before = controller.failures_of(ROBERT)
        with opened(several) as found:
            assert await refused(found, ROBERT, "wrong") == "wrong_password"
        assert controller.failures_of(ROBERT) == before + 1


class Heard:
    """What an impostor has heard."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.at = f"127.0.0.1:{port}"
        self.connections = 0
        self.said = bytearray()
        """All that was said to it, as it reads it: after TLS, if that came about."""


@asynccontextmanager
async def impostor(
    talk: Callable[[Heard, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Heard]:
    """A server that is no domain controller; with a context, TLS begins at once."""
    heard = Heard(free_port())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        try:
            await talk(heard, reader, writer)
            await listening(heard, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", heard.port, ssl=context)
    async with server:
        yield heard


async def listening(
    heard: Heard, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
) -> None:
    while data := await reader.read(4096):
        heard.said += data


def answer(asked: bytes, kind: int, code: int) -> bytes:
    """An LDAP result for a message: of an application tag, with a result code."""
    identity = asked[2 : 4 + asked[3]]
    body = identity + bytes([kind, 7, 10, 1, code, 4, 0, 4, 0])
    return bytes([0x30, len(body)]) + body


EXTENDED, BIND = 0x78, 0x61


def context_of(folder: Path, authority: Authority, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(folder, *names))
    return context


def at(heard: Heard, controller: DomainController, scheme: str = "ldaps") -> DirectorySettings:
    return msgspec.structs.replace(controller.settings, controllers=(f"{scheme}://{heard.at}",))


class TestSecrecy:
    """The password is said to the domain's own controllers alone, and kept nowhere."""

    PASSWORD = "Kein-Mensch-liest-das-7"

    @pytest.mark.parametrize("names", [("dc2.lab.example", "127.0.0.2"), ("dc1.lab.example",)])
    async def test_a_certificate_for_another_host_is_refused(
        self, controller: DomainController, tmp_path: Path, names: tuple[str, ...]
    ) -> None:
        context = context_of(tmp_path, controller.authority, *names)
        async with impostor(listening, context) as heard:
            with opened(at(heard, controller)) as found:
                assert "not valid for" in await unavailable(found, password=self.PASSWORD)
            assert not heard.connections
            assert not heard.said

    async def test_a_certificate_of_another_authority_is_refused(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        context = context_of(tmp_path, Authority("Somebody else"), "127.0.0.1")
        async with impostor(listening, context) as heard:
            with opened(at(heard, controller)) as found:
                text = await unavailable(found, password=self.PASSWORD)
                assert "unable to get local issuer certificate" in text
            assert not heard.connections
            assert not heard.said

    async def test_without_a_file_the_systems_authorities_are_trusted_and_no_others(
        self, controller: DomainController
    ) -> None:
        with opened(msgspec.structs.replace(controller.settings, ca_file=None)) as found:
            assert "CERTIFICATE_VERIFY_FAILED" in await unavailable(found)

    async def test_a_file_of_authorities_that_is_missing_lets_nobody_in(
        self, controller: DomainController
    ) -> None:
        with opened(msgspec.structs.replace(controller.settings, ca_file="/missing.pem")) as found:
            password = controller.password_of(ALICE)
            assert "No such file" in await unavailable(found, ALICE, password)

    @pytest.mark.filterwarnings("ignore:.*TLSv1_1:DeprecationWarning")
    async def test_a_tls_of_old_is_refused(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with impostor(listening, context) as heard:
            with opened(at(heard, controller)) as found:
                await unavailable(found, password=self.PASSWORD)
            assert not heard.connections
            assert not heard.said

    async def test_a_good_certificate_is_what_it_takes(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        """The counter-proof: with the right certificate these impostors would hear it."""
        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(listening, context) as heard:
            with opened(at(heard, controller)) as found:
                await unavailable(found, password=self.PASSWORD)
            assert self.PASSWORD.encode() in heard.said

    @pytest.mark.parametrize("code", [1, 2, 52, 53])
    async def test_starttls_that_is_refused_is_no_reason_to_go_on_in_clear_text(
        self, controller: DomainController, code: int
    ) -> None:
        async def refuse(
            heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            asked = await reader.read(4096)
            heard.said += asked
            writer.write(answer(asked, EXTENDED, code))

        async with impostor(refuse) as heard:
            with opened(at(heard, controller, "ldap")) as found:
                text = await unavailable(found, password=self.PASSWORD)
            assert "startTLS failed" in text
            assert b"1.3.6.1.4.1.1466.20037" in heard.said
            assert self.PASSWORD.encode() not in heard.said

    @pytest.mark.parametrize("injected", [b"", b"bind", b"hang up"])
    async def test_starttls_with_a_wrong_certificate_and_a_word_put_in_lets_nobody_in(
        self, controller: DomainController, tmp_path: Path, injected: bytes
    ) -> None:
        context = context_of(tmp_path, Authority("Somebody else"), "127.0.0.1")

        async def upgrade(
            heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            asked = await reader.read(4096)
            writer.write(answer(asked, EXTENDED, 0))
            if injected == b"bind":
                following = asked[:4] + bytes([asked[4] + 1]) + asked[5:]
                writer.write(answer(following, BIND, 0))
            if injected == b"hang up":
                return
            await writer.start_tls(context)

        async with impostor(upgrade) as heard:
            with opened(at(heard, controller, "ldap")) as found:
                await unavailable(found, password=self.PASSWORD)
            assert self.PASSWORD.encode() not in heard.said

    async def test_starttls_signs_in(self, controller: DomainController) -> None:
        settings = msgspec.structs.replace(
            controller.settings, controllers=(f"ldap://{controller.address}",)
        )
        with opened(settings) as found:
            assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_clear_text_is_spoken_where_it_is_asked_for_and_only_by_that_address(
        self, controller: DomainController
    ) -> None:
        async with impostor(listening) as heard:
            in_clear = msgspec.structs.replace(at(heard, controller, "ldap"), clear_text=True)
            with opened(in_clear) as found:
                await unavailable(found, password=self.PASSWORD)
            assert self.PASSWORD.encode() in heard.said
        async with impostor(listening) as heard:
            secured = msgspec.structs.replace(at(heard, controller), clear_text=True)
            with opened(secured) as found:
                await unavailable(found, password=self.PASSWORD)
            assert self.PASSWORD.encode() not in heard.said
        settings = msgspec.structs.replace(
            controller.settings, controllers=(f"ldap://{controller.address}",), clear_text=True
        )
        with opened(settings) as found:
            assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_the_password_is_kept_nowhere(
        self, directory: Directory, controller: DomainController, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        password = controller.password_of(ALICE)
        await directory.sign_in(ALICE, password)
        await refused(directory, ALICE, self.PASSWORD)
        with controller.stopped():
            text = await unavailable(directory, ALICE, self.PASSWORD)
        for secret in (password, self.PASSWORD):
            assert secret not in caplog.text + text
            assert not _reachable(directory, secret)
        assert _reachable(directory, "lab.example"), "the search finds what is there"

    async def test_the_password_is_gone_when_the_answer_is_there(
        self, directory: Directory, controller: DomainController
    ) -> None:
        """Without waiting for the garbage collector."""
        secrets = {user: controller.password_of(user) for user in (ALICE, EXPIRED)}
        secrets[BOB] = self.PASSWORD
        gc.collect()
        gc.disable()
        try:
            for user, secret in secrets.items():
                with contextlib.suppress(SignInRefused):
                    await directory.sign_in(user, secret)
            assert [_holders(secret.encode()) for secret in secrets.values()] == [[], [], []]
            held = [self.PASSWORD.encode()]
            assert _holders(self.PASSWORD.encode()) == ["list"], held
        finally:
            gc.enable()


def _holders(secret: bytes) -> list[str]:
    """The types of whatever holds these bytes, as the directory sends them."""
    return [
        type(holder).__name__
        for holder in gc.get_objects()
        for held in gc.get_referents(holder)
        if isinstance(held, bytes | bytearray) and secret in held and held is not secret
    ]


def _reachable(start: object, secret: str) -> bool:
    """Whether anything that an object holds, however deep, contains a text."""
    elsewhere = (type, types.ModuleType, types.FunctionType, types.FrameType, types.CoroutineType,
                 asyncio.AbstractEventLoop, asyncio.Task)  # fmt: skip
    seen: set[int] = set()
    left = [start]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, elsewhere):
            continue
        seen.add(id(each))
        if isinstance(each, str) and secret in each:
            return True
        if isinstance(each, bytes | bytearray) and secret.encode() in each:
            return True
        left += gc.get_referents(each)
    return False


class TestTrouble:
    """Controllers that are gone, or hang: nobody is let in, and nobody waits for long."""

    @pytest.mark.parametrize("gently", [True, False])
    async def test_a_controller_that_is_gone_comes_back(
        self, directory: Directory, controller: DomainController, gently: bool
    ) -> None:
        with controller.stopped(gently=gently):
            assert "Connection refused" in await unavailable(directory)
        assert (await directory.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_a_controller_that_hangs_holds_nobody_up(
        self, directory: Directory, controller: DomainController
    ) -> None:
        with controller.hanging():
            # Both wait for a second: the step that hangs, and whoever waits for the step.
            assert re.search("not reached within 1 s|timed out", await unavailable(directory))
        assert (await directory.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    @pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
    async def test_an_answer_that_never_comes_holds_nobody_up(
        self, controller: DomainController, scheme: str
    ) -> None:
        with hanging_server() as port:
            settings = msgspec.structs.replace(
                controller.settings, controllers=(f"{scheme}://127.0.0.1:{port}",)
            )
            with opened(settings) as found:
                await unavailable(found)

    @pytest.mark.parametrize("beginning", [b"\x16\x03\x03\x3f\xff", b"\x30\x84\x00\x00\xff\xff"])
    @pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
    async def test_an_answer_before_tls_that_trickles_holds_nobody_up(
        self, controller: DomainController, scheme: str, beginning: bytes
    ) -> None:
        async def trickle(
            _heard: Heard, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            # That of a TLS handshake, or of an LDAP message, which are long.
            writer.write(beginning)
            while not writer.is_closing():
                await asyncio.sleep(0.2)
                writer.write(b"\x02")
                await writer.drain()

        async with impostor(trickle) as heard:
            with opened(at(heard, controller, scheme)) as found:
                await unavailable(found)

    async def test_an_answer_to_the_bind_that_trickles_holds_nobody_up(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        async def trickle(
            _heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.read(4096)
            writer.write(b"\x30\x84\x00\x00\xff\xff")
            while not writer.is_closing():
                await asyncio.sleep(0.2)
                writer.write(b"\x02")
                await writer.drain()

        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(trickle, context) as heard:
            with opened(at(heard, controller)) as found:
                assert "does not finish within" in await unavailable(found)

    @pytest.mark.parametrize(
        "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, b"\x30\x03\x02\x01\x01", b""]
    )
    async def test_what_is_no_directory_is_told_as_such(
        self, controller: DomainController, tmp_path: Path, garbage: bytes
    ) -> None:
        async def babble(
            _heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.read(4096)
            writer.write(garbage)
            await writer.drain()
            writer.close()

        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(babble, context) as heard:
            with opened(at(heard, controller)) as found:
                await unavailable(found)
        async with impostor(babble) as heard:
            with opened(at(heard, controller, "ldap")) as found:
                await unavailable(found)

    @pytest.mark.parametrize("code", [8, 51, 52, 80])
    async def test_a_controller_that_cannot_answer_the_bind_refuses_nobody(
        self, controller: DomainController, tmp_path: Path, code: int
    ) -> None:
        async def busy(
            _heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(answer(await reader.read(4096), BIND, code))

        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(busy, context) as heard:
            both = msgspec.structs.replace(
                controller.settings, controllers=(heard.at, controller.address)
            )
            with opened(both) as found:
                assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    @pytest.mark.parametrize("code", [32, 34, 48])
    async def test_a_name_that_a_controller_cannot_read_is_refused_and_the_controller_is_well(
        self, controller: DomainController, tmp_path: Path, code: int
    ) -> None:
        async def puzzled(
            _heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(answer(await reader.read(4096), BIND, code))

        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(puzzled, context) as heard:
            both = msgspec.structs.replace(
                controller.settings, controllers=(heard.at, controller.address)
            )
            with opened(both) as found:
                for _ in range(2):
                    assert await refused(found, "a=b,c=d", "password") == "refused"
            assert heard.connections == 2

    async def test_the_second_is_asked_when_the_first_hangs_and_then_comes_first(
        self, controller: DomainController
    ) -> None:
        async with impostor(listening) as heard:
            both = msgspec.structs.replace(
                controller.settings, controllers=(heard.at, controller.address)
            )
            with opened(both) as found:
                for _ in range(3):
                    async with asyncio.timeout(PROMISED):
                        signed_in = await found.sign_in(ALICE, controller.password_of(ALICE))
                    assert signed_in.name == ALICE
            assert heard.connections == 1

    async def test_the_second_is_asked_when_the_first_is_gone(
        self, controller: DomainController
    ) -> None:
        dead = f"ldap://127.0.0.1:{free_port()}"
        both = msgspec.structs.replace(controller.settings, controllers=(dead, controller.address))
        with opened(both) as found:
            assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_a_crowd_at_a_hanging_controller_is_answered_and_then_let_in(
        self, directory: Directory, controller: DomainController
    ) -> None:
        with controller.hanging():
            await asyncio.gather(*(unavailable(directory) for _ in range(60)))
        for _ in range(10):
            assert (await directory.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_a_crowd_comes_in_by_the_second_when_the_first_hangs(
        self, controller: DomainController
    ) -> None:
        with hanging_server() as port:
            both = msgspec.structs.replace(
                controller.settings, controllers=(f"127.0.0.1:{port}", controller.address)
            )
            with opened(both) as found:
                password = controller.password_of(ALICE)
                people = await asyncio.gather(*(found.sign_in(ALICE, password) for _ in range(20)))
        assert {each.name for each in people} == {ALICE}

    async def test_threads_that_are_all_busy_hold_nobody_up_and_come_back(
        self, controller: DomainController, directory: Directory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that the system takes long to resolve keeps a thread that nobody can end."""
        wanted = asyncio.Event()
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def resolve(*_: object, **__: object) -> object:
            loop.call_soon_threadsafe(wanted.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
            raise socket.gaierror("no such host")

        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", resolve)
            crowd = [asyncio.create_task(unavailable(directory)) for _ in range(20)]
            await wanted.wait()
            await asyncio.gather(*crowd)
            assert "no answer within" in await unavailable(directory)
        release.set()
        assert (await directory.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_whoever_gives_up_leaves_nothing_behind(
        self, directory: Directory, controller: DomainController
    ) -> None:
        with controller.hanging():
            crowd = [asyncio.create_task(directory.sign_in(ALICE, "pw")) for _ in range(20)]
            await asyncio.sleep(0.1)
            for each in crowd:
                each.cancel()
            async with asyncio.timeout(PROMISED):
                ends = await asyncio.gather(*crowd, return_exceptions=True)
        assert {type(each) for each in ends} == {asyncio.CancelledError}
        assert (await directory.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE

    async def test_a_directory_that_was_closed_lets_nobody_in(
        self, controller: DomainController
    ) -> None:
        with opened(controller.settings) as found:
            pass
        assert "over" in await unavailable(found, ALICE, controller.password_of(ALICE))

    async def test_an_address_that_is_none_lets_nobody_in(
        self, controller: DomainController
    ) -> None:
        wrong = msgspec.structs.replace(
            controller.settings, controllers=(controller.address, "http://dc1")
        )
        with opened(wrong) as found:
            assert "'http://dc1'" in await unavailable(found)


class TestDns:
    """Controllers that are found by DNS: Samba's own, on the controller's address."""

    async def test_controllers_are_found_by_dns_and_secured_by_starttls(
        self, controller: DomainController
    ) -> None:
        settings = msgspec.structs.replace(controller.settings, controllers=())
        with opened(settings, nameserver=controller.nameserver) as found:
            assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE
            (examined,) = await found.examine()
        assert examined.controller == "dc1.lab.example:389 (StartTLS)"
        assert examined.trouble is None

    async def test_a_domain_that_dns_does_not_know_has_no_controllers(
        self, controller: DomainController
    ) -> None:
        settings = DirectorySettings(domain="nowhere.lab.example", ca_file=controller.ca_file)
        with opened(settings, nameserver=controller.nameserver) as found:
            assert "NXDOMAIN" in await unavailable(found)
            (examined,) = await found.examine()
        assert examined.controller == "nowhere.lab.example"
        assert "NXDOMAIN" in str(examined.trouble)

    async def test_a_nameserver_that_never_answers_holds_nobody_up(
        self, controller: DomainController
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            settings = msgspec.structs.replace(controller.settings, controllers=())
            with opened(settings, nameserver=silent.getsockname()) as found:
                assert "LifetimeTimeout" in await unavailable(found)

    async def test_what_dns_said_before_counts_while_it_does_not_answer(
        self, controller: DomainController
    ) -> None:
        now = 1000.0
        controllers = Controllers(
            "lab.example", (), nameserver=controller.nameserver, clock=lambda: now
        )
        before = await controllers.in_order()
        assert [each.host for each in before] == ["dc1.lab.example"]
        with controller.hanging():
            assert await controllers.in_order() == before
            now += 10_000
            assert await controllers.in_order() == before

    @pytest.mark.parametrize("domain", ["", ".", "a..b", "x" * 64 + ".example", "lab example"])
    async def test_a_domain_that_is_no_name_lets_nobody_in(
        self, controller: DomainController, domain: str
    ) -> None:
        settings = DirectorySettings(domain=domain, ca_file=controller.ca_file)
        with opened(settings, nameserver=controller.nameserver) as found:
            await unavailable(found)


SERVICES = "SRV _ldap._tcp.dc._msdcs.lab.example."


def said_of(zone: dict[str, list[str]], asked: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(asked)
    (question,) = asked.question
    kind = dns.rdatatype.to_text(question.rdtype)
    if records := zone.get(f"{kind} {question.name.to_text()}"):
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
    return reply


@asynccontextmanager
async def nameserver(zone: dict[str, list[str]]) -> AsyncIterator[tuple[str, int]]:
    """A nameserver that says what a test wants, as a forger might."""
    loop = asyncio.get_running_loop()

    async def serve(listener: socket.socket) -> None:
        while True:
            data, sender = await loop.sock_recvfrom(listener, 4096)
            reply = said_of(zone, dns.message.from_wire(data)).to_wire()
            await loop.sock_sendto(listener, reply, sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        serving = asyncio.create_task(serve(listener))
        try:
            yield listener.getsockname()
        finally:
            await end(serving)


class TestForgedDns:
    """What DNS says is not believed when it would say whom to trust."""

    async def test_the_order_is_that_of_dns_and_other_domains_hosts_do_not_count(self) -> None:
        said = [
            "20 100 389 c.lab.example.", "0 100 389 dc.evil.example.", "10 100 1389 b.lab.example.",
            "0 100 0 z.lab.example.", "0 100 389 a.Lab.Example.", "0 0 389 .",
            "0 100 389 evillab.example.",
        ]  # fmt: skip
        async with nameserver({SERVICES: said}) as at_port:
            controllers = Controllers("lab.example", (), nameserver=at_port)
            found = [f"{each.host}:{each.port}" for each in await controllers.in_order()]
        assert found == ["a.Lab.Example:389", "b.lab.example:1389", "c.lab.example:389"]

    async def test_what_dns_said_is_asked_again_after_a_while(self) -> None:
        now = 1000.0
        zone = {SERVICES: ["0 100 389 a.lab.example."]}
        async with nameserver(zone) as at_port:
            controllers = Controllers("lab.example", (), nameserver=at_port, clock=lambda: now)

            async def hosts() -> list[str]:
                return [each.host for each in await controllers.in_order()]

            assert await hosts() == ["a.lab.example"]
            zone[SERVICES] = ["0 100 389 b.lab.example."]
            now += 59
            assert await hosts() == ["a.lab.example"]
            now += 1
            assert await hosts() == ["b.lab.example"]

    async def test_an_address_that_is_forged_shows_no_good_certificate(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        async def upgrade(
            _heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(answer(await reader.read(4096), EXTENDED, 0))
            await writer.start_tls(context)

        # Good for the address, which nobody has named.
        context = context_of(tmp_path, controller.authority, "127.0.0.1", "web.lab.example")
        async with impostor(upgrade) as heard:
            zone = {
                SERVICES: [f"0 100 {heard.port} dc1.lab.example."],
                "A dc1.lab.example.": ["127.0.0.1"],
            }
            settings = msgspec.structs.replace(controller.settings, controllers=())
            async with nameserver(zone) as at_port:
                with opened(settings, nameserver=at_port) as found:
                    text = await unavailable(found, password=TestSecrecy.PASSWORD)
            assert "Hostname mismatch" in text
            assert not heard.said

    async def test_a_host_without_an_address_is_passed_over(
        self, controller: DomainController
    ) -> None:
        zone = {
            SERVICES: ["0 100 389 gone.lab.example.", "10 100 389 dc1.lab.example."],
            "A dc1.lab.example.": [controller.address],
        }
        settings = msgspec.structs.replace(controller.settings, controllers=())
        async with nameserver(zone) as at_port:
            with opened(settings, nameserver=at_port) as found:
                assert (await found.sign_in(ALICE, controller.password_of(ALICE))).name == ALICE
                gone, good = await found.examine()
        assert (gone.trouble, good.trouble) != (None, None)


class TestExamining:
    """What `imageinvoker doctor` learns."""

    async def test_each_controller_is_told_with_what_is_wrong(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        context = context_of(tmp_path, Authority("Somebody else"), "127.0.0.1")
        async with impostor(listening, context) as heard:
            settings = msgspec.structs.replace(
                controller.settings,
                controllers=(
                    controller.address,
                    f"ldap://{controller.address}",
                    heard.at,
                    f"127.0.0.1:{free_port()}",
                ),
            )
            with opened(settings) as found:
                good, upgraded, wrong, gone = await found.examine()
        assert (good.trouble, upgraded.trouble) == (None, None)
        assert good.controller == f"{controller.address}:636 (LDAPS)"
        assert upgraded.controller == f"{controller.address}:389 (StartTLS)"
        assert "CERTIFICATE_VERIFY_FAILED" in str(wrong.trouble)
        assert "Connection refused" in str(gone.trouble)

    async def test_examining_binds_nobody(
        self, controller: DomainController, tmp_path: Path
    ) -> None:
        context = context_of(tmp_path, controller.authority, "127.0.0.1")
        async with impostor(listening, context) as heard:
            with opened(at(heard, controller)) as found:
                assert [each.trouble for each in await found.examine()] == [None]
            # An unbind, which is seven bytes, is all that was said.
            assert len(heard.said) <= 8
