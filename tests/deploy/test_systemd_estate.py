"""What is laid over the systemd units at the sites and the hub of an estate, without systemd.

`deploy/systemd/estate` mirrors /etc. It is held against systemd's own tools, against what
`imageinvoker pki` and `imageinvoker site` make, and against real servers and services.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cli.main import make_app
from estate.folder import EstateFolder
from estate.wishes import Wish, hub_servers
from express.connection import sqlite_dsn
from tests.buses import free_port
from tests.deploy.test_systemd import (
    AT_A_HUB,
    FOLDER,
    HERE,
    INSTALLED,
    OF_A_SITE,
    ROOT,
    UNITS,
    answers,
    command_of,
    guarded,
    settings_of,
)

LAID_OVER = FOLDER / "estate"
OVER_UNITS = LAID_OVER / "systemd/system"
COPIED = "/etc/imageinvoker"
BUS_USER = "imageinvoker-nats"
SITE_UNITS = [*OF_A_SITE, "imageinvoker-nats.service"]


def _over(unit: str) -> Path:
    return OVER_UNITS / f"{unit}.d/20-estate.conf"


def _file(unit: str) -> Path:
    """Where it stands what a unit has more at an estate."""
    return FOLDER / unit if unit == AT_A_HUB else _over(unit)


def _command(unit: str) -> list[str]:
    commands = [value for name, value in settings_of(_file(unit)) if name == "ExecStart" and value]
    (command,) = commands
    return shlex.split(command)


def _credentials(*files: Path) -> dict[str, str]:
    """What systemd hands to a service: the names that it has there, and where they come from."""
    found = [value.partition(":") for file in files for name, value in settings_of(file)
             if name == "LoadCredential"]  # fmt: skip
    return {name: source for name, _, source in found}


@pytest.fixture
def estate(tmp_path: Path) -> EstateFolder:
    """An estate of a hub and a site, as it is made for other machines."""
    made, _ = EstateFolder.begin(tmp_path / "estate", "acme", hub_servers(["hub.example"]))
    assert made.add_site(Wish(name="london", addresses=("bus.london.example",)))
    return made


def _ready(estate: EstateFolder, unit: str) -> Path:
    """What is copied to the machine of a unit."""
    return estate.folder / "hub/hub-1" if unit == AT_A_HUB else estate.site_folder("london")


# -- What systemd says ------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with what is laid over them, and the programs where they are on this machine."""
    folder = tmp_path / "units"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("estate"))
    shutil.copytree(OVER_UNITS, folder, dirs_exist_ok=True)
    for each in (*folder.glob("*.service"), *folder.glob("*.service.d/20-*.conf")):
        each.write_text(each.read_text().replace(INSTALLED, HERE))
    return folder


def _verified(units: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(units.glob("*.service"))],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stderr


def test_systemd_understands_every_line(units: Path) -> None:
    assert "imageinvoker" not in _verified(units)


def test_systemd_would_find_a_mistake(units: Path) -> None:
    file = units / "imageinvoker-menu.service.d/20-estate.conf"
    file.write_text(file.read_text().replace("LoadCredential", "LoadCredentials", 1))
    assert "LoadCredentials" in _verified(units)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_exposes_as_little_as_without_an_estate(unit: str, units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager",
         units / unit],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# -- What is laid over the units --------------------------------------------------------------


def test_each_unit_of_a_site_has_something_laid_over_it() -> None:
    assert {each.parent.name for each in OVER_UNITS.rglob("*.conf")} == {
        f"{unit}.d" for unit in SITE_UNITS
    }


@pytest.mark.parametrize("unit", OF_A_SITE)
def test_a_service_does_the_same_with_its_credentials(unit: str) -> None:
    plain = command_of(unit)
    assert _command(unit)[: len(plain)] == plain
    names = [name for name, _ in settings_of(_over(unit))]
    assert set(names) == {"LoadCredential", "ExecStart"}
    # The first, which is empty, takes the place of the unit's own.
    assert next(value for name, value in settings_of(_over(unit)) if name == "ExecStart") == ""


