"""The profile `estate` of docker-compose.yml and what it mounts, without a container engine.

What each container would run is run here, with the folder that it would mount, and asked by its own
health check how it is.
"""

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from bus import subjects
from bus.connection import connect
from bus.door import BootLogin, Door
from bus.machines import machine_key
from cli.main import make_app
from estate.folder import EstateFolder
from estate.permissions import HUB
from estate.permissions import SERVICES as ROLES
from tests.buses import free_port
from tests.deploy.composed import (
    COMPOSE,
    OURS,
    PLAIN,
    ROOT,
    SECRETS,
    SERVICES,
    SERVING,
    Postgres,
    prepare,
    secrets_of,
    wait,
)
from tests.site import STAFF_0117, Asker, eventually, new_id

ESTATE = [name for name in SERVICES if name not in PLAIN]
SITES = ("north", "south")
DEPLOYING = (ROOT / "docs/deploying.md").read_text()
BUSES = [name for name in ESTATE if name.endswith("-nats")]
OUR_COMMAND = (sys.executable, "-m", "cli")
TARGET = "/etc/imageinvoker"
MOUNTING = [
    name for name in ESTATE
    if any(isinstance(each, dict) and each["target"] == TARGET
           for each in SERVICES[name].get("volumes", ()))
]  # fmt: skip


def _folder(name: str) -> str:
    """What a container has at /etc/imageinvoker, as a path below that of prepare."""
    (source,) = (
        each["source"]
        for each in SERVICES[name]["volumes"]
        if isinstance(each, dict) and each["target"] == TARGET
    )
    return str(source).removeprefix("./deploy/compose/")


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """What `deploy/compose/prepare --estate` makes; to be read alone."""
    with _prepared() as folder:
        yield folder


@contextmanager
def _prepared() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ii-estate-"))
    try:
        prepare(folder, "--estate", SITE="main")
        yield folder
    finally:
        shutil.rmtree(folder)


# -- The file itself --------------------------------------------------------------------------


def test_nothing_of_the_estate_starts_without_being_asked_for() -> None:
    assert all(SERVICES[name]["profiles"] == ["estate"] for name in ESTATE)
    for name in PLAIN:
        assert not set(SERVICES[name].get("depends_on", ())) & set(ESTATE)


def test_an_estate_has_a_hub_and_at_each_site_what_a_site_has() -> None:
    hub = {"hub-nats", "hub-monitor", "hub-operator"}
    parts = {"nats", "database", "menu", "auth", "scheduler", "monitor"}
    sites = {f"{site}-{part}" for site in SITES for part in parts}
    assert set(ESTATE) == {"estate-postgres"} | hub | sites


def test_the_sites_differ_by_their_names_and_ports_alone() -> None:
    def told(site: str) -> Any:
        of_it = {name: each for name, each in SERVICES.items() if name.startswith(f"{site}-")}
        return json.loads(re.sub(r"127\.0\.0\.1:423\d", "PORT", json.dumps(of_it))
                          .replace(site, "SITE"))  # fmt: skip

    assert told("north") == told("south")


@pytest.mark.parametrize("name", BUSES)
def test_a_bus_is_reached_from_this_machine_alone_and_by_its_services(name: str) -> None:
    (published,) = SERVICES[name]["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:423\d:4222", published)
    place = name.removesuffix("-nats")
    for other in SERVING:
        assert _shared(name, other) == ({place} if other.startswith(f"{place}-") else set())


def _shared(one: str, other: str) -> set[str]:
    """The networks of both, without that which leads outside."""
    return set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"]) - {"outside"}


def test_who_asks_shares_a_network_with_who_answers() -> None:
    for name in ESTATE:
        for needed in SERVICES[name].get("depends_on", ()):
            # Who runs once need not be reached.
            assert needed not in {*BUSES, "estate-postgres"} or _shared(name, needed), name
        if name in SERVING:
            assert _shared("prometheus", name) == {"metrics"}
    for site in SITES:
        assert _shared("hub-nats", f"{site}-nats") == {"lines"}
    inner = set().union(*(SERVICES[name]["networks"] for name in ESTATE)) - {"outside"}
    assert all(COMPOSE["networks"][each] == {"internal": True} for each in inner)


def test_no_service_of_a_site_reaches_another_sites_database(prepared: Path) -> None:
    for name in ESTATE:
        sources = set(secrets_of(SERVICES[name]).values()) - {"mail"}
        if name in OURS:
            assert all(each.startswith(f"{name.split('-')[0]}_") for each in sources)
    secrets = prepared / "secrets"
    for site in SITES:
        for what in ("express", "history"):
            text = (secrets / f"{site}_{what}").read_text()
            assert f"Database={site}_{what};UID={site};" in text


