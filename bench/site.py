"""A whole site, as `imageinvoker up` runs it: bus, sample database and services, each a process."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.harness import MeasureError
from bus import contract
from bus.connection import Connection, ask
from bus.machines import machine_key
from bus.messages import Login, Machine, Protection, ShowMenu, encode
from bus.option_store import OptionStore
from bus.options import parse
from bus.problems import Problem
from cli.embedded import READY, Ready
from express.connection import sqlite_dsn

_STARTS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 60.0
_CLOSES_WITHIN: Final = 10.0

MACHINE: Final = Machine(
    uuid="4C4C4544-0047-5810-8032-B7C04F4E4433", serial="7GX2ND3", macs=("B0:7B:25:C4:D1:01",)
)
"""One of the sample's computers: CAD-LAB-01."""


@dataclass(frozen=True)
class Site:
    """A site that answers."""

    url: str
    name: str
    folder: Path
    environment: Mapping[str, str]
    metrics: Mapping[str, str]
    """Where each service says what it counts, by its name."""

    def machine_file(self) -> Path:
        """A file that says that this machine is `MACHINE`."""
        file = self.folder / "machine.json"
        file.write_bytes(encode(MACHINE))
        return file


def new_machine(number: int) -> Machine:
    """A machine that the sample does not know, another one for each number."""
    return Machine(
        uuid=f"{number:08x}-5d0e-4b61-8f3a-2c9b7e10d4a6",
        serial=f"BURST{number:05}",
        macs=(f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",),
    )


async def protect(connection: Connection, site: Site, protection: Protection) -> None:
    """Protects a site; returns when menus and sessions are refused to strangers.

    Raises:
        MeasureError: they are not.
    """
    store = await OptionStore.open(connection, site.name)
    await store.write("protection", parse("protection", protection))
    key = machine_key(MACHINE)
    show = ShowMenu(machine=MACHINE)
    await _until_refused(lambda: ask(connection, site.name, contract.SHOW, key, show))
    login = Login(machine=MACHINE, username="stranger", password="no password of anybody")
    await _until_refused(lambda: ask(connection, site.name, contract.LOGIN, key, login))


async def _until_refused(asking: Callable[[], Awaitable[object]]) -> None:
    give_up = time.monotonic() + _CLOSES_WITHIN
    while time.monotonic() < give_up:
        try:
            await asking()
        except Problem as problem:
            if problem.number == 401:
                return
            raise
        await asyncio.sleep(0.01)
    raise MeasureError("the site lets strangers in")


@contextlib.contextmanager
def running_site(prepare: Callable[[str], None] | None = None) -> Iterator[Site]:
    """A site in a scratch folder, on a free port; ended on leaving.

    Its database holds the sample job tree, or what ``prepare`` puts into it: that is called with
    the database's connection string before the site starts.

    Raises:
        MeasureError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        folder = Path(scratch)
        environment = clean_environment(folder)
        if prepare:
            (folder / "site").mkdir()
            prepare(sqlite_dsn(folder / "site" / "express.db"))
        with (folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", "--data", str(folder / "site"), "--port", "0"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            ready = _wait(process, folder / "site" / READY, folder / "up.log")
            yield Site(ready.nats_url, ready.site, folder, environment, ready.metrics)
        finally:
            end(process)


def clean_environment(folder: Path) -> dict[str, str]:
    """This process's environment without what would lead a program to another site."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEINVOKER_")}
    return kept | {"XDG_DATA_HOME": str(folder / "home")}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process that was started here, and waits for it."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", file: Path, log: Path) -> Ready:
    give_up = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < give_up:
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=Ready)
        time.sleep(0.05)
    raise MeasureError(f"the site did not start:\n{log.read_text(encoding='utf-8')}")
