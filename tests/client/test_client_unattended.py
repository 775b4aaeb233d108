"""Unattended: no screen, no question, and an exit status that tells."""

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from client_site import Site, items, menu, welcome

from bus.messages import Machine, Outcome
from bus.problems import Problem
from client.main import run
from client.settings import Settings
from client.unattended import first_line, is_piped
from tests.buses import BusServer


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOBase]:
    """What writes to the standard input of the client."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as writer:
        monkeypatch.setattr("sys.stdin", stdin)
        yield writer


def told(site: Site, machine_file: Path, **changes: object) -> Settings:
    usual = {"server": site.url, "site": site.site, "machine": machine_file, "item": "job:1"}
    return Settings(**{**usual, **changes})  # type: ignore[arg-type]


async def test_an_item_is_scheduled_and_each_step_is_a_line(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.polls = 1
    site.replaced = 2
    assert await asyncio.to_thread(run, told(site, machine_file, item="windows 11 PUBLIC")) == 0
    (wish,) = site.sent
    assert (wish.item_id, wish.computer_name) == ("job:2", None)
    assert capsys.readouterr().out.splitlines() == [
        f"Looking for the deployment service at {site.url} ...",
        "Scheduling Windows 11 Public ...",
        "Computer: PC-0815",
        f"Request {wish.request_id}",
        "The request is safely kept and will be carried out. Waiting ...",
        "Scheduled for PC-0815",
        "  - Wipe disk",
        "  - Lay the image",
        "Jobs that were pending before and have been replaced: 2",
    ]


async def test_an_unknown_machine_gets_the_name_given_else_the_one_suggested(
    site: Site, machine_file: Path
) -> None:
    site.welcome = welcome(computer=None)
    assert await asyncio.to_thread(run, told(site, machine_file, name="0815-LAB")) == 0
    assert await asyncio.to_thread(run, told(site, machine_file)) == 0
    assert [wish.computer_name for wish in site.sent] == ["0815-LAB", "7XK2P12"]


async def test_the_outcome_is_printed_for_programs(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, told(site, machine_file, json=True)) == 0
    printed = capsys.readouterr()
    outcome = msgspec.json.decode(printed.out, type=Outcome)
    assert (outcome.state, len(outcome.jobs)) == ("scheduled", 2)
    assert "Scheduling Windows 11 Staff" in printed.err


async def test_a_refusal_tells_why_and_by_status(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, told(site, machine_file, name="TAKEN", json=True)) == 3
    printed = capsys.readouterr()
    assert "Another computer has this name." in printed.err
    assert f"Request {site.sent[0].request_id}" in printed.err
    outcome = msgspec.json.decode(printed.out, type=Outcome)
    assert outcome.problem is not None
    assert (outcome.state, outcome.problem.code) == ("rejected", "name_taken")


async def test_an_item_that_does_not_exist_is_refused(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, told(site, machine_file, item="Windows")) == 3
    assert "There is no menu item Windows here." in capsys.readouterr().err
    assert site.sent == []


async def test_an_ambiguous_title_is_refused_with_the_ids(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.menu = menu(*items("Same", "SAME"))
    assert await asyncio.to_thread(run, told(site, machine_file, item="same")) == 3
    assert "job:1, job:2" in capsys.readouterr().err


async def test_no_server_in_time_has_its_own_status(
    own_server: BusServer, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(server=own_server.url, machine=machine_file, item="job:1", timeout=1)
    assert await asyncio.to_thread(run, settings) == 4
    printed = capsys.readouterr()
    assert printed.out.count("Nobody answers at this address.") == 1
    assert "No deployment service was found" in printed.err


async def test_a_request_still_under_way_when_the_time_is_up_is_said_to_be_kept(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.polls = 99
    assert await asyncio.to_thread(run, told(site, machine_file, timeout=1)) == 4
    assert "The request is safely kept" in capsys.readouterr().err


async def test_a_server_that_comes_up_in_time_is_used(
    own_server: BusServer, machine_file: Path
) -> None:
    settings = Settings(server=own_server.url, machine=machine_file, item="job:1", timeout=0)
    deploying = asyncio.create_task(asyncio.to_thread(run, settings))
    await asyncio.sleep(0.3)  # let it fail at least once
    own_server.start()
    async with Site(own_server.url, "main").serving() as site:
        assert await deploying == 0
    assert len(site.outcomes) == 1


async def test_the_password_comes_from_the_environment(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.welcome = welcome(protection="domain")
    settings = told(site, machine_file, username="ann", password="let me in")
    assert await asyncio.to_thread(run, settings) == 0
    assert [login.username for login in site.logins] == ["ann"]
    assert site.sent[0].token == "token-1"
    printed = capsys.readouterr()
    assert "let me in" not in printed.out + printed.err


async def test_the_password_comes_by_a_pipe(
    site: Site, machine_file: Path, pipe: io.TextIOBase
) -> None:
    site.welcome = welcome(protection="hash")
    pipe.write("let me in\n")
    pipe.flush()
    assert await asyncio.to_thread(run, told(site, machine_file)) == 0


async def test_an_open_pipe_without_a_password_keeps_nobody_waiting_for_ever(
    site: Site, machine_file: Path, pipe: io.TextIOBase
) -> None:
    site.welcome = welcome(protection="hash")
    assert await asyncio.to_thread(run, told(site, machine_file, timeout=1)) == 4
    pipe.write("\n")


async def test_a_protected_site_without_a_password_is_a_refusal(
    site: Site, machine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.welcome = welcome(protection="hash")
    assert await asyncio.to_thread(run, told(site, machine_file)) == 3
    assert "IMAGEINVOKER_PASSWORD" in capsys.readouterr().err


async def test_a_wrong_password_is_tried_once(site: Site, machine_file: Path) -> None:
    site.welcome = welcome(protection="hash")
    assert await asyncio.to_thread(run, told(site, machine_file, password="wrong")) == 3
    assert len(site.logins) == 1


async def test_a_session_that_ends_is_renewed_for_the_same_request(
    site: Site, machine_file: Path
) -> None:
    site.welcome = welcome(protection="hash")
    site.problems["schedule"] = [Problem("session_expired"), Problem("overloaded")]
    assert await asyncio.to_thread(run, told(site, machine_file, password="let me in")) == 0
    assert len(site.logins) == 2
    assert len(site.outcomes) == 1


async def test_a_file_that_describes_no_machine_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_text("no machine")
    for item in ("job:1", None):
        settings = Settings(server="nats://127.0.0.1:1", machine=file, item=item)
        assert await asyncio.to_thread(run, settings) == 2
        assert "describes no machine" in capsys.readouterr().err


async def test_a_machine_without_any_identity_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nobody.json"
    file.write_bytes(msgspec.json.encode(Machine(serial="None")))
    assert await asyncio.to_thread(run, told(site, file)) == 3
    assert "Nothing tells this computer from others" in capsys.readouterr().err


def test_no_server_anywhere_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Settings()) == 2
    text = capsys.readouterr().err
    for way in ("--server", "IMAGEINVOKER_SERVER", "imageinvoker.server="):
        assert way in text


def test_a_portal_without_a_terminal_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Settings(server="nats://127.0.0.1:1")) == 2
    assert "terminal" in capsys.readouterr().err


def test_only_pipes_and_files_hand_something_in(tmp_path: Path, pipe: io.TextIOBase) -> None:
    assert pipe.writable()
    reading, writing = os.pipe()
    with os.fdopen(reading) as piped, os.fdopen(writing, "w"), Path(os.devnull).open() as nothing:
        assert is_piped(piped)
        assert not is_piped(nothing)
    assert not is_piped(piped)
    assert not is_piped(None)
    assert not is_piped(io.StringIO("text"))


async def test_the_first_line_ends_before_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" spaces stay \r\nsecond\n")
    with file.open(newline="") as stdin:
        assert await first_line(stdin) == " spaces stay "
