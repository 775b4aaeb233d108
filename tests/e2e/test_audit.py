"""The audit as an operator reads it: who did what, at which machine, and when."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.events import EventLog, Kind
from bus.messages import ComputerRef
from cli.event_table import GROUPS
from cli.moments import moment
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk, interrupt
from tests.e2e.e2e_site import COMMAND
from tests.terminal import Terminal

ONE = "4c4c4544004235108052b4c04f4d3132"
TWO = "mac525400123456"


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path) -> Desk:
    await prepare(connection.jetstream())
    return Desk(bus.url, connection, tmp_path / "home")


@pytest.fixture
async def morning(desk: Desk) -> Desk:
    """A desk at a site where something has happened."""
    log = EventLog(desk.connection, SITE)
    lab_01 = ComputerRef(id=6, name="LAB-01")
    await log.record("login_failed", machine=ONE, technician="LAB\\alice",
                     details={"reason": "wrong password", "attempts_left": 2})  # fmt: skip
    await log.record("login_succeeded", machine=ONE, technician="alice")
    await log.record("jobs_scheduled", machine=ONE, computer=lab_01, technician="alice",
                     details={"jobs": ["Image", "Join domain"], "replaced": 0})  # fmt: skip
    await log.record("login_failed", machine=TWO, technician="eve\x1b[2J\nroot")
    await log.record("option_changed", operator="root@desk",
                     details={"option": "timeout", "value": "7", "was": "5"})  # fmt: skip
    return desk


def test_what_happened_is_a_table_with_the_newest_last(morning: Desk) -> None:
    lines = morning.done("audit").splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.split(" {2,}", lines[0]) == ["TIME", "KIND", "WHO", "MACHINE", "DETAILS"]
    for line, words in zip(
        lines[1:],
        [
            f'login_failed +LAB\\\\alice +{ONE} +reason="wrong password" attempts_left=2',
            f"login_succeeded +alice +{ONE}",
            'jobs_scheduled +alice +LAB-01 +jobs=Image,"Join domain" replaced=0',
            f"login_failed +eve�\\[2J root +{TWO}",
            "option_changed +root@desk +- +option=timeout value=7 was=5",
        ],
        strict=True,
    ):
        assert re.fullmatch(f"{stamp}  {words}", line), line


def test_programs_get_an_event_a_line(morning: Desk) -> None:
    events = morning.audit()
    assert [event.kind for event in events] == [
        "login_failed", "login_succeeded", "jobs_scheduled", "login_failed", "option_changed",
    ]  # fmt: skip
    assert events[2].computer == ComputerRef(id=6, name="LAB-01")
    assert events[2].details == {"jobs": ["Image", "Join domain"], "replaced": 0}


def test_events_are_asked_for_by_who_kind_and_machine(morning: Desk) -> None:
    def found(*arguments: str) -> list[str]:
        return [event.kind for event in morning.audit(*arguments)]

    assert found("--who", "Alice") == ["login_failed", "login_succeeded", "jobs_scheduled"]
    assert found("--who", "lab\\ALICE") == ["login_failed"]
    assert found("--who", "root") == ["option_changed"]
    assert found("--who", "root@desk") == ["option_changed"]
    assert found("--kind", "changes") == ["option_changed"]
    assert found("--kind", "requests", "login_succeeded") == ["login_succeeded", "jobs_scheduled"]
    assert found("--kind", "logins", "--kind", "changes", "--who", "root") == ["option_changed"]
    assert found("--machine", TWO) == ["login_failed"]
    assert found("--machine", "4C4C4544-0042-3510-8052-B4C04F4D3132", "--kind", "logins") == [
        "login_failed", "login_succeeded",
    ]  # fmt: skip


def test_a_computers_name_finds_also_what_happened_before_it_was_known(morning: Desk) -> None:
    events = morning.audit("--machine", "lab-01")
    assert [event.kind for event in events] == ["login_failed", "login_succeeded", "jobs_scheduled"]


def test_only_the_newest_are_shown_and_the_others_are_counted(morning: Desk) -> None:
    done = morning.run("audit", "--limit", "2", "--json")
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == [
        "login_failed", "option_changed",
    ]  # fmt: skip
    assert done.stderr == "3 earlier ones are not shown; --limit shows more.\n"


def test_events_are_asked_for_by_time(morning: Desk) -> None:
    now = datetime.now(UTC)
    later = (now + timedelta(minutes=1)).isoformat()
    assert len(morning.audit("--since", "5m")) == 5
    assert len(morning.audit("--since", "1w", "--until", later)) == 5
    assert morning.audit("--since", "2d", "--until", "1d") == []
    assert morning.audit("--since", later) == []


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_nothing_found_is_no_failure_but_a_sentence(desk: Desk, form: tuple[str, ...]) -> None:
    done = desk.run("audit", "--kind", "changes", *form)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing of that kind has been kept since" in done.stderr
    unknown = desk.run("audit", "--machine", "NOWHERE", *form)
    assert (unknown.returncode, unknown.stdout) == (0, "")
    assert "'NOWHERE'" in unknown.stderr


async def test_who_follows_sees_what_comes_until_ctrl_c(morning: Desk) -> None:
    log = EventLog(morning.connection, SITE)
    told = ("--follow", "--json", "--limit", "1", "--kind", "changes")
    with morning.started("audit", *told) as following:
        assert following.stdout
        assert json.loads(following.stdout.readline())["details"]["option"] == "timeout"
        await log.record("login_failed", machine=TWO)
        await log.record("access_changed", operator="root@desk")
        assert json.loads(following.stdout.readline())["kind"] == "access_changed"
        assert interrupt(following) == (0, "", "")


async def test_a_reader_that_goes_away_ends_the_audit_in_silence(morning: Desk) -> None:
    log = EventLog(morning.connection, SITE)
    with morning.started("audit", "--follow") as following:
        assert following.stdout
        assert following.stdout.readline().startswith("TIME")
        following.stdout.close()
        while following.poll() is None:
            await log.record("access_changed", operator="root@desk")
        assert following.returncode == 0
        assert following.stderr
        assert following.stderr.read() == ""


def test_kinds_have_colours_on_a_terminal_alone(morning: Desk) -> None:
    def colours(environment: dict[str, str]) -> dict[str, str]:
        with Terminal([*COMMAND, "audit"], environment, columns=200) as screen:
            screen.wait_for("option_changed")
        rows = screen.screen.buffer.values()
        cells = [[row[column] for column in range(21, 37)] for row in rows]
        return {"".join(cell.data for cell in row).strip(): row[0].fg for row in cells}

    assert "\x1b" not in morning.done("audit")
    found = colours(morning.environment)
    assert (found["login_failed"], found["option_changed"]) == ("red", "brown")
    assert found["jobs_scheduled"] == "default"
    assert set(colours(morning.environment | {"NO_COLOR": "1"}).values()) == {"default"}


async def test_junk_is_told_of_on_standard_error_and_hides_nothing(morning: Desk) -> None:
    stream = morning.connection.jetstream()
    await stream.publish(subjects.event(SITE, TWO, "login_failed"), b"{")
    done = morning.run("audit", "--json")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert "an event cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "soon"), "--since: 'soon' is no moment"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is no moment"),
        (("--since", "1d", "--until", "2d"), "--until must be later"),
        (("--follow", "--until", "1h"), "--follow"),
        (("--limit", "0"), "--limit"),
        (("--limit", "many"), "--limit"),
        (("--kind", "sabotage"), "sabotage"),
        (("--site", "No Site"), "no site"),
        (("alice",), "alice"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_sentence(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    assert words in desk.refused("audit", *arguments)


def test_a_bus_that_keeps_no_events_ends_with_status_4(
    bus: BusServer, connection: Connection, tmp_path: Path
) -> None:
    done = Desk(bus.url, connection, tmp_path).run("audit")
    assert done.returncode == 4
    assert "does not keep" in done.stderr


def test_every_kind_is_in_one_group() -> None:
    grouped = [kind for group in GROUPS.values() for kind in group]
    assert sorted(grouped) == sorted(get_args(Kind))


NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        (" 2H ", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-11-01", datetime(2026, 11, 1).astimezone()),
        ("2026-11-01T08:00", datetime(2026, 11, 1, 8).astimezone()),
        ("2026-11-01T08:00+02:00", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ],
)
def test_moments_are_understood_as_people_type_them(typed: str, meant: datetime) -> None:
    assert moment(typed, NOW) == meant


@pytest.mark.parametrize("typed", ["", "2", "h", "-2h", "2y", "yesterday", "999999999w", "08:00"])
def test_what_is_no_moment_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(ValueError, match="no moment: say 2h, 3d, 2026-11-01"):
        moment(typed, NOW)
