"""Commands reach a deployment server by the engine that is told, or say that they cannot."""

from pathlib import Path

import pytest

from bus.buckets import prepare
from bus.connection import Connection
from bus.messages import Outcome
from bus.problems import Problem
from engine.finding import find
from express.connection import sqlite_dsn
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk
from tests.engine.conftest import tiny, tiny_package
from tests.engine.grounds import TinyGround
from tests.engine.test_engine_contract import carried, order
from tests.engine.test_finding import install
from tests.site import new_machine

__all__ = ["tiny", "tiny_package"]


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path, tiny_package: Path) -> Desk:
    """A desk at which the engine `tiny` is installed, and no deployment server is told."""
    await prepare(connection.jetstream())
    found = Desk(bus.url, connection, tmp_path / "home")
    found.environment["PYTHONPATH"] = str(tiny_package)
    return found


@pytest.fixture
def ground(desk: Desk, tiny: None, tmp_path: Path) -> TinyGround:
    """A deployment server of the engine `tiny`, which the desk is told of."""
    found = TinyGround(tmp_path)
    found.add_folder(1, None, "Deploy")
    found.add_folder(10, 1, "Office (MI)")
    found.add_job(101, 10, "1. Image")
    found.add_job(102, 10, "2. Programs")
    found.add_job(103, 1, "Memory test (MI)")
    desk.environment["IMAGEINVOKER_DATABASE"] = found.address
    return found


@pytest.mark.parametrize("service", ["menu", "scheduler", "monitor"])
@pytest.mark.parametrize(
    ("address", "arguments", "said"),
    [
        ("odd:PWD=s3cret", (), "There is no engine 'odd'; installed are: express, tiny."),
        ("PWD=s3cret", ("--engine", "odd"), "There is no engine 'odd'; installed are: express, ti"),
        ("express:PWD=s3cret", ("--engine", "tiny"), "is for the engine 'express', and 'tiny'"),
    ],
)
def test_a_service_is_not_started_by_an_engine_that_there_is_not(
    desk: Desk, tmp_path: Path, service: str, address: str, arguments: tuple[str, ...], said: str
) -> None:
    desk.environment |= {
        "IMAGEINVOKER_DATABASE": address,
        "IMAGEINVOKER_HISTORY": sqlite_dsn(tmp_path / "history.db"),
    }
    done = desk.run(service, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_the_environment_names_is_the_one(desk: Desk) -> None:
    desk.environment |= {"IMAGEINVOKER_DATABASE": "/x", "IMAGEINVOKER_ENGINE": "odd"}
    done = desk.run("menu")
    assert done.returncode == 2
    assert "There is no engine 'odd'" in done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("menu",), 2),
        (("scheduler",), 2),
        (("monitor",), 2),
        (("doctor", "--only", "database"), 1),
        (("access", "allow", "user:alice", "Deploy/Office"), 1),
    ],
)
def test_what_is_no_engine_is_told_and_nothing_is_done_by_it(
    desk: Desk, tmp_path: Path, command: tuple[str, ...], status: int
) -> None:
    (tmp_path / "rubbish.py").write_text("def open_engine(address, site, observe):\n    return 1\n")
    install(tmp_path, "rubbish", rubbish="rubbish:open_engine")
    desk.environment |= {
        "PYTHONPATH": str(tmp_path),
        "IMAGEINVOKER_DATABASE": "rubbish:PWD=s3cret",
        "IMAGEINVOKER_HISTORY": sqlite_dsn(tmp_path / "history.db"),
    }
    done = desk.run(*command)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == status, said
    assert "The engine 'rubbish' is none as this version wants it" in said
    assert "s3cret" not in said
    assert "Traceback" not in said


def test_rules_are_told_with_the_names_of_any_deployment_server(
    desk: Desk, ground: TinyGround
) -> None:
    assert desk.done("access", "allow", "user:alice", "Deploy/Office").splitlines() == [
        "lab: user:alice may deploy folder:10 (Deploy/Office)"
    ]
    desk.done("access", "deny", "user:alice", "job:102")
    assert [rule["name"] for rule in desk.json("access", "list")] == [
        "Deploy/Office",
        "Deploy/Office/2. Programs",
    ]
    refused = desk.run("access", "allow", "user:alice", "job:999")
    assert "There is no job:999" in refused.stderr
    items = {each["id"]: each for each in desk.json("access", "explain", "alice")["items"]}
    assert [items[each]["permitted"] for each in ("folder:10", "job:103")] == [False, False]
    assert items["folder:10"]["job"] == "Deploy/Office/2. Programs"


async def test_what_became_of_a_request_is_told_from_the_records_of_any_engine(
    desk: Desk, ground: TinyGround
) -> None:
    engine = find(ground.address).open(SITE)
    wanted, unwanted = (order(new_machine(number), "job:103", site=SITE) for number in (1, 2))
    try:
        done: Outcome = await carried(engine, wanted)
        await engine.reject(unwanted.wish, Problem("name_taken"))
    finally:
        await engine.close()
    shown = desk.json("requests", "show", done.request_id)
    assert shown["outcome"]["state"] == "scheduled"
    assert shown["outcome"]["computer"]["name"] == "NEW0000001"
    shown = desk.json("requests", "show", unwanted.wish.request_id)
    assert shown["outcome"]["problem"]["code"] == "name_taken"


def test_the_doctor_says_what_every_engine_tells_and_that_it_is_no_more(
    desk: Desk, ground: TinyGround
) -> None:
    (found,) = desk.json("doctor", "--only", "database")
    assert (found["finding"]["check"], found["finding"]["state"]) == ("engine tiny", "ok")
    assert "2 menu items; more is looked at by `express` only" in found["finding"]["text"]
    with ground.away():
        done = desk.run("doctor", "--only", "database")
    assert done.returncode == 1
    assert "unable to open database file" in done.stdout


@pytest.mark.parametrize("command", ["install", "create"])
def test_what_only_an_express_database_needs_is_refused_for_another_engine(
    desk: Desk, ground: TinyGround, command: str
) -> None:
    done = desk.run("database", command)
    assert done.returncode == 2
    assert done.stderr == (
        "This looks into an eXpress database, which the engine 'express' reaches; the deployment "
        "server here is told to be reached by 'tiny'.\n"
    )


def test_a_storm_does_not_reckon_by_a_database_that_is_none(desk: Desk, ground: TinyGround) -> None:
    done = desk.run("storm", "--machines", "1", "--probe", "--yes")
    assert done.returncode == 2
    assert (
        "to be reached by 'tiny'. The reckoning goes by what the machines are told." in done.stderr
    )
    assert "--probe needs the deployment server's database" in done.stderr
