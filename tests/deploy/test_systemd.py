"""The systemd units, without systemd running.

They are held against its own tools, and programs run under the rules that the kernel keeps.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from cli.main import make_app
from express.connection import sqlite_dsn
from tests.buses import free_port

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy/systemd"
UNITS = sorted(each.name for each in FOLDER.glob("*.service"))
OURS = [each for each in UNITS if each != "imageinvoker-nats.service"]
AT_A_HUB = "imageinvoker-hub-monitor.service"
OF_A_SITE = [each for each in OURS if each != AT_A_HUB]
GUARDED = FOLDER / "imageinvoker-.service.d/10-guarded.conf"
INSTALLED = "/opt/imageinvoker/bin/"
HERE = f"{Path(sys.executable).parent}/"
GUARD = [sys.executable, str(Path(__file__).parent / "sandbox.py"), str(GUARDED)]
"""What puts a program under the rules of the units."""


def settings_of(file: Path) -> list[tuple[str, str]]:
    """The settings of a unit or of an environment file, in order."""
    return re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE)


def _setting(unit: str, name: str) -> str:
    (value,) = (found for key, found in settings_of(FOLDER / unit) if key == name)
    return value


def command_of(unit: str) -> list[str]:
    """What a unit runs."""
    return shlex.split(_setting(unit, "ExecStart"))


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the programs where they are on this machine."""
    folder = tmp_path / "units"
    shutil.copytree(FOLDER, folder)
    for each in folder.glob("*.service"):
        each.write_text(each.read_text().replace(INSTALLED, HERE))
    return folder


# -- What systemd says ------------------------------------------------------------------------


