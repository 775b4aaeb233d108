"""The log: a line is JSON or pretty, stands in the file of its day, and holds what was bound."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.log_files import LogFiles, LogFolderError, expired

MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
SECOND = timedelta(seconds=1)

_PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
import structlog
from services import logs
detail = logs.configure("menu", Path(sys.argv[1]) if sys.argv[1:] else None)
log = structlog.get_logger()

async def answer(machine, request):
    structlog.contextvars.bind_contextvars(machine=machine, request=request)
    await asyncio.sleep(0)
    log.info("answered")

async def main():
    structlog.contextvars.bind_contextvars(site="london")
    await asyncio.gather(answer("m1", "r1"), answer("m2", "r2"))
    log.debug("too much")
    detail.on = True
    log.debug("a step")
    logging.getLogger("a.library").warning("it says %s", "hm")
    logging.getLogger("a.library").info("it chatters")
    try:
        secret = "open sesame " + str(4700 + 11)
        raise RuntimeError("it went wrong")
    except RuntimeError:
        log.exception("failed")
asyncio.run(main())
"""


class Clock:
    """A clock that a test sets."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def said(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def events(lines: list[dict[str, object]]) -> list[object]:
    return [line["event"] for line in lines]


def ran(*args: str | Path) -> str:
    """What the program of these tests says on standard error, which is no terminal."""
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *args],
        stderr=subprocess.PIPE, text=True, check=True, timeout=30,
    ).stderr  # fmt: skip


def ran_on_a_terminal(*args: str | Path) -> str:
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, *args], stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65_536):
            text += part
    except OSError:  # how a terminal ends that nobody writes to any more
        pass
    os.close(ours)
    assert process.wait(20) == 0
    return re.sub("\x1b\\[[0-9;]*m", "", text.decode())


EVERYTHING = ["answered", "answered", "a step", "it says hm", "failed"]


def test_off_a_terminal_each_line_is_json_also_those_of_libraries() -> None:
    lines = said(ran())
    assert events(lines) == EVERYTHING
    assert [line["level"] for line in lines] == ["info", "info", "debug", "warning", "error"]
    assert all(datetime.fromisoformat(str(line["timestamp"])).tzinfo for line in lines)
    assert lines[3]["library"] == "a.library"


def test_on_a_terminal_lines_are_for_people() -> None:
    text = ran_on_a_terminal()
    assert "{" not in text
    for event in EVERYTHING:
        assert str(event) in text
    assert "site=london" in text


def test_what_is_bound_at_entry_stands_on_the_lines_of_that_task_alone() -> None:
    lines = said(ran())
    assert {line["site"] for line in lines} == {"london"}
    bound = [(line.get("machine"), line.get("request")) for line in lines]
    assert bound == [("m1", "r1"), ("m2", "r2"), (None, None), (None, None), (None, None)]


def test_with_a_folder_lines_stand_in_the_file_of_the_service_and_the_day(tmp_path: Path) -> None:
    before = datetime.now(UTC).date()
    folder = tmp_path / "var" / "log"
    assert ran(folder) == ""
    days = {before, datetime.now(UTC).date()}
    files = sorted(folder.iterdir())
    assert {file.name for file in files} <= {f"menu-{day.isoformat()}.log" for day in days}
    lines = said("".join(file.read_text() for file in files))
    assert events(lines) == EVERYTHING
    assert {line["site"] for line in lines} == {"london"}


def test_a_terminal_shows_the_lines_that_go_to_files_too(tmp_path: Path) -> None:
    assert "it says hm" in ran_on_a_terminal(tmp_path)
    (file, *_) = tmp_path.iterdir()
    assert events(said(file.read_text())) == EVERYTHING


@pytest.mark.parametrize("where", ["pipe", "terminal", "file"])
def test_a_traceback_never_shows_the_values_of_variables(tmp_path: Path, where: str) -> None:
    match where:
        case "pipe":
            text = ran()
        case "terminal":
            text = ran_on_a_terminal()
        case _:
            ran(tmp_path)
            text = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "it went wrong" in text
    assert "RuntimeError" in text
    assert "open sesame 4711" not in text


def test_a_folder_that_cannot_be_written_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LogFolderError, match=r"logs cannot be kept in .*taken"):
        LogFiles(tmp_path / "taken", "menu")


def test_at_midnight_utc_a_new_file_begins(tmp_path: Path) -> None:
    clock = Clock(MIDNIGHT - SECOND)
    files = LogFiles(tmp_path, "menu", now=clock)
    assert files.write("before")
    clock.at = MIDNIGHT
    assert files.write("after")
    files.close()
    assert (tmp_path / "menu-2026-11-23.log").read_text() == "before\n"
    assert (tmp_path / "menu-2026-11-24.log").read_text() == "after\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_clock_that_is_set_back_goes_on_with_the_file_of_that_day(tmp_path: Path) -> None:
    clock = Clock(MIDNIGHT - SECOND)
    files = LogFiles(tmp_path, "menu", now=clock)
    for at in (clock.at, MIDNIGHT, MIDNIGHT - SECOND):
        clock.at = at
        assert files.write(at.isoformat())
    files.close()
    assert len((tmp_path / "menu-2026-11-23.log").read_text().splitlines()) == 2


def test_files_older_than_they_are_kept_are_removed_at_midnight_and_no_others(
    tmp_path: Path,
) -> None:
    others = ("auth-2026-01-01.log", "menu-2026-01-01.log.gz", "menu.log", "menu-2026-99-01.log")
    for name in (*others, "menu-2026-01-01.log", "menu-2026-11-20.log", "menu-2026-11-21.log"):
        (tmp_path / name).write_text("")
    clock = Clock(MIDNIGHT - SECOND)
    files = LogFiles(tmp_path, "menu", now=clock)
    files.keep(3)
    left = {path.name for path in tmp_path.iterdir()} - set(others)
    assert left == {"menu-2026-11-20.log", "menu-2026-11-21.log", "menu-2026-11-23.log"}
    clock.at = MIDNIGHT
    files.write("after")
    files.close()
    left = {path.name for path in tmp_path.iterdir()} - set(others)
    assert left == {"menu-2026-11-21.log", "menu-2026-11-23.log", "menu-2026-11-24.log"}
    assert {path.name for path in tmp_path.iterdir()} >= set(others)


def test_a_shorter_time_is_in_force_at_once(tmp_path: Path) -> None:
    (tmp_path / "menu-2026-11-01.log").write_text("")
    files = LogFiles(tmp_path, "menu", now=Clock(MIDNIGHT))
    files.keep(90)
    assert (tmp_path / "menu-2026-11-01.log").exists()
    files.keep(7)
    files.close()
    assert not (tmp_path / "menu-2026-11-01.log").exists()


@given(st.integers(0, 4000), st.integers(1, 3650))
def test_a_file_is_removed_exactly_when_it_is_older(age: int, keep: int) -> None:
    today = date(2026, 11, 24)
    name = f"menu-{(today - timedelta(days=age)).isoformat()}.log"
    assert expired([name], "menu", today, keep) == ([name] if age > keep else [])


def test_a_line_that_the_file_does_not_take_goes_to_standard_error(tmp_path: Path) -> None:
    program = _PROGRAM.replace("log = structlog", "import resource\nlog = structlog", 1).replace(
        "asyncio.run(main())",
        # As a full disk would: no file may grow.
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nasyncio.run(main())",
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        stderr=subprocess.PIPE, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert events(said(done.stderr)) == EVERYTHING


async def test_lines_of_several_processes_of_a_service_stand_whole_in_one_file(
    tmp_path: Path,
) -> None:
    program = (
        "import sys\nfrom datetime import UTC, datetime\nfrom pathlib import Path\n"
        "from services.log_files import LogFiles\n"
        "day = datetime(2026, 11, 23, tzinfo=UTC)\n"
        "files = LogFiles(Path(sys.argv[1]), 'menu', now=lambda: day)\n"
        "for number in range(500):\n"
        "    assert files.write(sys.argv[2] * (number * 37 % 9000 + 1))\n"
    )
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, tmp_path, letter)
        for letter in "abc"
    ]
    async with asyncio.timeout(60):
        assert [await writer.wait() for writer in writers] == [0, 0, 0]
    lines = (tmp_path / "menu-2026-11-23.log").read_text().splitlines()
    expected = sorted(
        letter * (number * 37 % 9000 + 1) for letter in "abc" for number in range(500)
    )
    assert sorted(lines) == expected
