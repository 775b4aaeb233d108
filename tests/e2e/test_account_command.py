"""`imageinvoker account`, as an operator runs it beside a bus."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import connect
from bus.events import Event, event_decoder
from bus.technicians import technician_key
from services.auth.accounts import Account, Accounts
from services.auth.lockout import Limits
from services.auth.passwords import Passwords
from services.auth.tries import Tries
from tests.buses import BusServer, free_port
from tests.terminal import Terminal

COMMAND = (sys.executable, "-m", "cli", "account")
SECRET = "correct horse battery staple"
NEXT = "Äußerst geheim, 42!"
MACHINE = "4c4c4544004235108052b4c04f4d3132"


class Desk:
    """An operator's desk: the command, and everything that it leaves behind."""

    def __init__(self, bus: BusServer, folder: Path) -> None:
        self._bus = bus
        self._folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("IMAGEINVOKER")
        } | {"IMAGEINVOKER_SERVER": bus.url, "XDG_DATA_HOME": str(folder / "home")}
        self.seen = ""

    def run(self, *arguments: str, typed: str | bytes = "") -> "subprocess.CompletedProcess[str]":
        """Runs `imageinvoker account` with ``typed`` on its standard input."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            input=typed.encode() if isinstance(typed, str) else typed,
            capture_output=True,
            timeout=60,
            check=False,
        )
        said = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        self.seen += said.stdout + said.stderr
        assert "Traceback" not in said.stderr
        return said

    def json(self, *arguments: str, typed: str = "") -> Any:
        """What a command that succeeds says to programs."""
        done = self.run(*arguments, "--json", typed=typed)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def find(self, name: str) -> Account | None:
        """The account as the auth service finds it."""

        async def work() -> Account | None:
            connection = await connect(self._bus.url, "test")
            try:
                return await (await Accounts.open(connection, "main")).find(name)
            finally:
                await connection.close()

        return asyncio.run(work())

    def lets_in(self, name: str, password: str) -> bool:
        """Whether the auth service would take this password."""
        account = self.find(name)

        async def work(known: str) -> bool:
            passwords = Passwords()
            try:
                return await passwords.verify(known, password)
            finally:
                await passwords.close()

        return account is not None and asyncio.run(work(account.password_hash))

    def events(self) -> list[Event]:
        """Everything that the audit knows, in order."""

        async def work() -> list[Event]:
            connection = await connect(self._bus.url, "test")
            try:
                stream = connection.jetstream()
                state = (await stream.stream_info(subjects.EVENTS)).state
                kept = [
                    await stream.get_msg(subjects.EVENTS, seq=number)
                    for number in range(1, state.last_seq + 1)
                ]
                return [event_decoder.decode(message.data or b"") for message in kept]
            finally:
                await connection.close()

        return asyncio.run(work())

    def fail_to_sign_in(self, account: str, times: int, machine: str = MACHINE) -> None:
        """Somebody types wrong passwords, at one machine."""

        async def work() -> None:
            connection = await connect(self._bus.url, "test")
            try:
                bucket = await connection.jetstream().key_value(subjects.TRIES)
                tries = Tries(bucket, "main", lambda: Limits(account=times, machine=times))
                for _ in range(times):
                    attempt = await tries.take({"machine": machine, "account": account})
                    await attempt.failed()
            finally:
                await connection.close()

        asyncio.run(work())

    def break_off(self, name: str) -> None:
        """Leaves an account as a command does that was cut off."""

        async def work() -> None:
            connection = await connect(self._bus.url, "test")
            try:
                bucket = await connection.jetstream().key_value(subjects.TECHNICIANS)
                await bucket.delete(subjects.site_key("main", technician_key("server", name)))
            finally:
                await connection.close()

        asyncio.run(work())

    def holds(self, secret: str) -> list[str]:
        """Where a secret stands: in what was said, and in every file of the bus."""
        files = [file for file in self._folder.rglob("*") if file.is_file()]
        assert any(file.suffix == ".blk" for file in files), "the bus keeps its messages elsewhere"
        found = [str(file) for file in files if secret.encode() in file.read_bytes()]
        return [*found, "said"] if secret in self.seen else found


@pytest.fixture
def desk(bus: BusServer, tmp_path: Path) -> Desk:
    async def prepared() -> None:
        connection = await connect(bus.url, "test")
        await prepare(connection.jetstream())
        await connection.close()

    asyncio.run(prepared())
    return Desk(bus, tmp_path)


def test_accounts_are_added_listed_changed_and_removed(desk: Desk) -> None:
    empty = desk.run("list")
    assert (empty.returncode, "account add NAME" in empty.stdout) == (0, True)

    added = desk.run(
        "add", "Alice", "--display-name", "Alice Example",
        "--group", "Staff", "--group", "Exam Team",
        typed=f"{SECRET}\n",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert added.stdout == "main: account Alice is added, in Staff, Exam Team\n"
    assert desk.json("add", "bob", typed=NEXT)["groups"] == []
    assert desk.lets_in("alice", SECRET)
    assert desk.lets_in("bob", NEXT)
    assert not desk.lets_in("alice", NEXT)

    lines = desk.run("list").stdout.splitlines()
    assert lines[0].split("  ")[0] == "NAME"
    assert [line.split()[0] for line in lines[1:]] == ["Alice", "bob"]
    assert "Alice Example  Staff, Exam Team  20" in lines[1]

    assert desk.json("join", "alice", "staff", "Labs") == {"name": "Alice", "groups": ["Labs"]}
    assert desk.run("join", "alice", "labs").stdout == "main: Alice was in labs already\n"
    left = desk.run("leave", "alice", "Exam team", "Strangers")
    assert (left.returncode, left.stdout, left.stderr) == (
        1, "main: Alice has left Exam Team\n", "Alice was not in Strangers\n",
    )  # fmt: skip
    listed = desk.json("list")
    assert listed["locked"] == []
    (alice, bob) = listed["accounts"]
    assert (alice["groups"], bob["groups"]) == (["Staff", "Labs"], [])
    assert (alice["display_name"], alice["in_force"], alice["retry_after"]) == (
        "Alice Example", True, None,
    )  # fmt: skip

    before = desk.find("alice")
    assert desk.run("password", "ALICE", typed=f"{NEXT}\r\n").returncode == 0
    after = desk.find("alice")
    assert before
    assert after
    assert after.generation > before.generation
    assert desk.lets_in("alice", NEXT)
    assert not desk.lets_in("alice", SECRET)

    assert desk.json("remove", "bob") == {"name": "bob"}
    assert desk.find("bob") is None
    assert [each["name"] for each in desk.json("list")["accounts"]] == ["Alice"]


def test_every_change_is_an_event_and_no_password_stands_anywhere(desk: Desk) -> None:
    desk.run("add", "alice", "--group", "Staff", typed=SECRET)
    desk.run("add", "alice", typed=SECRET)
    desk.run("add", "bob", typed="short7!")
    desk.run("join", "Alice", "Exams")
    desk.run("join", "Alice", "exams")
    desk.run("leave", "alice", "STAFF")
    desk.run("password", "alice", typed=NEXT)
    desk.run("password", "alice", typed="2short!")
    account = desk.find("alice")
    desk.run("remove", "alice")
    desk.run("remove", "alice")
    events = desk.events()
    assert [(event.kind, event.details) for event in events] == [
        ("account_changed", {"account": "alice", "change": change, "groups": groups})
        for change, groups in (
            ("added", ["Staff"]),
            ("joined", ["Exams"]),
            ("left", ["Staff"]),
            ("password", []),
            ("removed", ["Exams"]),
        )
    ]
    assert all("@" in (event.operator or "") for event in events)
    for secret in (SECRET, NEXT, "short7!", "2short!"):
        assert desk.holds(secret) == []
    assert account
    assert "argon2" not in desk.seen + repr(events)
    assert account.password_hash.startswith("$argon2id$")


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(desk: Desk) -> None:
    with Terminal([*COMMAND, "add", "alice"], desk.environment) as screen:
        screen.wait_for("New password of alice:")
        screen.type(f"{SECRET}\r")
        screen.wait_for("Once more:")
        screen.type(f"{SECRET}\r")
        text = screen.wait_for("account alice is added")
        assert screen.status() == 0
    assert SECRET not in text
    assert desk.lets_in("alice", SECRET)

    with Terminal([*COMMAND, "password", "alice"], desk.environment) as screen:
        screen.wait_for("New password of alice:")
        screen.type(f"{NEXT}\r")
        screen.wait_for("Once more:")
        screen.type("something else\r")
        text = screen.wait_for("The two passwords differ; nothing was changed.")
        assert screen.status() == 2
    assert NEXT not in text
    assert "something else" not in text
    assert desk.lets_in("alice", SECRET)


def test_who_gives_up_at_the_password_changes_nothing(desk: Desk) -> None:
    with Terminal([*COMMAND, "add", "alice"], desk.environment) as screen:
        screen.wait_for("New password of alice:")
        screen.type("\x04")
        screen.wait_for("No password was typed; nothing was changed.")
        assert screen.status() == 2
    with Terminal([*COMMAND, "add", "alice"], desk.environment) as screen:
        screen.wait_for("New password of alice:")
        screen.process.send_signal(signal.SIGINT)
        assert screen.status() == 130
        assert "Traceback" not in screen.text
    assert desk.find("alice") is None


def test_a_name_that_is_taken_or_unknown_is_told_before_a_password_is_asked_for(desk: Desk) -> None:
    desk.run("add", "alice", typed=SECRET)
    with Terminal([*COMMAND, "add", "ALICE"], desk.environment) as screen:
        screen.wait_for("There is an account 'alice' already.")
        assert screen.status() == 1
    with Terminal([*COMMAND, "password", "bob"], desk.environment) as screen:
        screen.wait_for("There is no account 'bob'.")
        assert screen.status() == 1


@pytest.mark.parametrize(
    ("arguments", "typed", "words"),
    [
        (("add", "alice@lab.example"), SECRET, "none of"),
        (("add", "LAB\\alice"), SECRET, "none of"),
        (("add", ""), SECRET, "1 to 104"),
        (("add", "a\tb"), SECRET, "printable"),
        (("add", "alice", "--group", ""), SECRET, "group"),
        (("add", "alice", "--display-name", "a\x1bb"), SECRET, "display name"),
        (("add", "alice"), "", "8 to 1024"),
        (("add", "alice"), "\n", "8 to 1024"),
        (("add", "alice"), "1234567\n", "8 to 1024"),
        (("add", "alice"), "x" * 1025, "8 to 1024"),
        (("add", "alice"), "nul\0and more", "NUL"),
        (("add", "alice"), b"\xff\xfe\xfa and more", "UTF-8"),
        (("add", "alice", "--password", SECRET), "", "--password"),
        (("join", "alice"), "", "Which groups"),
        (("leave", "alice"), "", "Which groups"),
        (("unlock",), "", "Unlock what"),
        (("unlock", "alice", "--machine", MACHINE), "", "Unlock what"),
        (("unlock", "--machine", "no/key"), "", "machine"),
        (("unlock", "--address", "alice"), "", "network address"),
    ],
)
def test_what_makes_no_sense_ends_with_status_2_and_a_sentence(
    desk: Desk, arguments: tuple[str, ...], typed: str | bytes, words: str
) -> None:
    done = desk.run(*arguments, typed=typed)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr + done.stdout
    assert "and more" not in done.stderr
    assert desk.find("alice") is None
    assert desk.events() == []


@pytest.mark.parametrize(
    "arguments",
    [("remove", "nobody"), ("join", "nobody", "Staff"), ("leave", "nobody", "Staff")],
)
def test_an_account_that_is_not_there_cannot_be_changed(
    desk: Desk, arguments: tuple[str, ...]
) -> None:
    done = desk.run(*arguments)
    assert (done.returncode, done.stderr) == (1, "There is no account 'nobody'.\n")


def test_locks_are_listed_and_lifted(desk: Desk) -> None:
    desk.run("add", "Alice", typed=SECRET)
    desk.fail_to_sign_in("alice", 2)
    shown = desk.run("list").stdout
    assert "locked for" in shown.splitlines()[1]
    assert f"machine {MACHINE} is locked for" in shown
    listed = desk.json("list")
    assert 0 < listed["accounts"][0]["retry_after"] <= 60
    assert {(lock["scope"], lock["name"]) for lock in listed["locked"]} == {
        ("account", "alice"), ("machine", MACHINE),
    }  # fmt: skip

    assert desk.run("unlock", "ALICE").stdout == "main: account ALICE is unlocked\n"
    assert desk.json("unlock", "--machine", MACHINE.upper())["unlocked"] is True
    again = desk.run("unlock", "Alice")
    assert (again.returncode, again.stdout) == (1, "main: account Alice was not locked\n")
    assert desk.run("unlock", "--address", "192.0.2.17").returncode == 1
    assert desk.json("list")["locked"] == []
    assert [event.details for event in desk.events() if event.kind == "login_unlocked"] == [
        {"scope": "account", "name": "ALICE"},
        {"scope": "machine", "name": MACHINE},
    ]


def test_the_lock_of_somebody_elses_account_is_listed_harmlessly_and_lifted(desk: Desk) -> None:
    desk.fail_to_sign_in("lab\\dave", 1)
    desk.fail_to_sign_in("\x1b[2Jnobody", 1, machine="sn1")
    shown = desk.run("list").stdout
    assert "account lab\\dave is locked" in shown
    assert "\x1b" not in shown
    assert desk.run("unlock", "LAB\\dave").returncode == 0


def test_an_account_that_a_broken_off_command_left_is_shown_and_mended(desk: Desk) -> None:
    desk.run("add", "alice", "--group", "Staff", typed=SECRET)
    desk.break_off("alice")
    assert "not in force" in desk.run("list").stdout
    assert desk.json("list")["accounts"][0]["in_force"] is False
    assert desk.run("add", "alice", typed=SECRET).returncode == 1
    assert desk.json("list")["accounts"][0]["in_force"] is True


def test_nobody_answers_is_status_4(desk: Desk) -> None:
    nobody = desk.run("list", "--server", f"nats://127.0.0.1:{free_port()}")
    assert nobody.returncode == 4
    assert "Nobody answers" in nobody.stderr


def test_a_bus_that_no_site_has_used_is_status_4(bus: BusServer, tmp_path: Path) -> None:
    done = Desk(bus, tmp_path).run("list")
    assert done.returncode == 4
    assert "does not keep" in done.stderr
