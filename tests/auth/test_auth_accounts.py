"""A site's own accounts: two buckets that agree, whoever works at them and whatever is cut off."""

import asyncio
import itertools
import random
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from nats.js import JetStreamContext
from nats.js.api import PubAck, RawStreamMsg
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.technicians import Technician, folded, key_of, technician_decoder, technician_key
from services.auth.accounts import (
    Account,
    AccountExistsError,
    Accounts,
    BadAccountError,
    NoSuchAccountError,
    account_name,
    group_names,
    shown_name,
    technician_of,
)

SINCE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def an_account(name: str = "Alice", password_hash: str = "hash-1") -> Account:
    return Account(
        name=name, password_hash=password_hash, display_name="Alice Example", created_at=SINCE
    )


@pytest.fixture
async def stream(connection: Connection) -> JetStreamContext:
    stream = connection.jetstream()
    await prepare(stream)
    return stream


@pytest.fixture
async def accounts(stream: JetStreamContext) -> Accounts:
    return await accounts_over(stream)


async def accounts_over(stream: JetStreamContext, site: str = "main") -> Accounts:
    return Accounts(
        stream,
        await stream.key_value(subjects.ACCOUNTS),
        await stream.key_value(subjects.TECHNICIANS),
        site,
    )


async def in_force(stream: JetStreamContext, name: str, site: str = "main") -> Technician | None:
    """What the menu service and the scheduler know of an account."""
    bucket = await stream.key_value(subjects.TECHNICIANS)
    try:
        entry = await bucket.get(subjects.site_key(site, technician_key("server", name)))
    except nats.js.errors.KeyNotFoundError:
        return None
    return technician_decoder.decode(entry.value or b"")


async def test_an_account_is_found_as_it_was_added_and_is_known_to_the_other_services(
    connection: Connection, stream: JetStreamContext
) -> None:
    accounts = await Accounts.open(connection, "main")
    added = await accounts.add(an_account(), ("Staff", "Exam Team"))
    assert await accounts.find("Alice") == added
    assert (added.password_hash, added.created_at) == ("hash-1", SINCE)
    assert await in_force(stream, "alice") == Technician(
        name="Alice",
        display_name="Alice Example",
        groups=("Staff", "Exam Team"),
        generation=added.generation,
    )