def test_systemd_understands_every_line(units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(units.glob("*.service")),
         units / "imageinvoker.target"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    # It may speak of other units of this machine; of ours it has nothing to say.
    assert "imageinvoker" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_systemd_would_find_a_mistake(units: Path) -> None:
    unit = units / "imageinvoker-menu.service"
    unit.write_text(unit.read_text().replace("MemoryMax", "MemoryMaximum"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "MemoryMaximum" in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_exposes_little(unit: str, units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager",
         units / unit],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# -- What the units say -----------------------------------------------------------------------


def test_every_service_has_a_unit() -> None:
    names = [each.removeprefix("imageinvoker-").removesuffix(".service") for each in UNITS]
    assert names == ["auth", "hub-monitor", "menu", "monitor", "nats", "scheduler"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_weakens_nothing_and_starts_with_the_site(unit: str) -> None:
    shared = {name for name, _ in settings_of(GUARDED)} - {"Wants", "After"}
    assert not shared & {name for name, _ in settings_of(FOLDER / unit)}
    assert _setting(unit, "WantedBy") == "imageinvoker.target"


def test_a_service_is_started_again_for_ever_and_ended_gently() -> None:
    shared = dict(settings_of(GUARDED))
    assert shared["Restart"] == "always"
    assert shared["StartLimitIntervalSec"] == "0"
    assert shared["KillSignal"] == "SIGTERM"
    assert int(shared["TimeoutStopSec"]) > 25


@pytest.mark.parametrize("unit", OURS)
def test_our_command_line_knows_every_command(unit: str) -> None:
    program, name, *arguments = command_of(unit)
    assert program == f"{INSTALLED}imageinvoker"
    assert unit == (AT_A_HUB if "--estate" in arguments else f"imageinvoker-{name}.service")
    make_app(name).parse_args([name, *arguments], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("unit", OURS)
def test_a_unit_has_just_the_credentials_that_it_names(unit: str) -> None:
    loaded = {
        value.partition(":")[0]
        for name, value in settings_of(FOLDER / unit)
        if name == "LoadCredential"
    }
    named = {each.removeprefix("%d/") for each in command_of(unit) if each.startswith("%d/")}
    assert loaded == named


def test_every_service_answers_at_a_port_of_its_own() -> None:
    places = [command[command.index("--metrics") + 1] for command in map(command_of, OURS)]
    assert len(set(places)) == len(OURS)
    assert all(each.startswith("127.0.0.1:") for each in places)


def test_our_code_reads_every_variable_of_the_environment() -> None:
    code = "".join(each.read_text() for each in (ROOT / "cli").glob("*.py"))
    variables = dict(settings_of(FOLDER / "environment.example"))
    assert set(variables) == {"IMAGEINVOKER_SERVER", "IMAGEINVOKER_SITE"}
    assert all(f'"{each}"' in code for each in variables)
    (listen,) = re.findall(r'^listen: "0\.0\.0\.0:(\d+)"$', _bus(), re.MULTILINE)
    assert variables["IMAGEINVOKER_SERVER"] == f"nats://127.0.0.1:{listen}"


def _bus() -> str:
    return (FOLDER / "nats.conf").read_text()


@pytest.mark.parametrize(
    ("unit", "file"),
    [
        ("imageinvoker-nats.service", "nats.conf"),
        ("imageinvoker-monitor.service", "history.example"),
        (AT_A_HUB, "history.example"),
    ],
)
def test_what_a_unit_keeps_is_kept_in_its_own_folder(unit: str, file: str) -> None:
    assert f"/var/lib/{_setting(unit, 'StateDirectory')}" in (FOLDER / file).read_text()


# -- Programs under the rules that the kernel enforces ----------------------------------------


@contextmanager
def guarded(
    command: list[str], well: Callable[[], bool], log: Path, **environment: str
) -> Iterator[None]:
    """Runs a program under the units' rules until it is well; told to leave, it must leave well."""
    kept = {name: value for name, value in os.environ.items() if "IMAGEINVOKER" not in name}
    with (
        log.open("wb") as to,
        subprocess.Popen(
            [*GUARD, *command], stdout=to, stderr=to, env=kept | environment
        ) as process,
    ):
        try:
            until = time.monotonic() + 60
            while not well():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


def answers(url: str) -> bool:
    """Whether there is an answer that says that all is well."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def guarded_bus(tmp_path: Path) -> Iterator[str]:
    """The bus of its unit, with its configuration, under the units' rules."""
    listen, watch = (f"127.0.0.1:{free_port()}" for _ in range(2))
    text = _bus()
    for old, new in (
        ("0.0.0.0:4222", listen),
        ("127.0.0.1:8222", watch),
        ("/var/lib/imageinvoker-nats", str(tmp_path / "jetstream")),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    assert "sync_interval: always" in text
    configuration = tmp_path / "nats.conf"
    configuration.write_text(text)
    command = [
        each.replace(INSTALLED, HERE).replace("/etc/imageinvoker/nats.conf", str(configuration))
        for each in command_of("imageinvoker-nats.service")
    ]
    assert str(configuration) in command
    health = f"http://{watch}/healthz?js-enabled-only=true"
    with guarded(command, lambda: answers(health), tmp_path / "nats.log"):
        yield f"nats://{listen}"


@pytest.mark.parametrize("unit", OF_A_SITE)
def test_a_service_does_its_work_under_the_rules(
    unit: str, guarded_bus: str, tmp_path: Path
) -> None:
    (tmp_path / "database").write_text(sqlite_dsn(tmp_path / "express.db"))
    (tmp_path / "history").write_text(sqlite_dsn(tmp_path / "history.db"))
    (tmp_path / "mail").touch()
    subprocess.run(
        [f"{HERE}imageinvoker", "database", "create", "--database-file", tmp_path / "database"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    watch = f"127.0.0.1:{free_port()}"
    command = [
        re.sub(r"^127\.0\.0\.1:\d+$", watch, each)
        .replace(INSTALLED, HERE)
        .replace("%d", str(tmp_path))
        for each in command_of(unit)
    ]
    with guarded(
        command,
        lambda: answers(f"http://{watch}/readyz"),
        tmp_path / "service.log",
        IMAGEINVOKER_SERVER=guarded_bus,
        IMAGEINVOKER_SITE="main",
    ):
        pass


@pytest.mark.parametrize(
    "forbidden",
    [
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import os; os.chroot('/')",
        "import os; os.sched_setaffinity(0, {0})",
    ],
)
def test_the_rules_hold_in_these_tests(forbidden: str) -> None:
    program = [sys.executable, "-c", forbidden]
    done = subprocess.run(
        [*GUARD, *program], check=False, capture_output=True, text=True, timeout=60
    )
    assert "PermissionError" in done.stderr, done.stderr
