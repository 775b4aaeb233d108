"""What rates are compared with: job trees, sites that hold them, the echo."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import nats.errors
import pytest

from bench.cold_visit import Question, visits_a_second
from bench.echoing import until_heard
from bench.harness import MeasureError
from bench.show_rate import compare, show
from bench.site import MACHINE, Site, end, new_machine, protect, running_site
from bench.trees import fill, large_tree
from bus.connection import Connection, connect
from bus.machines import machine_key
from engine.tree import Folder, Job
from tests.buses import BusServer
from tests.site import eventually

FOLDERS = [Folder(1, None, "Deploy")]
JOBS = [Job(7, 1, "Windows (MI)", ""), Job(8, 1, "Not for technicians", "")]


@pytest.mark.parametrize(("smaller", "jobs", "folders"), [(1, 100_000, 5_000), (5, 20_000, 1_000)])
def test_a_large_tree_has_parents_before_children_and_one_job_in_fifty_tagged(
    smaller: int, jobs: int, folders: int
) -> None:
    made_jobs, made_folders = large_tree(smaller)
    assert (len(made_jobs), len(made_folders)) == (jobs, folders)
    seen: set[int | None] = {None}
    for folder in made_folders:
        assert folder.parent_id in seen
        seen.add(folder.id)
    assert len({job.id for job in made_jobs}) == jobs
    tagged = [job for job in made_jobs if job.name.endswith(" (MI)")]
    assert len(tagged) == jobs // 50


@pytest.fixture
def echo(bus: BusServer, tmp_path: Path) -> Iterator[str]:
    """The subject of an echo that knows the machines aa and bb."""
    folder = tmp_path / "answers"
    folder.mkdir()
    for machine in ("aa", "bb"):
        (folder / machine).write_bytes(f"menu of {machine}".encode())
    command = [sys.executable, "-m", "bench.echo", bus.url, "bench.echo", str(folder)]
    process = subprocess.Popen(command)
    yield "bench.echo"
    end(process)


async def test_the_echo_answers_each_machine_with_its_own_bytes(
    echo: str, connection: Connection
) -> None:
    async def asked(machine: str) -> bytes:
        try:
            return (await connection.request(f"{echo}.{machine}", timeout=5)).data
        except nats.errors.NoRespondersError:
            return b""

    assert await eventually(lambda: asked("aa"), bool) == b"menu of aa"
    assert await asked("bb") == b"menu of bb"


async def test_a_visit_whose_answer_is_too_small_is_no_measure(
    bus: BusServer, echo: str, connection: Connection
) -> None:
    await until_heard(connection, f"{echo}.aa")
    size = len(b"menu of aa")
    visit = [Question(f"{echo}.aa", b"?", size), Question(f"{echo}.bb", b"?", size)]
    assert await visits_a_second(bus.url, [visit] * 3) > 0
    with pytest.raises(MeasureError, match="menu of bb"):
        await visits_a_second(bus.url, [[replace(visit[1], answered=size + 1)]])


@pytest.fixture
def prepared() -> Iterator[Site]:
    """A site whose one menu item is the job 7."""
    with running_site(partial(fill, jobs=JOBS, folders=FOLDERS)) as site:
        yield site


async def test_a_prepared_site_shows_its_own_tree_until_it_is_protected(prepared: Site) -> None:
    connection = await connect(prepared.url, "test")
    try:
        shown = await show(connection, prepared.name, MACHINE)
        assert (shown.machine, shown.items) == (machine_key(MACHINE), 1)
        assert b'"job:7"' in shown.answer
        await protect(connection, prepared, "server")
        with pytest.raises(MeasureError, match="login_required"):
            await show(connection, prepared.name, MACHINE)
    finally:
        await connection.close()


async def test_another_answer_than_the_expected_one_is_no_measure(prepared: Site) -> None:
    connection = await connect(prepared.url, "test")
    try:
        shown = await show(connection, prepared.name, MACHINE)
        wrong = replace(shown, answer=shown.answer + b" ")
        with pytest.raises(MeasureError, match="another answer"):
            await compare(connection, prepared, [wrong], lambda _line: None)
    finally:
        await connection.close()


def test_new_machines_have_different_keys() -> None:
    assert len({machine_key(new_machine(number)) for number in range(1000)}) == 1000
