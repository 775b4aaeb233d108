"""A site on PostgreSQL, each part a process, with as many copies of each service as wanted."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bench.harness import MeasureError
from bench.site import Site, clean_environment, end
from bus.connection import connect
from bus.presence import present
from cli.ports import HOST, held_port, port_of
from cli.up import SERVICES
from express.database import Database
from express.schema import create_embedded
from tests.buses import BusServer
from tests.databases import PostgresServer

_NAME: Final = "campus"
_ANSWERS_WITHIN: Final = 60.0
ONE_EACH: Final[Mapping[str, int]] = dict.fromkeys(SERVICES, 1)


@contextlib.contextmanager
def served(
    copies: Mapping[str, int] = ONE_EACH,
    prepare: Callable[[str], None] | None = None,
    *,
    sample: bool = True,
) -> Iterator[tuple[Site, str]]:
    """A site whose copies all answer, and the connection string of its database; ended on leaving.

    What is acknowledged is on disk: NATS syncs always, PostgreSQL runs as it does by default.
    ``prepare`` is called with the connection string of the database before the site starts; the
    database holds the sample job tree then, or none.

    Raises:
        MeasureError: it does not start.
    """
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        raise MeasureError("PostgreSQL is not installed (Debian: postgresql)")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ii-bench-")))
        postgres = PostgresServer()
        stack.callback(postgres.remove)
        postgres.start(durable=True)
        express, history = (postgres.dsn(postgres.create()) for _ in range(2))
        asyncio.run(_create(express, sample))
        if prepare:
            prepare(express)
        durable = f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}'
        bus = BusServer(folder, more=durable)
        bus.start()
        stack.callback(bus.stop)
        environment = clean_environment(folder) | {
            "IMAGEINVOKER_SERVER": bus.url,
            "IMAGEINVOKER_SITE": _NAME,
            "IMAGEINVOKER_DATABASE": express,
            "IMAGEINVOKER_HISTORY": history,
        }
        log = stack.enter_context((folder / "log").open("wb"))
        metrics: dict[str, str] = {}
        for service, count in copies.items():
            for copy in range(1, count + 1):
                address = f"{HOST}:{port_of(stack.enter_context(held_port()))}"
                name = service if count == 1 else f"{service} {copy}"
                metrics[name] = f"http://{address}/metrics"
                command = [sys.executable, "-m", "cli", service, "--metrics", address]
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                stack.callback(end, process)
        try:
            asyncio.run(_until_all_answer(bus.url, copies))
        except TimeoutError as error:
            said = (folder / "log").read_text(encoding="utf-8")
            raise MeasureError(f"the site did not start:\n{said}") from error
        yield Site(bus.url, _NAME, folder, environment, metrics), express


async def _create(dsn: str, sample: bool) -> None:
    database = Database(dsn)
    try:
        await create_embedded(database, sample=sample)
    finally:
        await database.close()


async def _until_all_answer(url: str, copies: Mapping[str, int]) -> None:
    async with asyncio.timeout(_ANSWERS_WITHIN):
        connection = await connect(url, "bench")
        try:
            wanted = Counter(copies)
            while not wanted <= Counter(copy.name for copy in await present(connection, _NAME)):
                pass  # each look takes half a second
        finally:
            await connection.close()