@pytest.mark.parametrize("name", [each for each in ESTATE if each in OURS])
def test_our_command_line_knows_every_command(name: str) -> None:
    command = SERVICES[name]["command"]
    make_app(command[0]).parse_args(command, exit_on_error=False, print_error=False)


# -- What prepare makes -----------------------------------------------------------------------


def test_every_secret_is_made(prepared: Path) -> None:
    made = {each.name: each.read_text() for each in (prepared / "secrets").iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    passwords = [text for name, text in made.items() if name.endswith("_password")]
    assert len(set(passwords)) == len(passwords) == 7
    assert all(len(each) == 48 for each in passwords)


@pytest.mark.parametrize("name", MOUNTING)
def test_what_is_mounted_is_of_the_containers_user_and_of_nobody_else(
    name: str, prepared: Path
) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    ((user, group),) = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    owner = (int(user), int(group)) if name in OURS else (0, 0)
    folder = prepared / _folder(name)
    for each in (folder, *folder.rglob("*")):
        found = each.stat()
        assert (found.st_uid, found.st_gid) == owner, each
        assert stat.S_IMODE(found.st_mode) == (0o700 if each.is_dir() else 0o600), each


def test_the_containers_user_can_read_what_is_mounted(prepared: Path) -> None:
    folder = prepared / _folder("north-auth")
    owner = folder.stat().st_uid
    for uid, readable in ((owner, True), (owner + 1, False)):
        # By the open folder, as by a mount: what lies above it does not matter.
        done = subprocess.run(
            ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all",
             "cat", "keys/auth.seed"],
            cwd=folder, check=False, capture_output=True, timeout=30,
        )  # fmt: skip
        assert (done.returncode == 0) == readable, done.stderr


def test_the_estates_own_folder_is_mounted_nowhere_and_is_its_owners_alone(prepared: Path) -> None:
    for each in ("estate", "estate/mounted", "estate/folder", "estate/folder/keys"):
        assert stat.S_IMODE((prepared / each).stat().st_mode) == 0o700
    assert sorted(prepared.joinpath("estate/mounted").iterdir()) == sorted(
        prepared / _folder(name) for name in MOUNTING
    )
    assert all(_folder(name) == f"estate/mounted/{name}" for name in MOUNTING)


@pytest.mark.parametrize("name", MOUNTING)
def test_a_container_has_its_own_credentials_and_nobody_elses(name: str, prepared: Path) -> None:
    folder = prepared / _folder(name)
    place, _, part = name.partition("-")
    found = {str(each.relative_to(folder)) for each in _files(folder)}
    assert {each for each in found if each.startswith("creds/")} == {
        f"creds/{'leaf' if part == 'nats' else part}.creds"
    } - ({"creds/leaf.creds"} if name == "hub-nats" else set())
    assert any(each.startswith("keys/") for each in found) == (part == "auth")
    assert ("tls/server.key" in found) == (part == "nats")
    ready = prepared / "estate/folder" / ("hub/hub-1" if place == HUB else f"sites/{place}")
    for each in _files(folder):
        assert each.read_bytes() == (ready / each.relative_to(folder)).read_bytes()


@pytest.mark.parametrize("name", [each for each in MOUNTING if each in OURS])
def test_a_service_is_told_what_the_estate_says(name: str, prepared: Path) -> None:
    place = name.partition("-")[0]
    ready = prepared / "estate/folder" / ("hub/hub-1" if place == HUB else f"sites/{place}")
    told = dict(each.split("=", 1) for each in (ready / "environment").read_text().splitlines())
    keys = told.pop("IMAGEINVOKER_CALLOUT_KEYS", None)
    assert SERVICES[name]["environment"] == told
    if name.endswith("-auth"):
        command = SERVICES[name]["command"]
        assert command[command.index("--callout-keys") + 1] == keys


def test_addresses_are_names_of_containers_and_in_their_certificates(prepared: Path) -> None:
    estate = EstateFolder.open(prepared / "estate/folder")
    assert [each.address for each in estate.record.hub.servers] == ["hub-nats"]
    assert [(each.name, each.addresses) for each in estate.record.sites] == [
        (site, (f"{site}-nats",)) for site in SITES
    ]


def test_prometheus_watches_hub_and_sites_where_they_answer(prepared: Path) -> None:
    watched = {
        each["targets"][0]: (each["labels"]["site"], each["labels"]["service"])
        for each in json.loads((prepared / "targets/estate.json").read_text())
    }
    answers = {}
    for name in ESTATE:
        if name in SERVING:
            place, _, service = name.partition("-")
            _, _, port = SERVICES[name]["command"][-1].rpartition(":")
            site = subjects.ESTATE if place == HUB else place
            answers[f"{name}:{port}"] = (site, service)
    assert watched == answers


