"""`imageinvoker demo`: a site with a sample job tree, and the portal on it."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from bus.messages import Machine, encode
from cli.embedded import READY, Ready
from cli.fail import CommandError
from cli.supervisor import end_with_parent
from express.database import Database

_READY_WITHIN: Final = 60.0
_MACHINE: Final = Machine(
    uuid="5E1F7A64-3B0C-4D2E-9A8B-0C1D2E3F4A5B",
    serial="5CG1234XYZ",
    macs=("00:1A:4B:16:01:59",),
    manufacturer="ImageInvoker",
    model="Demonstration PC",
)
_PENDING: Final = (
    "SELECT c.name, e.name FROM event_schedule s"
    " JOIN computer c ON c.computer_id = s.computer_id"
    " JOIN event e ON e.event_id = s.event_id"
    " WHERE s.status_code IS NULL ORDER BY c.name, s.schedule_id"
)


def demo(*, data: Path = Path("build/demo"), timeout: int = 30) -> int:
    """Start a site with a sample job tree and open the portal on it, as on a PC that has booted.

    Press i for the menu. What was scheduled is shown at the end, as it stands in the database.

    Parameters
    ----------
    data
        The folder of the site.
    timeout
        Seconds of countdown, 0 waits for ever.
    """
    folder = data.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    ready_file = folder / READY
    ready_file.unlink(missing_ok=True)
    machine = folder / "machine.json"
    machine.write_bytes(encode(_MACHINE))
    say = sys.stdout.write
    say(f"Starting a site in {folder} ...\n")
    command = [sys.executable, "-m", "cli"]
    with (
        (folder / "up.log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 (this very program)
            [*command, "up", "--data", str(folder), "--port", "0", "--site", "demo"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (there are no threads yet)
        ) as site,
    ):
        try:
            ready = _wait(site, ready_file, folder)
            status = subprocess.call(  # noqa: S603
                [*command, "client", "--machine", str(machine), "-t", str(timeout)],
                env=os.environ
                | {"IMAGEINVOKER_SERVER": ready.nats_url, "IMAGEINVOKER_SITE": ready.site},
            )
            rows = asyncio.run(_pending(ready.database))
        finally:
            site.terminate()
    if rows:
        say(f"\nPending in {folder / 'express.db'}:\n\n")
        width = max(len(computer) for computer, _ in rows)
        say("".join(f"  {computer:<{width}}  {job}\n" for computer, job in rows))
    say(f"\nThe portal ended with status {status}. Run it again to see that it knows the PC now.\n")
    return status


def _wait(site: "subprocess.Popen[bytes]", ready_file: Path, folder: Path) -> Ready:
    give_up = time.monotonic() + _READY_WITHIN
    while time.monotonic() < give_up and site.poll() is None:
        if ready_file.exists():
            return msgspec.json.decode(ready_file.read_bytes(), type=Ready)
        time.sleep(0.05)
    raise CommandError(f"The site did not start; see {folder / 'up.log'} and {folder / 'logs'}")


async def _pending(dsn: str) -> list[tuple[str, str]]:
    database = Database(dsn, size=1)
    try:
        rows = await database.transact(lambda transaction: transaction.fetch(_PENDING))
        return [(str(row[0]), str(row[1])) for row in rows]
    finally:
        await database.close()
