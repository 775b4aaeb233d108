"""A running site, people who use it, and a real Prometheus that watches it as it is deployed."""

import asyncio
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bus import contract
from bus.connection import connect
from bus.machines import machine_key
from bus.messages import Machine, Outcome, Request, Schedule
from bus.request_store import RequestStore
from cli.embedded import Ready
from services.scheduler.intake import digest_of
from tests.buses import free_port
from tests.e2e.e2e_site import Site
from tests.guarded import RIGHT, WRONG, Guarded
from tests.site import MEMORY_TEST, Asker, eventually, new_id, new_machine, problem_of, refused

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
SITE: Final = "lab"
TECHNICIAN: Final = "ann"
MACHINES: Final = tuple(new_machine(number) for number in range(1, 9))

_READY_WITHIN: Final = 60.0
_DATA_WITHIN: Final = 60.0


class Prometheus:
    """A Prometheus with our rules, that asks every second; it is ended by its own process id."""

    def __init__(self, folder: Path, ready: Ready) -> None:
        self._folder = folder / "prometheus"
        shutil.copytree(PROMETHEUS, self._folder)
        settings = yaml.safe_load((self._folder / "prometheus.yml").read_text())
        settings["global"] = dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
        )
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        # What the comment in prometheus.yml says of ready.json.
        targets = [
            {"targets": [url.split("/")[2]], "labels": {"site": ready.site, "service": service}}
            for service, url in ready.metrics.items()
        ]
        (self._folder / "targets").mkdir()
        (self._folder / "targets" / "lab.json").write_text(json.dumps(targets))
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        program = shutil.which("prometheus")
        assert program, "Prometheus is not installed: apt install prometheus"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self._url.removeprefix('http://')}",
                ],
                cwd="/",
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _READY_WITHIN
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers; fails with what it says of a query that it does not understand."""
        query = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(
                f"{self._url}/api/v1/{path}?{query.decode()}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series that an expression brings now: labels, and value."""
        found = self.ask("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]

    def numbers(self, expression: str) -> list[float]:
        """The values that an expression brings now, without those that are no numbers."""
        return [value for _, value in self.query(expression) if value == value]  # noqa: PLR0124

    def eventually(self, expression: str) -> list[float]:
        """The values of an expression, once it has some."""
        until = time.monotonic() + _DATA_WITHIN
        while not (found := self.numbers(expression)):
            assert time.monotonic() < until, f"there is nothing for {expression}"
            time.sleep(0.2)
        return found

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A site that was used, watched from before its first use on."""
    folder = tmp_path_factory.mktemp("watched")
    site = Site(folder / "site", folder / "home")
    try:
        ready = site.start("--site", SITE)
        prometheus = Prometheus(folder, ready)
        try:
            prometheus.start()
            for service in ready.metrics:
                prometheus.eventually(f'up{{service="{service}"}} == 1')
            # Each counter is seen before it rises.
            prometheus.eventually("imageinvoker_queue_requests >= 0")
            prometheus.eventually("imageinvoker_deployments_total >= 0")
            with closed_port() as port:
                asyncio.run(_use(site, ready, port))
                yield prometheus
        finally:
            prometheus.stop()
    finally:
        site.stop()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that is taken, where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


async def _use(site: Site, ready: Ready, closed: int) -> None:
    """People deploy machines, sign in, and err; no mail server and no domain controller answers."""
    connection = await connect(ready.nats_url, "people")
    try:
        people = Guarded(connection, SITE)
        for machine in MACHINES:
            await people.welcome(machine)
            await people.show(machine)
        outcomes = [
            await people.settled(each, (await people.schedule(each, MEMORY_TEST)).request_id)
            for each in MACHINES[:4]
        ]
        _run_jobs(site, outcomes)
        await _err(people)
        await _be_rejected(people, closed)
        await _sign_in(people, closed)
    finally:
        await connection.close()


def _run_jobs(site: Site, outcomes: list[Outcome]) -> None:
    """The deployment server runs the jobs; that of the last machine fails."""
    computers = [outcome.computer.id for outcome in outcomes if outcome.computer]
    assert len(computers) == len(outcomes)
    with closing(sqlite3.connect(site.folder / "express.db", timeout=10)) as database:
        for computer in computers:
            database.execute(
                "UPDATE event_schedule SET status_code = ? WHERE computer_id = ?",
                (int(computer == computers[-1]), computer),
            )
        database.commit()


async def _err(people: Asker) -> None:
    with refused("unknown_item"):
        await people.schedule(MACHINES[5], "job:1")
    with refused("unknown_request"):
        await people.status(MACHINES[5], "00000000-0000-4000-8000-000000000000")
    await people.raw(contract.SHOW, machine_key(MACHINES[5]), b"no json")


async def _be_rejected(people: Asker, closed: int) -> None:
    """A request is rejected when it is carried out, of which operators want mail."""
    await people.set("mail_to", "ops@lab.example")
    await people.set("mail_server", f"127.0.0.1:{closed}")
    machine, item = MACHINES[5], "job:1"
    wish = Schedule(request_id=new_id(), machine=machine, item_id=item)
    request = Request(
        request_id=wish.request_id,
        site=SITE,
        machine=machine,
        item_id=item,
        accepted_at=datetime.now(UTC),
        digest=digest_of(wish),
    )
    assert (await RequestStore(people.connection, SITE).put(request)).new
    outcome = await people.settled(machine, wish.request_id)
    assert outcome.state == "rejected"


async def _sign_in(people: Guarded, closed: int) -> None:
    async def answer(machine: Machine, username: str, password: str) -> str:
        return await problem_of(people.login(machine, password, username))

    await people.employ(TECHNICIAN)
    await people.set("protection", "server")
    # What is set reaches the services a moment later.
    await eventually(
        lambda: answer(MACHINES[7], "nobody", WRONG), lambda code: code == "login_failed"
    )
    for code in ("login_failed", "login_failed", "locked_out"):
        assert await answer(MACHINES[7], "nobody", WRONG) == code
    await people.login(MACHINES[6], RIGHT, TECHNICIAN)
    await people.set("domain", "lab.example")
    await people.set("domain_controllers", f"127.0.0.1:{closed}")
    await people.set("protection", "domain")
    await eventually(
        lambda: answer(MACHINES[0], TECHNICIAN, RIGHT),
        lambda code: code == "directory_unavailable",
    )