def test_said_again_it_changes_nothing_and_gives_out_what_has_been_renewed() -> None:
    with _prepared() as folder:
        before = {each: each.read_bytes() for each in _files(folder)}
        prepare(folder, "--estate")
        assert {each: each.read_bytes() for each in _files(folder)} == before
        EstateFolder.open(folder / "estate/folder").renew(["north"])
        prepare(folder, "--estate")
        changed = {each for each in _files(folder / "estate/mounted")
                   if each.read_bytes() != before[each]}  # fmt: skip
    mounted = folder / "estate/mounted"
    assert {mounted / f"north-{each}/creds/{each}.creds" for each in ROLES} < changed
    assert all(each.relative_to(mounted).parts[0].startswith("north-") for each in changed)


def test_who_is_not_root_is_told_so_before_anything_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/bin/sh", "-s", "--", "--estate",
         tmp_path / "new"],
        input=(ROOT / "deploy/compose/prepare").read_text(),
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "as root" in done.stderr
    assert not (tmp_path / "new").exists()


def test_without_our_command_line_that_of_the_image_is_taken() -> None:
    script = (ROOT / "deploy/compose/prepare").read_text()
    (image,) = re.findall(r"\b(imageinvoker:[\d.]+)", script)
    assert {SERVICES[name]["image"] for name in OURS} == {image}


def test_what_is_made_stays_out_of_the_repository() -> None:
    for name in ("estate/folder/estate.json", "estate/mounted/north-nats/nats.conf",
                 "targets/estate.json"):  # fmt: skip
        subprocess.run(
            ["git", "check-ignore", "-q", f"deploy/compose/{name}"],
            cwd=ROOT, check=True, timeout=30,
        )  # fmt: skip


# -- What the containers run ------------------------------------------------------------------


class Running:
    """The estate on this machine: each server and service as its container would run it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._ports = {name: (free_port(), free_port()) for name in BUSES}
        """Where each bus is reached, and where its health is told."""
        self._leaf = free_port()
        self.postgres = Postgres(self._new("postgres"), "estate-postgres")

    def _new(self, name: str) -> Path:
        (self.folder / "here").mkdir(exist_ok=True)
        # PostgreSQL's user has to get to its own.
        for each in (self.folder, self.folder / "here"):
            each.chmod(0o711)
        made = self.folder / "here" / name
        made.mkdir(exist_ok=True)
        return made

    def mounted(self, name: str) -> Path:
        """What a container has at /etc/imageinvoker."""
        return self.folder / _folder(name)

    def url(self, name: str) -> str:
        """Where a bus is reached from this machine, by a name that its certificate knows."""
        return f"tls://localhost:{self._ports[name][0]}"

    def start_database(self) -> None:
        """PostgreSQL with the databases that its script makes."""
        self._stack.enter_context(self.postgres.running())
        self.postgres.make_databases(self.folder / "secrets")

    def start_bus(self, name: str) -> None:
        """A bus, as root without any capability; returns when it is found well."""
        here, (port, watch) = self._new(name), self._ports[name]
        store = here / "data"
        text = (self.mounted(name) / "nats.conf").read_text()
        for old, new in (
            ("0.0.0.0:4222", f"127.0.0.1:{port}"),
            ("127.0.0.1:8222", f"127.0.0.1:{watch}"),
            ("/data", str(store)),
            ("0.0.0.0:7422" if name == "hub-nats" else "hub-nats:7422", f"localhost:{self._leaf}"),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        configuration = here / "nats.conf"
        configuration.write_text(text.replace(TARGET, str(self.mounted(name))))
        program, *arguments = SERVICES[name]["command"]
        assert arguments == ["--config", f"{TARGET}/nats.conf"]
        server = shutil.which(program, path=str(Path(sys.executable).parent))
        assert server
        asked = SERVICES[name]["healthcheck"]["test"][-1].replace("127.0.0.1:8222",
                                                                  f"127.0.0.1:{watch}")  # fmt: skip
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", server,
                   "--config", str(configuration)]  # fmt: skip
        self._start(name, command, os.environ, lambda: self._page(asked) is not None)

    def lines(self) -> list[str]:
        """The sites whose line to the hub is up."""
        page = self._page(f"http://127.0.0.1:{self._ports['hub-nats'][1]}/leafz")
        return sorted(each["name"] for each in (page or {}).get("leafs") or ())

    def start_service(self, name: str) -> str:
        """A service of ours; when its health check finds it well, where it tells what it counts."""
        watch = f"127.0.0.1:{free_port()}"
        _, program, *arguments = SERVICES[name]["healthcheck"]["test"]
        assert program == "python"
        check = [sys.executable, *(each.replace("127.0.0.1:9464", watch) for each in arguments)]
        command = [each.replace("0.0.0.0:9464", watch) for each in self._command(name)]
        assert watch in command
        self._start(name, command, self._environment(name),
                    lambda: subprocess.run(check, check=False, stderr=subprocess.PIPE,
                                           timeout=30).returncode == 0)  # fmt: skip
        return f"http://{watch}/metrics"

    def run(self, name: str, *instead: str) -> str:
        """Runs a container that ends by itself, or a command in its place; what it said."""
        done = subprocess.run(
            [*OUR_COMMAND, *instead] if instead else self._command(name),
            cwd=ROOT, env=self._environment(name), check=False, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, name: str) -> list[str]:
        here = self._new(f"{name}-secrets")
        for target, source in secrets_of(SERVICES[name]).items():
            text = (self.folder / "secrets" / source).read_text()
            (here / target).write_text(self.postgres.here(text) if text else "")
        return [*OUR_COMMAND] + [
            each.replace(TARGET, str(self.folder / "estate/mounted" / name)).replace(
                str(SECRETS), str(here)
            )
            for each in SERVICES[name]["command"]
        ]

    def _environment(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if "IMAGEINVOKER" not in key}
        told = dict(SERVICES[name]["environment"])
        for bus in BUSES:
            if told.get("IMAGEINVOKER_SERVER") == f"tls://{bus}:4222":
                told["IMAGEINVOKER_SERVER"] = self.url(bus)
        if name in MOUNTING:
            here = str(self.mounted(name))
            told = {key: value.replace(TARGET, here) for key, value in told.items()}
        return kept | told

    def _start(self, name: str, command: list[str], environment: Mapping[str, str],
               well: Callable[[], bool]) -> None:  # fmt: skip
        log = self.folder / "here" / f"{name}.log"
        to = self._stack.enter_context(log.open("wb"))
        process = self._stack.enter_context(
            subprocess.Popen(command, stdout=to, stderr=to, cwd=ROOT,
                             env=environment)
        )  # fmt: skip
        self._stack.callback(process.terminate)
        wait(well, process, log)

    @staticmethod
    def _page(url: str) -> dict[str, Any] | None:
        try:
            with urlopen(url, timeout=5) as answer:
                return dict(json.load(answer)) if answer.status == 200 else None
        except OSError:
            return None


@pytest.fixture
def running() -> Iterator[Running]:
    """The estate's folder and nothing started; what is started is ended."""
    with _prepared() as folder, ExitStack() as stack:
        yield Running(folder, stack)


