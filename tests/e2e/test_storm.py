"""A storm of made-up machines at a real site, as an operator makes it."""

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest

from cli.storm.results import Result
from cli.storm.tally import STEPS
from tests.e2e.e2e_site import COMMAND, Site
from tests.terminal import Terminal

SECRET: Final = "Windstille 4711"
LAPTOP: Final = "Windows 11 for staff laptops"
LAPTOP_JOBS: Final = 5
AT_REST: Final = 7

_NEWEST: Final = "(SELECT MAX(schedule_id) FROM event_schedule)"
LOSES: Final = f"DELETE FROM event_schedule WHERE schedule_id = {_NEWEST}"
DOUBLES: Final = (
    "INSERT INTO event_schedule (event_id, computer_id, start_time)"
    f" SELECT event_id, computer_id, start_time FROM event_schedule WHERE schedule_id = {_NEWEST}"
)


@pytest.fixture
def closed_site(site: Site) -> Site:
    """A site that asks for the shared password."""
    assert site.run("options", "password", typed=SECRET + "\n").returncode == 0
    assert site.run("options", "set", "protection", "hash").returncode == 0
    return site


def storm(site: Site, *arguments: str, status: int = 0, typed: str = SECRET + "\n") -> Result:
    """A storm that ends with this status; its figures."""
    done = site.run("storm", "--yes", "--json", *arguments, typed=typed)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return msgspec.json.decode(done.stdout, type=Result)


def refused(site: Site, *arguments: str, status: int = 2, typed: str = "") -> str:
    """A storm that does not begin; the sentence that says why."""
    done = site.run("storm", *arguments, typed=typed)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def damage(site: Site, when: str, what: str) -> None:
    """Does something wrong in the same transaction as the record of one machine's request."""
    with closing(sqlite3.connect(site.folder / "express.db")) as database:
        database.execute(
            f"CREATE TRIGGER damage_{when} AFTER INSERT ON ii_request"
            f" WHEN NEW.request_id LIKE '%{when}' BEGIN {what}; END"
        )
        database.commit()


def test_forty_machines_get_their_jobs_exactly_once(closed_site: Site, tmp_path: Path) -> None:
    report = tmp_path / "storm.html"
    result = storm(
        closed_site,
        *("--machines", "40", "--within", "2", "--item", LAPTOP.upper(), "--probe"),
        *("--report", str(report)),
    )
    assert (result.arrived, result.scheduled, result.ended) == (40, 40, "finished")
    assert (result.errors, result.lost, result.doubled) == (0, 0, 0)
    assert result.reckoning.with_database
    assert result.reckoning.well
    assert set(result.steps) == set(STEPS)
    assert all(times.count == 40 and times.at_rest for times in result.steps.values())
    assert {each.name for each in result.services} == {"menu", "auth", "scheduler", "monitor"}
    assert result.probe is not None
    assert (result.probe.left, result.probe.unseen) == (None, 0)
    assert result.generator.processor_seconds > 0

    # The same, seen without any code of ours.
    rows = closed_site.rows(
        "SELECT c.name, COUNT(*) FROM event_schedule s JOIN computer c"
        " ON c.computer_id = s.computer_id WHERE c.name LIKE 'STORM%' GROUP BY c.name"
    )
    names = [f"STORM{number:05}" for number in range(1, 41 + AT_REST)]
    assert sorted(rows) == [(name, LAPTOP_JOBS) for name in names]
    like = result.asked.requests_like
    made = closed_site.rows("SELECT COUNT(*) FROM ii_request WHERE request_id LIKE ?", like)
    assert made == [(40 + AT_REST,)]
    assert closed_site.rows("SELECT * FROM event WHERE name LIKE 'Storm probe%'") == []

    page = report.read_text()
    assert "Every machine got its jobs exactly once." in page
    assert SECRET not in page


def test_the_same_machines_come_again(site: Site) -> None:
    first = storm(site, "--machines", "10", "--within", "1", "--seed", "5")
    assert "login" not in first.steps
    assert "--known" in refused(site, "--machines", "10", "--within", "1", "--seed", "5", "--yes")
    assert "earlier storm" in refused(site, "--machines", "2", "--known", "--seed", "6", "--yes")
    taken = refused(site, "--machines", "2", "--seed", "6", "--yes", status=1)
    assert "--prefix" in taken

    again = storm(site, "--machines", "10", "--within", "1", "--seed", "5", "--known")
    assert (again.scheduled, again.lost, again.doubled) == (10, 0, 0)
    assert again.reckoning.well
    assert again.asked.requests_like != first.asked.requests_like
    assert len(site.rows("SELECT * FROM computer WHERE name LIKE 'STORM%'")) == 10 + AT_REST


