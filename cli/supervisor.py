"""Runs programs, starts them again when they die, and ends them in the order they depend."""

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bus.connection import backoff

_PATIENCE: Final = 25.0
"""Seconds a program gets to end after SIGTERM, before it is killed."""
_STEADY: Final = 30.0
"""Seconds after which a program that dies has not died at its start."""
_MOST_SAID: Final = 1_000_000
"""Bytes of what a program says after which its file begins anew, when it is started again."""
_PR_SET_PDEATHSIG: Final = 1


class Supervisor:
    """Some programs that are kept running.

    Beside its log a program says little: why it could not start, or broke down. That is kept in
    ``<name>.out`` in a folder.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping: list[asyncio.Event] = []

    def keep(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Runs a program and starts it again whenever it ends."""
        stopping = asyncio.Event()
        self._stopping.append(stopping)
        self._keepers.append(asyncio.create_task(self._keep(name, command, environment, stopping)))

    async def stop(self) -> None:
        """Ends the programs, those started last first; returns when all have ended."""
        for keeper, stopping in zip(reversed(self._keepers), reversed(self._stopping), strict=True):
            stopping.set()
            await keeper

    async def _keep(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        stopping: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.create_task(stopping.wait())
        attempt = 0
        while not stopping.is_set():
            began = loop.time()
            said = self._folder / f"{name}.out"
            long = said.exists() and said.stat().st_size > _MOST_SAID
            with said.open("wb" if long else "ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    # A Ctrl-C at the terminal is for us alone: the order of the end matters.
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            ended = asyncio.create_task(process.wait())
            await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await _end(process, ended)
                break
            attempt = 0 if loop.time() - began > _STEADY else attempt + 1
            self._say(f"{name} ended with status {ended.result()} and is started again")
            await asyncio.wait({told}, timeout=backoff(attempt))
        told.cancel()


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    process.terminate()
    await asyncio.wait({ended}, timeout=_PATIENCE)
    if not ended.done():
        process.kill()
        await ended


def end_with_parent() -> None:
    """Run in a child: lets the kernel end it when its parent is killed (prctl(2), Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