async def test_real_servers_take_what_is_mounted_and_the_lines_between_them_come_up(
    running: Running,
) -> None:
    for name in BUSES:
        await asyncio.to_thread(running.start_bus, name)
    await eventually(
        partial(asyncio.to_thread, running.lines), lambda found: found == list(SITES), 30
    )


async def test_a_whole_site_and_the_hub_work_with_what_is_mounted(
    running: Running, tmp_path: Path
) -> None:
    await asyncio.to_thread(running.start_database)
    for name in ("hub-nats", "north-nats"):
        await asyncio.to_thread(running.start_bus, name)
    for name in ("north-database", "north-database"):  # What is there already stays as it is.
        await asyncio.to_thread(running.run, name)
    counted = {
        name: await asyncio.to_thread(running.start_service, name)
        for name in SERVING
        if name.startswith(("hub-", "north-"))
    }
    await asyncio.to_thread(running.run, "hub-operator")
    documented = re.findall(r"--rm hub-operator (.*)$", DEPLOYING, re.MULTILINE)
    for command in documented:
        assert await asyncio.to_thread(running.run, "hub-operator", *command.split())
    examined = await asyncio.to_thread(running.run, "hub-operator", "doctor")
    assert "monitor" in examined
    assert "scheduler" not in examined  # A hub has none, and lacks nothing.

    key = machine_key(STAFF_0117)
    image = tmp_path / "boot-credential"
    image.write_text(EstateFolder.open(running.folder / "estate/folder").issue_boot("winpe"))
    image.chmod(0o600)
    door = Door(ca=running.mounted("north-auth") / "tls/ca.pem", boot=BootLogin(key, image))
    async with asyncio.timeout(20):
        machine = await connect(
            running.url("north-nats"), "client", inbox=subjects.inbox(key), door=door
        )
    try:
        welcome = await Asker(machine, "north").welcome(STAFF_0117, visit=new_id())
        assert welcome.site == "north"

        await eventually(
            partial(asyncio.to_thread, _read, counted["hub-monitor"]),
            lambda text: 'events_total{kind="portal_opened",site="north"} 1.0' in text,
            60,
        )
    finally:
        await machine.close()


def _read(url: str) -> str:
    with urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
