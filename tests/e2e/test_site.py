"""An operator at the command line: a site is started, looked at, changed and ended."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.messages import Machine, Outcome, decoder
from tests.buses import free_port
from tests.e2e.e2e_site import COMMAND, Site
from tests.terminal import Terminal

PC = Machine(uuid="5E1F7A64-3B0C-4D2E-9A8B-0C1D2E3F4A5B", serial="5CG1234XYZ")


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_site_says_where_it_answers_and_ends_clean(idle_site: Site, how: signal.Signals) -> None:
    ready = idle_site.start("--site", "lab")
    assert ready.site == "lab"
    assert ready.nats_url.startswith("nats://127.0.0.1:")
    assert "express.db" in ready.database
    children = [idle_site.child(name) for name in ("menu", "auth", "scheduler", "monitor")]
    menu, *_, monitor = (os.getpriority(os.PRIO_PROCESS, each) for each in children)
    assert monitor > menu, "the monitor gives way to those who people wait for"
    assert idle_site.stop(how) == 0
    assert not (idle_site.folder / "ready.json").exists()
    assert not any(map(alive, children))


def test_what_was_scheduled_and_set_stays_over_a_restart(idle_site: Site) -> None:
    idle_site.start()
    set_ = idle_site.run("options", "set", "timeout", "7", "--json")
    assert (set_.returncode, json.loads(set_.stdout)) == (0, {"timeout": 7})
    done = idle_site.run(
        "client", "--machine", idle_site.machine_file(PC), "--item", "Exam Mode", "--json"
    )
    assert done.returncode == 0, done.stderr
    idle_site.stop()
    idle_site.start()
    assert json.loads(idle_site.run("options", "show", "timeout", "--json").stdout) == {
        "timeout": 7
    }
    assert idle_site.pending("5CG1234XYZ") == ["1. Lay down exam image", "2. Close network"]


def test_a_site_without_a_sample_has_an_empty_job_tree(idle_site: Site) -> None:
    idle_site.start("--no-sample")
    assert idle_site.rows("SELECT * FROM event") == []


def test_a_second_site_in_the_same_folder_or_on_a_taken_port_is_refused(
    site: Site, tmp_path: Path
) -> None:
    same = site.run("up", "--data", str(site.folder), "--port", "0")
    assert same.returncode == 1
    assert "already" in same.stderr
    port = site.ready.nats_url.rpartition(":")[2]
    taken = site.run("up", "--data", str(tmp_path / "other"), "--port", port)
    assert taken.returncode == 1
    assert f"Port {port} is taken" in taken.stderr


def test_a_service_that_dies_is_started_again(site: Site) -> None:
    first = site.child("menu")
    os.kill(first, signal.SIGKILL)
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        if site.run("doctor", "--only", "services").returncode == 0:
            break
    assert site.child("menu") != first


def test_nothing_is_left_running_when_the_site_itself_is_killed(site: Site) -> None:
    children = [site.child(name) for name in ("menu", "auth", "scheduler", "nats.conf")]
    site.stop(signal.SIGKILL)
    give_up = time.monotonic() + 30
    while any(map(alive, children)) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not any(map(alive, children))


def test_commands_find_the_embedded_site_by_themselves(site: Site) -> None:
    shown = site.run("options", "show")
    assert shown.returncode == 0
    assert "timeout" in shown.stdout
    site.stop()
    gone = site.run("options", "show")
    assert gone.returncode == 2
    assert "imageinvoker up" in gone.stderr


def test_the_doctor_finds_a_sound_site_sound_and_names_what_is_wrong(site: Site) -> None:
    sound = site.run("doctor")
    assert sound.returncode == 0, sound.stdout
    assert "0 to be mended" in sound.stdout
    site.run("options", "set", "root_folder", "No/Such")
    site.run("options", "set", "new_computer_group", "Nowhere")
    sick = site.run("doctor", "--json")
    assert sick.returncode == 1
    failed = [
        each["finding"] for each in json.loads(sick.stdout) if each["finding"]["state"] == "fail"
    ]
    assert {each["check"] for each in failed} == {"group", "root folder"}
    assert all(each["cure"] for each in failed)


def test_the_doctor_says_what_to_do_where_nothing_runs(idle_site: Site) -> None:
    nothing = idle_site.run("doctor", "--server", f"nats://127.0.0.1:{free_port()}")
    assert nothing.returncode == 1
    assert "nobody answers" in nothing.stdout
    assert "IMAGEINVOKER_DATABASE" in nothing.stdout


def test_detailed_logging_is_switched_while_the_services_run(site: Site) -> None:
    def lines_of_one_deployment() -> set[str]:
        before = set(site.logs().splitlines())
        done = site.run("client", "--machine", site.machine_file(PC), "--item", "Exam Mode")
        assert done.returncode == 0, done.stderr
        lines = set(site.logs().splitlines()) - before
        return {
            f"{line['event']} {line.get('endpoint', '')}".strip()
            for line in map(json.loads, filter(lambda line: line.startswith("{"), lines))
        }

    detail = {
        "a question was answered welcome", "a question was answered show",
        "a question was answered schedule", "a request is taken",
    }  # fmt: skip
    assert not detail & lines_of_one_deployment()
    site.run("options", "set", "detailed_logging", "on")
    assert detail <= lines_of_one_deployment()
    site.run("options", "set", "detailed_logging", "off")
    assert not detail & lines_of_one_deployment()


def test_each_part_of_a_site_has_log_files_of_its_own_and_old_ones_are_removed(
    idle_site: Site,
) -> None:
    logs = idle_site.folder / "logs"
    logs.mkdir(parents=True)
    (logs / "menu-2020-01-01.log").write_text("old\n")
    (logs / "nats.out").write_bytes(b"x" * 1_000_001)
    idle_site.start()
    assert idle_site.child("menu")
    dated = {each.name for each in logs.glob("*-*.log")}
    assert {each.rpartition("-20")[0] for each in dated} == {"menu", "auth", "scheduler", "monitor"}
    assert all(re.fullmatch(r"[a-z]+-\d{4}-\d\d-\d\d\.log", each) for each in dated)
    assert "menu-2020-01-01.log" not in dated
    assert '"serving"' in next(logs.glob("menu-*.log")).read_text()
    assert "Server is ready" in (logs / "nats.log").read_text()
    settings = (idle_site.folder / "nats.conf").read_text()
    assert "log_size_limit: 10000000\nlog_max_num: 5\n" in settings
    # What a program says beside its log: nothing, where nothing is wrong.
    assert {each.read_text() for each in logs.glob("*.out")} == {""}
    assert not (idle_site.folder / "log").exists()


def test_an_unattended_machine_gets_its_jobs_and_its_status_tells(site: Site) -> None:
    machine = site.machine_file(PC)
    done = site.run(
        "client", "--machine", machine, "--item", "exam mode", "--name", "AUTO-1", "--json"
    )
    assert done.returncode == 0, done.stderr
    outcome = decoder(Outcome).decode(done.stdout)
    assert outcome.state == "scheduled"
    assert site.pending("AUTO-1") == [job.name for job in outcome.jobs]
    unknown = site.run("client", "--machine", machine, "--item", "no such item")
    assert unknown.returncode == 3
    nobody = site.run("client", "--machine", machine, "--item", "exam mode", "-t", "1",
                      "--server", f"nats://127.0.0.1:{free_port()}")  # fmt: skip
    assert nobody.returncode == 4


@pytest.fixture(scope="module")
def sound_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of which nobody wants anything that it should do."""
    place = tmp_path_factory.mktemp("sound")
    site = Site(place / "site", place / "home")
    site.start()
    yield site
    site.stop()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("options", "set", "timeout", "soon"), "timeout"),
        (("options", "set", "no_such", "1"), "no_such"),
        (("options", "set", "menu_type", "tree"), "menu_type"),
        (("options", "set", "naming", "PC-%NOPE%"), "%NOPE%"),
        (("options", "set", "text.countdown", "{oops}"), "text.countdown"),
        (("options", "set", "protection", "domain"), "options set domain"),
        (("options", "import", "no-such-file.ini"), "no-such-file.ini"),
        (("client", "-t", "minus"), "minus"),
        (("client", "--machine", "no-such-file.json"), "no-such-file.json"),
        (("no-such-command",), "no-such-command"),
        (("up", "--site", "Not A Site"), "no site"),
        (("menu", "--database-file", "no-such-file"), "no-such-file"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_sentence(
    sound_site: Site, arguments: tuple[str, ...], words: str
) -> None:
    wrong = sound_site.run(*arguments)
    assert wrong.returncode == 2, wrong.stderr
    assert words in wrong.stderr + wrong.stdout
    assert "Traceback" not in wrong.stderr


def test_the_options_of_an_old_installation_are_taken_over(site: Site, tmp_path: Path) -> None:
    old = tmp_path / "menu_options.ini"
    old.write_text(
        "[Options]\nTimeout=12\nMenuType=Hierarchical\nDisableClientRename=1\n"
        "PasswordProtection=Hash\nHash=5F4DCC3B5AA765D61D8327DEB882CF99\nColour=blue\n",
        encoding="utf-16",
    )
    taken = site.run("options", "import", str(old))
    assert taken.returncode == 1, "what was not understood is told by the status too"
    assert "Colour" in taken.stderr
    shown = json.loads(site.run("options", "show", "--json").stdout)
    assert (shown["timeout"], shown["menu_type"], shown["may_rename"], shown["protection"]) == (
        12, "folders", False, "hash",
    )  # fmt: skip
    # The password behind the old hash lets in, and is kept as argon2id from then on.
    done = site.run(
        "client", "--machine", site.machine_file(PC), "--item", "Exam Mode",
        more={"IMAGEINVOKER_PASSWORD": "password"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5f4dcc3b" not in site.run("options", "show", "--json").stdout


def test_the_demonstration_shows_the_portal_and_then_the_rows(idle_site: Site) -> None:
    demo = [*COMMAND, "demo", "--data", str(idle_site.folder)]
    with Terminal(demo, idle_site.environment, rows=40) as screen:
        screen.wait_for("Press i")
        screen.type("i")
        screen.wait_for("What is to be deployed")
        screen.type("exam\r")
        screen.wait_for("NOT KNOWN")
        screen.type("\r")
        screen.wait_for("Scheduled for the new computer 5CG1234XYZ")
        screen.type("\r")
        text = screen.wait_for("ended with status 0")
    assert "5CG1234XYZ  2. Close network" in text