@pytest.mark.parametrize("unit", [*OF_A_SITE, AT_A_HUB])
def test_our_command_line_knows_every_command(unit: str) -> None:
    program, name, *arguments = _command(unit)
    assert program == f"{INSTALLED}imageinvoker"
    make_app(name).parse_args([name, *arguments], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("unit", [*OF_A_SITE, AT_A_HUB])
def test_a_service_is_handed_its_own_credentials_and_nobody_elses(
    unit: str, estate: EstateFolder
) -> None:
    own = f"{unit.removesuffix('.service').rpartition('-')[2]}.creds"
    ready = _ready(estate, unit)
    handed = {name: source for name, source in _credentials(_file(unit)).items()
              if source != f"{COPIED}/history"}  # fmt: skip
    for name, source in handed.items():
        assert Path(source).name == name
        assert (ready / Path(source).relative_to(COPIED)).is_file(), source
    keys = {f"{COPIED}/keys/{each.name}" for each in (ready / "keys").glob("*")}
    wanted = {f"{COPIED}/creds/{own}", f"{COPIED}/tls/ca.pem"}
    assert set(handed.values()) == wanted | (keys if unit == "imageinvoker-auth.service" else set())
    command = _command(unit)
    assert command[command.index("--credentials") + 1] == f"%d/{own}"
    assert command[command.index("--ca") + 1] == "%d/ca.pem"
    assert ("--callout-keys" in command) == (own == "auth.creds")


@pytest.mark.parametrize("unit", [*OF_A_SITE, AT_A_HUB])
def test_the_environment_of_a_unit_is_the_file_that_was_made(
    unit: str, estate: EstateFolder
) -> None:
    told = dict(settings_of(FOLDER / unit))
    assert told["EnvironmentFile"] == f"{COPIED}/environment"
    code = "".join(each.read_text() for each in (ROOT / "cli").glob("*.py"))
    variables = dict(settings_of(_ready(estate, unit) / "environment"))
    assert all(f'"{each}"' in code for each in variables)
    assert ("IMAGEINVOKER_SITE" in variables) == (unit != AT_A_HUB)


def test_the_bus_runs_with_the_configuration_that_was_made(estate: EstateFolder) -> None:
    command = command_of("imageinvoker-nats.service")
    assert command[-2:] == ["--config", f"{COPIED}/nats.conf"]
    state = dict(settings_of(FOLDER / "imageinvoker-nats.service"))["StateDirectory"]
    for unit in (AT_A_HUB, "imageinvoker-nats.service"):
        assert f'"/var/lib/{state}"' in (_ready(estate, unit) / "nats.conf").read_text()


def test_the_bus_is_given_its_files_before_it_starts_and_before_it_reads_them_again() -> None:
    told = settings_of(_over("imageinvoker-nats.service"))
    (before,) = (value for name, value in told if name == "ExecStartPre")
    reloads = [value for name, value in told if name == "ExecReload"]
    own = dict(settings_of(FOLDER / "imageinvoker-nats.service"))["ExecReload"]
    assert reloads == ["", before, own]
    program, *arguments = before.removeprefix("+").split()
    assert Path(program).is_file()
    assert arguments == ["--create", "/etc/tmpfiles.d/imageinvoker.conf"]
    assert (LAID_OVER / "tmpfiles.d/imageinvoker.conf").is_file()
    assert dict(told)["User"] == BUS_USER


# -- What it comes to on a machine ------------------------------------------------------------


class Machine:
    """A machine in a folder: what is copied to it, and systemd's tools run for it."""

    def __init__(self, folder: Path, ready: Path) -> None:
        self.folder = folder
        self.copied = folder / COPIED.removeprefix("/")
        shutil.copytree(LAID_OVER, folder / "etc")
        shutil.copytree(ready, self.copied)
        for each in (self.copied, *self.copied.rglob("*")):
            each.chmod(0o700 if each.is_dir() else 0o600)
        for name in ("database", "history", "mail"):
            (self.copied / name).touch(0o600)
        self._run("systemd-sysusers", f"{folder}/etc/sysusers.d/imageinvoker.conf")
        accounts = (folder / "etc/passwd").read_text()
        ((user, group),) = re.findall(rf"^{BUS_USER}:[^:]*:(\d+):(\d+):", accounts, re.MULTILINE)
        self.bus = int(user), int(group)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [program, f"--root={self.folder}", *arguments],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip

    def give(self) -> None:
        """What runs before the bus starts, and before it reads its files again."""
        self._run("systemd-tmpfiles", "--create", f"{self.folder}/etc/tmpfiles.d/imageinvoker.conf")

    def readable_by_the_bus(self) -> set[str]:
        """The files that its user can read, of those that are copied."""
        user, group = self.bus
        files = [str(each.relative_to(self.copied)) for each in self.copied.rglob("*")
                 if each.is_file()]  # fmt: skip
        return {each for each in files
                if subprocess.run(
                    ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
                     "--inh-caps=-all", "cat", self.copied / each],
                    check=False, capture_output=True, timeout=30,
                ).returncode == 0}  # fmt: skip


