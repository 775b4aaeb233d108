"""The echo as a process, while something is compared with it."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

import nats.errors
from nats.aio.client import Client

from bench.harness import MeasureError
from bench.site import Site, end

_STARTS_WITHIN: Final = 10.0


@contextlib.contextmanager
def echo(site: Site, subject: str, answers: Mapping[str, bytes]) -> Iterator[int]:
    """Answers questions to ``SUBJECT.NAME`` with the bytes of that name; gives its process id."""
    folder = site.folder / "answers"
    folder.mkdir()
    for name, answer in answers.items():
        (folder / name).write_bytes(answer)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", site.url, subject, str(folder)], env=site.environment
    )
    try:
        yield process.pid
    finally:
        end(process)


async def until_heard(connection: Client, subject: str) -> None:
    """Waits until somebody answers there.

    Raises:
        MeasureError: nobody does.
    """
    give_up = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < give_up:
        try:
            await connection.request(subject, timeout=_STARTS_WITHIN)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
        else:
            return
    raise MeasureError("the echo did not start")
