"""The services as programs: they start before the bus, and leave without losing a request."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bus import contract, subjects
from bus.connection import connect
from bus.machines import machine_key
from bus.messages import Hello, Schedule, encode
from bus.presence import wait_for_services
from bus.problems import from_wire
from services import running as service_running
from services.auth.program import program as auth
from tests.buses import BusServer
from tests.site import (
    LAPTOP,
    LAPTOP_JOBS,
    MEMORY_TEST,
    STAFF_0117,
    Asker,
    Express,
    ServiceProcess,
    asker,
    new_id,
    new_machine,
    processes,
)

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])


class Flood:
    """Many questions that have reached the bus, and the answers that came."""

    def __init__(self, client: Asker) -> None:
        self._client = client
        self._inbox = client.connection.new_inbox()
        self.answers: dict[str, Msg] = {}

    async def ask(self, questions: dict[str, tuple[str, bytes]]) -> None:
        """Sends questions (subject and body, by a name); returns when the server has them all."""

        async def heard(message: Msg) -> None:
            name = subjects.machine_of(message.subject)
            assert name not in self.answers
            self.answers[name] = message

        await self._client.connection.subscribe(f"{self._inbox}.*", cb=heard)
        for name, (subject, body) in questions.items():
            await self._client.connection.publish(subject, body, reply=f"{self._inbox}.{name}")
        await self._client.connection.flush()


async def test_a_scheduler_that_is_told_to_leave_answers_every_request_in_flight(
    url: str, name: str, dsn: str, client: Asker, express: Express, tmp_path: Path
) -> None:
    process = ServiceProcess("scheduler", url, name, dsn, tmp_path)
    machines = [new_machine(number) for number in range(40)]
    flood = Flood(client)
    with processes(process):
        await process.serving()
        await flood.ask(
            {
                str(number): (
                    subjects.endpoint(name, "scheduler", "schedule", machine_key(machine)),
                    encode(Schedule(request_id=new_id(), machine=machine, item_id=LAPTOP)),
                )
                for number, machine in enumerate(machines)
            }
        )
        process.terminate()
        assert await process.status() == 0
        await client.connection.flush()

    assert len(flood.answers) == len(machines)
    outcomes = [
        contract.SCHEDULE.answered_decoder.decode(answer.data) for answer in flood.answers.values()
    ]
    assert {outcome.state for outcome in outcomes} <= {"scheduled", "accepted"}
    done = sum(outcome.state == "scheduled" for outcome in outcomes)
    assert len(express.tables("event_schedule")["event_schedule"]) >= done * len(LAPTOP_JOBS)
    assert len(await client.waiting()) == len(machines) - len(
        express.tables("ii_request")["ii_request"]
    )
    assert '"event": "left"' in process.log.read_text()


async def test_a_menu_service_that_is_told_to_leave_answers_every_question_in_flight(
    url: str, name: str, dsn: str, client: Asker, tmp_path: Path
) -> None:
    process = ServiceProcess("menu", url, name, dsn, tmp_path)
    flood = Flood(client)
    subject = subjects.endpoint(name, "menu", "welcome", machine_key(STAFF_0117))
    with processes(process):
        await process.serving()
        await flood.ask({str(n): (subject, encode(Hello(machine=STAFF_0117))) for n in range(300)})
        process.terminate()
        assert await process.status() == 0
        await client.connection.flush()

    assert len(flood.answers) == 300
    codes = {from_wire(m.data).code if m.headers else "" for m in flood.answers.values()}
    assert codes == {""}


async def test_services_started_before_the_bus_serve_when_it_comes(
    bus: BusServer, name: str, dsn: str, tmp_path: Path
) -> None:
    bus.stop()
    started = [
        ServiceProcess(service, bus.url, name, dsn, tmp_path)
        for service in ("menu", "auth", "scheduler")
    ]
    with processes(*started):
        await asyncio.gather(*(each.logged("the bus") for each in started))
        bus.start()
        async with asyncio.timeout(10):
            connection = await connect(bus.url, "test")
            await wait_for_services(connection, name, ("menu", "auth", "scheduler"))
            await connection.close()
        async with asker(bus.url, name) as client:
            assert (await client.welcome(STAFF_0117)).computer
            assert (await client.login(STAFF_0117, "")).token
            assert (await client.schedule(STAFF_0117, MEMORY_TEST)).state == "scheduled"
        for each in started:
            each.terminate()
        assert [await each.status() for each in started] == [0, 0, 0]


async def test_services_that_wait_for_the_bus_can_be_told_to_leave(
    bus: BusServer, name: str, dsn: str, tmp_path: Path
) -> None:
    bus.stop()
    process = ServiceProcess("scheduler", bus.url, name, dsn, tmp_path)
    with processes(process):
        await process.logged("the bus")
        process.terminate()
        assert await process.status(10) == 0


async def test_services_whose_bus_is_gone_can_be_told_to_leave(
    bus: BusServer, name: str, dsn: str, tmp_path: Path
) -> None:
    started = [
        ServiceProcess(service, bus.url, name, dsn, tmp_path)
        for service in ("menu", "auth", "scheduler")
    ]
    with processes(*started):
        await asyncio.gather(*(each.serving() for each in started))
        bus.kill()
        await asyncio.gather(*(each.logged("the bus") for each in started))
        for each in started:
            each.terminate()
        assert [await each.status(15) for each in started] == [0, 0, 0]
        for each in started:
            log = each.log.read_text()
            assert '"exception"' not in log
            assert "Traceback" not in log


_FAILING = """
import structlog
from services import logs
logs.configure()
def check(password):
    raise RuntimeError("it went wrong")
try:
    check("open sesame " + str(4700 + 11))
except RuntimeError:
    structlog.get_logger().exception("failed")
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_in_the_log_shows_places_but_no_values(kind: str, terminal: bool) -> None:
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen([sys.executable, "-c", _FAILING], stderr=theirs)
    assert process.wait(20) == 0
    text = os.read(ours, 65_536).decode()
    os.close(theirs)
    os.close(ours)

    assert "it went wrong" in text
    assert "check" in text
    assert "open sesame 4711" not in text


@pytest.mark.parametrize("site", ["", "London", "a.b", "a*", "a" * 33])
def test_what_is_no_site_is_refused_before_anything_starts(kind: str, site: str) -> None:
    with pytest.raises(ValueError, match="is no site"):
        service_running.run("auth", "nats://127.0.0.1:1", site, auth)
    if site:
        ended = subprocess.run(
            [sys.executable, "-m", "cli", "auth", "--server", "nats://127.0.0.1:1", "--site", site],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert ended.returncode == 2
        assert "is no site" in ended.stderr
        assert "Traceback" not in ended.stderr