@contextmanager
def _machine(ready: Path) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="ii-systemd-"))
    try:
        folder.chmod(0o711)
        yield Machine(folder, ready)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("unit", ["imageinvoker-nats.service", AT_A_HUB])
def test_the_bus_reads_its_own_files_and_no_others(unit: str, estate: EstateFolder) -> None:
    ready = _ready(estate, unit)
    configuration = (ready / "nats.conf").read_text()
    named = set(re.findall(rf'"{COPIED}/([^"]+)"', configuration))
    with _machine(ready) as machine:
        assert machine.readable_by_the_bus() == set()
        machine.give()
        own = {"nats.conf", "tls/ca.pem"} | named
        assert machine.readable_by_the_bus() == own
        # As they are copied again after a renewal.
        for each in (machine.copied, *machine.copied.rglob("*")):
            os.chown(each, 0, 0)
            each.chmod(0o700 if each.is_dir() else 0o600)
        machine.give()
        assert machine.readable_by_the_bus() == own
        assert stat.S_IMODE(machine.copied.stat().st_mode) == 0o710


class Started:
    """The bus of a machine and its services, under the rules of the units."""

    def __init__(self, machine: Machine, folder: Path, stack: ExitStack) -> None:
        self._machine, self._folder, self._stack = machine, folder, stack
        self._listen = free_port()

    def bus(self) -> None:
        """Starts the bus with what was copied; returns when it is found well."""
        watch = f"127.0.0.1:{free_port()}"
        text = (self._machine.copied / "nats.conf").read_text()
        for old, new in (
            ("0.0.0.0:4222", f"127.0.0.1:{self._listen}"),
            ("0.0.0.0:7422", f"127.0.0.1:{free_port()}"),
            ("127.0.0.1:8222", watch),
            ("/var/lib/imageinvoker-nats", str(self._folder / "jetstream")),
            (f'"{COPIED}/', f'"{self._machine.copied}/'),
        ):
            text = text.replace(old, new)
        configuration = self._folder / "nats.conf"
        configuration.write_text(text)
        command = command_of("imageinvoker-nats.service")
        self._start("nats", [*command[:-1], str(configuration)], f"http://{watch}/healthz")

    def service(self, unit: str) -> None:
        """Starts a service with what systemd hands to it; returns when it says that it is ready."""
        handed = self._folder / f"credentials-{unit}"
        handed.mkdir()
        for name, source in _credentials(FOLDER / unit, _file(unit)).items():
            file = handed / name
            shutil.copy(self._machine.copied / Path(source).relative_to(COPIED), file)
            file.chmod(0o440)  # As systemd shows them to the service: by a group's right.
        watch = f"127.0.0.1:{free_port()}"
        command = [re.sub(r"^127\.0\.0\.1:\d+$", watch, each).replace("%d", str(handed))
                   for each in _command(unit)]  # fmt: skip
        environment = dict(settings_of(self._machine.copied / "environment"))
        server = f"tls://localhost:{self._listen}"
        self._start(unit, command, f"http://{watch}/readyz",
                    **environment | {"IMAGEINVOKER_SERVER": server})  # fmt: skip

    def _start(self, name: str, command: Sequence[str], health: str, **environment: str) -> None:
        here = [each.replace(INSTALLED, HERE) for each in command]
        log = self._folder / f"{name}.log"
        self._stack.enter_context(guarded(here, lambda: answers(health), log, **environment))


@pytest.mark.parametrize("ours", [OF_A_SITE, [AT_A_HUB]], ids=["site", "hub"])
def test_all_units_of_a_machine_do_their_work_under_the_rules(
    ours: list[str], estate: EstateFolder, tmp_path: Path
) -> None:
    with _machine(_ready(estate, ours[0])) as machine, ExitStack() as stack:
        (machine.copied / "database").write_text(sqlite_dsn(tmp_path / "express.db"))
        (machine.copied / "history").write_text(sqlite_dsn(tmp_path / "history.db"))
        subprocess.run(
            [f"{HERE}imageinvoker", "database", "create", "--database-file",
             machine.copied / "database"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        started = Started(machine, tmp_path, stack)
        started.bus()
        for unit in ours:
            started.service(unit)