def test_a_lost_and_a_doubled_row_are_found(site: Site) -> None:
    damage(site, "000a", LOSES)
    damage(site, "000c", DOUBLES)
    result = storm(site, "--machines", "20", "--within", "1", "--item", LAPTOP, status=1)
    assert (result.errors, result.lost, result.doubled) == (0, 1, 1)
    assert not result.reckoning.well
    lost, doubled = sorted(result.reckoning.findings)
    assert lost.startswith("STORM00010 lacks jobs ")
    assert doubled.startswith("STORM00012 has jobs too many: ")


def test_a_wrong_password_ends_it_before_it_begins(closed_site: Site) -> None:
    said = refused(closed_site, "--machines", "500", "--yes", typed="something else\n", status=1)
    assert "The sign-in was not accepted." in said
    told = closed_site.run("audit", "--json").stdout.splitlines()
    assert len([line for line in told if '"login_failed"' in line]) == 1


def test_nothing_is_made_that_was_not_meant(closed_site: Site) -> None:
    before = closed_site.rows("SELECT * FROM computer")
    said = refused(closed_site, "--machines", "500", typed=SECRET + "\n")
    assert "507 machines" in said
    assert "'main'" in said or "site main" in said
    assert "--yes" in said
    with Terminal(
        [*COMMAND, "storm", "--machines", "500"], closed_site.environment, columns=100
    ) as terminal:
        assert "507 machines" in terminal.wait_for("Type yes:")
        terminal.type("no\n")
        assert terminal.status() == 2
    assert closed_site.rows("SELECT * FROM computer") == before


def test_at_a_terminal_it_asks_and_shows_how_far_it_is(closed_site: Site) -> None:
    arguments = ("storm", "--machines", "20", "--within", "4")
    with Terminal(
        [*COMMAND, *arguments], closed_site.environment, columns=120, rows=40
    ) as terminal:
        terminal.wait_for("Type yes:")
        terminal.type("yes\n")
        terminal.wait_for("Password of site main:")
        terminal.type(SECRET + "\n")
        terminal.wait_for("Once more:")
        terminal.type(SECRET + "\n")
        terminal.wait_for("of 20 arrived")
        said = terminal.wait_for("errors 0, lost 0, doubled 0")
        assert terminal.status() == 0
    assert SECRET not in said


def test_ctrl_c_ends_a_storm_and_tells_what_there_is(site: Site) -> None:
    with subprocess.Popen(
        [*COMMAND, "storm", "--yes", "--json", "--machines", "600", "--within", "600"],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            # A line each ten seconds, off a terminal.
            assert "of 600 arrived" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 130, err
    result = msgspec.json.decode(out, type=Result)
    assert (result.ended, result.errors, result.lost, result.doubled) == ("interrupted", 0, 0, 0)
    assert 0 < result.scheduled == result.arrived < 600
    assert result.reckoning.well


def test_what_cannot_be_is_said_before_anything_is_made(site: Site) -> None:
    for arguments, status, cure in (
        (("--prefix", "MUCHTOOLONGAPREFIX"), 2, "--prefix"),
        (("--report", "/nowhere/at/all.html"), 2, "/nowhere/at"),
        (("--database-file", "/nowhere/dsn"), 2, "/nowhere/dsn"),
        (("--server", "nats://127.0.0.1:1"), 4, "Nobody answers"),
        (("--metrics", "http://127.0.0.1:1/metrics"), 1, "--metrics"),
        (("--item", "No such item"), 1, "No such item"),
    ):
        assert cure in refused(site, "--yes", "--machines", "5", *arguments, status=status)
    assert site.rows("SELECT * FROM ii_request") == []


def test_a_system_that_allows_too_few_connections_says_so(site: Site) -> None:
    command = ["sh", "-c", 'ulimit -n 150; exec "$@"', "sh", *COMMAND]
    done = subprocess.run(
        [*command, "storm", "--yes", "--machines", "500"],
        env=site.environment | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--at-once 50" in done.stderr