async def test_the_other_services_are_told_no_hash(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    added = await accounts.add(an_account(password_hash="$argon2id$secret"), ("Staff",))
    bucket = await stream.key_value(subjects.TECHNICIANS)
    entry = await bucket.get(subjects.site_key("main", technician_key("server", "Alice")))
    assert b"argon2" not in (entry.value or b"")
    assert "argon2" not in f"{added!r} {added}"


@pytest.mark.parametrize("typed", ["alice", "ALICE", "  Alice ", "Ａｌｉｃｅ"])
async def test_names_compare_in_any_case_and_form(accounts: Accounts, typed: str) -> None:
    added = await accounts.add(an_account())
    assert await accounts.find(typed) == added
    with pytest.raises(AccountExistsError, match="'Alice'"):
        await accounts.add(an_account(typed, "hash-2"))
    assert (await accounts.remove(typed)).name == "Alice"


@pytest.mark.parametrize(
    "typed", ["", "bob", "LAB\\alice", "alice@lab", "*", "alice\0", "x" * 9999]
)
async def test_nobody_else_is_found(accounts: Accounts, typed: str) -> None:
    await accounts.add(an_account())
    assert await accounts.find(typed) is None


async def test_sites_do_not_share_accounts(stream: JetStreamContext) -> None:
    here, there = await accounts_over(stream, "here"), await accounts_over(stream, "there")
    await here.add(an_account())
    assert await there.find("Alice") is None
    assert await there.everybody() == []
    with pytest.raises(NoSuchAccountError):
        await there.remove("Alice")
    assert await here.find("Alice")


async def test_a_new_password_voids_sessions_and_keeps_groups(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    before = await accounts.add(an_account(), ("Staff",))
    after = await accounts.set_password("alice", "hash-2")
    assert (after.password_hash, after.groups) == ("hash-2", ("Staff",))
    assert after.generation == before.generation + 1
    assert await accounts.find("Alice") == after
    assert await in_force(stream, "Alice") == technician_of(after)


async def test_a_removed_account_is_gone_from_both_buckets(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    await accounts.add(an_account(), ("Staff",))
    await accounts.remove("alice")
    assert (await accounts.find("Alice"), await in_force(stream, "Alice")) == (None, None)
    for change in (
        accounts.remove("Alice"),
        accounts.set_password("Alice", "hash-2"),
        accounts.join("Alice", ("Staff",)),
        accounts.leave("Alice", ("Staff",)),
    ):
        with pytest.raises(NoSuchAccountError, match="'Alice'"):
            await change
    assert await accounts.everybody() == []


async def test_an_account_that_is_added_anew_does_not_revive_old_sessions(
    accounts: Accounts,
) -> None:
    seen = set()
    for _ in range(5):
        seen.add((await accounts.add(an_account())).generation)
        seen.add((await accounts.set_password("Alice", "hash-2")).generation)
        await accounts.remove("Alice")
    assert len(seen) == 10
    assert 0 not in seen, "what directories have"
    assert max(seen) < 2**53, "JSON numbers are exact up to here"


async def test_groups_are_joined_and_left_in_any_case_once(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    first = await accounts.add(an_account(), ("Staff", "staff"))
    assert first.groups == ("Staff",)
    after, joined = await accounts.join("alice", ("STAFF", "Exams", "exams"))
    assert (after.groups, joined) == (("Staff", "Exams"), ("Exams",))
    after, left = await accounts.leave("ALICE", ("staff", "Strangers"))
    assert (after.groups, left) == (("Exams",), ("Staff",))
    assert after.generation == first.generation, "who is signed in stays so"
    assert await in_force(stream, "alice") == technician_of(after)


async def test_everybody_is_listed_by_name_with_what_the_services_know(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    for name in ("bob", "Alice", "Émile", "carol"):
        await accounts.add(an_account(name), (f"of {name}",))
    bucket = await stream.key_value(subjects.TECHNICIANS)
    await bucket.put(
        subjects.site_key("main", technician_key("domain", "dave")), b'{"name":"dave"}'
    )
    await bucket.delete(subjects.site_key("main", technician_key("server", "bob")))
    listed = await accounts.everybody()
    assert [account.name for account, _ in listed] == ["Alice", "bob", "carol", "Émile"]
    assert [technician == technician_of(account) for account, technician in listed] == [
        True, False, True, True,
    ]  # fmt: skip


async def test_what_cannot_be_read_lets_nobody_in_and_can_be_added_anew(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    bucket = await stream.key_value(subjects.ACCOUNTS)
    await bucket.put(subjects.site_key("main", key_of("Alice")), b'{"name": 7}')
    with capture_logs() as log:
        assert await accounts.find("Alice") is None
        assert await accounts.everybody() == []
        added = await accounts.add(an_account())
    assert {line["event"] for line in log} == {"an account cannot be read"}
    assert await accounts.find("Alice") == added


# Names.


def plain_account_name(text: str) -> bool:
    """The rule, said slowly."""
    name = text.strip()
    if not 1 <= len(name) <= 104 or len(unicodedata.normalize("NFKC", name)) > 104:
        return False
    for char in name:
        if not char.isprintable():
            return False
        for wide in unicodedata.normalize("NFKC", char):
            if wide in '\\/@:*?"<>|':
                return False
    return bool(folded(name))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12) | st.text(alphabet='aB .\\/@:*?"<>|＠＼：\t\0é\u200b', max_size=4))
@example("a" * 104)
@example("a" * 105)
@example("ﷺ" * 6)  # eighteen characters each, once normal
@example("LAB＼alice")
@example("alice\n")
@example("\ud800")
def test_the_names_of_accounts_obey_the_rule(text: str) -> None:
    if plain_account_name(text):
        assert account_name(text) == text.strip()
    else:
        with pytest.raises(BadAccountError, match="1 to 104 printable"):
            account_name(text)


@pytest.mark.parametrize("bad", ["", "  ", "a\tb", "x" * 257, "\u202egroup"])
def test_a_groups_name_is_printable_and_of_bounded_length(bad: str) -> None:
    with pytest.raises(BadAccountError, match="1 to 256 printable"):
        group_names(["Staff", bad])
    if len(bad) > 2:
        with pytest.raises(BadAccountError, match="256 printable"):
            shown_name(bad)


async def test_an_account_is_in_256_groups_at_most(accounts: Accounts) -> None:
    await accounts.add(an_account(), [f"group {number}" for number in range(256)])
    with pytest.raises(BadAccountError, match="256 groups"):
        await accounts.join("Alice", ("one more",))
    assert (await accounts.join("Alice", ("Group 7",)))[1] == ()


async def test_a_bad_name_is_refused_before_anything_is_written(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    for bad, groups in (("a@b", ()), ("alice", ("",))):
        with pytest.raises(BadAccountError):
            await accounts.add(an_account(bad), groups)
    assert await accounts.everybody() == []


# A command is cut off.


class Cut(JetStreamContext):
    """A line to the bus that is cut at one of the writes: before it, or before its answer."""

    def __init__(self, connection: Connection, writes: int, *, written: bool) -> None:
        super().__init__(connection)
        self._writes = writes
        self._written = written
        self.cut = False

    async def publish(self, *values: Any, **named: Any) -> PubAck:
        if self.cut or self._writes == 0:
            if self._written and not self.cut:
                await super().publish(*values, **named)
            self.cut = True
            raise nats.errors.ConnectionClosedError
        self._writes -= 1
        return await super().publish(*values, **named)


async def rights(
    accounts: Accounts, stream: JetStreamContext, session: int | None
) -> dict[str, frozenset[str]]:
    """What groups somebody has with an old session, and after signing in with either password."""
    account, technician = await accounts.find("Alice"), await in_force(stream, "Alice")

    def with_generation(generation: int | None) -> frozenset[str]:
        known = technician is not None and technician.generation == generation
        return frozenset(technician.groups) if technician and known else frozenset()

    def after_login(password_hash: str) -> frozenset[str]:
        right = account is not None and account.password_hash == password_hash
        return with_generation(account.generation) if account and right else frozenset()

    return {
        "session": with_generation(session),
        "old password": after_login("hash-1"),
        "new password": after_login("hash-2"),
    }


CUT_OFF: dict[str, Callable[[Accounts], Awaitable[object]]] = {
    "add": lambda accounts: accounts.add(an_account(), ("Staff", "Exams")),
    "remove": lambda accounts: accounts.remove("Alice"),
    "password": lambda accounts: accounts.set_password("Alice", "hash-2"),
    "join": lambda accounts: accounts.join("Alice", ("Labs",)),
    "leave": lambda accounts: accounts.leave("Alice", ("Exams",)),
}


@pytest.mark.parametrize("command", CUT_OFF)
@pytest.mark.parametrize("written", [False, True])
async def test_a_command_that_is_cut_off_gives_no_rights_and_is_mended_by_running_it_again(
    connection: Connection,
    stream: JetStreamContext,
    accounts: Accounts,
    command: str,
    written: bool,
) -> None:
    work = CUT_OFF[command]
    for writes in itertools.count():
        session = None
        if command != "add":
            session = (await accounts.add(an_account(), ("Staff", "Exams"))).generation
        before = await rights(accounts, stream, session)
        line = Cut(connection, writes, written=written)
        try:
            await work(await accounts_over(line))
        except nats.errors.ConnectionClosedError:
            assert line.cut
        between = await rights(accounts, stream, session)
        if line.cut:
            # Where it had been done before the line was cut, it is refused, and mends all the same.
            with suppress(AccountExistsError, NoSuchAccountError):
                await work(accounts)
        after = await rights(accounts, stream, session)
        for way, groups in between.items():
            assert groups in (before[way], after[way], frozenset()), (writes, way)
        account, technician = await accounts.find("Alice"), await in_force(stream, "Alice")
        assert technician == (technician_of(account) if account else None), writes
        expected = {
            "add": {"Staff", "Exams"},
            "remove": None,
            "password": {"Staff", "Exams"},
            "join": {"Staff", "Exams", "Labs"},
            "leave": {"Staff"},
        }[command]
        assert (set(account.groups) if account else None) == expected
        if command in {"remove", "password"}:
            assert not after["session"]
            # The first write is what ends sessions.
            assert not between["session"] or writes == 0
        if account:
            await accounts.remove("Alice")
        if not line.cut:
            assert writes >= 2, "it was cut at every write"
            return


async def test_a_technician_without_an_account_goes_when_the_removal_is_run_again(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    """What is left if a removal is cut off while another command puts the technician back."""
    await accounts.add(an_account(), ("Staff",))
    bucket = await stream.key_value(subjects.ACCOUNTS)
    await bucket.delete(subjects.site_key("main", key_of("Alice")))
    with pytest.raises(NoSuchAccountError):
        await accounts.remove("Alice")
    assert await in_force(stream, "Alice") is None


# Two operators at once.


async def test_of_many_who_add_one_name_one_does(
    accounts: Accounts, stream: JetStreamContext
) -> None:
    results = await asyncio.gather(
        *(
            accounts.add(an_account(password_hash=f"hash-{each}"), (str(each),))
            for each in range(8)
        ),
        return_exceptions=True,
    )
    (added,) = [each for each in results if isinstance(each, Account)]
    assert sum(isinstance(each, AccountExistsError) for each in results) == 7
    assert await accounts.find("Alice") == added
    assert await in_force(stream, "Alice") == technician_of(added)


class Stepped(JetStreamContext):
    """A line to the bus on which each read and each write waits until the test lets it go."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        loop = asyncio.get_running_loop()
        self._arrived = loop.create_future()
        self._go = loop.create_future()

    async def step(self, task: "asyncio.Task[object]") -> None:
        """Lets one read or write go; returns when the next one waits, or all is done."""
        if self._arrived.done():
            go, loop = self._go, asyncio.get_running_loop()
            self._arrived, self._go = loop.create_future(), loop.create_future()
            go.set_result(None)
        waiting: set[asyncio.Future[Any]] = {task, self._arrived}
        done, _ = await asyncio.wait(waiting, timeout=10, return_when="FIRST_COMPLETED")
        assert done, "the command neither ends nor asks the bus"

    async def _wait(self) -> None:
        self._arrived.set_result(None)
        await self._go

    async def publish(self, *values: Any, **named: Any) -> PubAck:
        await self._wait()
        return await super().publish(*values, **named)

    async def get_msg(self, *values: Any, **named: Any) -> RawStreamMsg:
        await self._wait()
        return await super().get_msg(*values, **named)


class State(Struct, frozen=True):
    """An account, as far as commands can tell."""

    password_hash: str
    groups: tuple[str, ...]


def carried_out(command: tuple[str, str], state: State | None) -> tuple[State | None, object]:
    """What a command makes of an account, and what it says; slowly and alone."""
    kind, value = command
    if kind == "add":
        return (state, "exists") if state else (State(value, ("Staff",)), "done")
    if state is None:
        return None, "missing"
    if kind == "remove":
        return None, "done"
    if kind == "password":
        return replace(state, password_hash=value), "done"
    there = value in state.groups
    if kind == "join":
        groups = state.groups if there else (*state.groups, value)
        return replace(state, groups=groups), () if there else (value,)
    groups = tuple(group for group in state.groups if group != value)
    return replace(state, groups=groups), (value,) if there else ()


async def carry_out(accounts: Accounts, command: tuple[str, str], name: str) -> object:
    """The same on the bus."""
    kind, value = command
    try:
        if kind == "add":
            await accounts.add(an_account(name, value), ("Staff",))
        elif kind == "remove":
            await accounts.remove(name)
        elif kind == "password":
            await accounts.set_password(name, value)
        else:
            change = accounts.join if kind == "join" else accounts.leave
            return (await change(name, (value,)))[1]
    except AccountExistsError:
        return "exists"
    except NoSuchAccountError:
        return "missing"
    return "done"


COMMANDS = [
    ("add", "hash-3"),
    ("remove", ""),
    ("password", "hash-4"),
    ("password", "hash-5"),
    ("join", "Exams"),
    ("join", "Labs"),
    ("leave", "Staff"),
]


@pytest.mark.parametrize("seed", range(8))
async def test_operators_at_once_do_what_they_would_have_done_one_after_the_other(
    connection: Connection, stream: JetStreamContext, accounts: Accounts, seed: int
) -> None:
    for number in range(seed * 20, seed * 20 + 20):
        chance, name = random.Random(number), f"alice {number}"
        first = await accounts.add(an_account(name), ("Staff",))
        commands = chance.sample(COMMANDS, 3)
        lines = [Stepped(connection) for _ in commands]
        running = [
            (
                line,
                asyncio.create_task(carry_out(await accounts_over(line), command, name)),
                command,
            )
            for line, command in zip(lines, commands, strict=True)
        ]
        while left := [each for each in running if not each[1].done()]:
            line, task, _ = chance.choice(left)
            await line.step(task)
            known = await in_force(stream, name)
            ended = any(
                kind in {"remove", "password"} and task.done() and task.result() == "done"
                for _, task, (kind, _) in running
            )
            # Not for a moment, whatever the others are still at.
            assert not ended or known is None or known.generation != first.generation, number

        said = [task.result() for _, task, _ in running]
        account = await accounts.find(name)
        came_to = State(account.password_hash, account.groups) if account else None
        assert (came_to, said) in one_after_the_other(commands), number
        assert await in_force(stream, name) == (account and technician_of(account)), number


def one_after_the_other(
    commands: list[tuple[str, str]],
) -> list[tuple[State | None, list[object]]]:
    """Everything that the commands can come to, and say, in one order or another."""
    all_ends = []
    for order in itertools.permutations(range(len(commands))):
        state: State | None = State("hash-1", ("Staff",))
        said: dict[int, object] = {}
        for position in order:
            state, said[position] = carried_out(commands[position], state)
        all_ends.append((state, [said[position] for position in range(len(commands))]))
    return all_ends
