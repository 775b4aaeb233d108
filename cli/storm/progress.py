"""How far the storm is: a line that is drawn anew each second, off a terminal one each ten."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bus.waiting import end
from cli.storm.playing import Storm

_DRAWN: Final = 1.0
_WRITTEN: Final = 10.0
_CLEAR: Final = "\r\033[K"


@asynccontextmanager
async def shown(storm: Storm, machines: int) -> AsyncIterator[None]:
    """Shows on standard error how far the storm is, until it is over."""
    drawn = sys.stderr.isatty()

    async def show() -> None:
        before = storm.tally.ended
        every = _DRAWN if drawn else _WRITTEN
        while True:
            await asyncio.sleep(every)
            ended = storm.tally.ended
            text = line(storm, machines, (ended - before) / every)
            before = ended
            sys.stderr.write(f"{_CLEAR}{text}" if drawn else f"{text}\n")
            sys.stderr.flush()

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        await end(showing)
        if drawn:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()


def line(storm: Storm, machines: int, rate: float) -> str:
    """How far it is; ``rate`` is of journeys that ended, a second."""
    tally = storm.tally
    errors = tally.rejected + tally.failed
    return (
        f"{storm.at:4.0f} s: {tally.arrived} of {machines} arrived, {tally.scheduled} done, "
        f"{storm.in_flight} in flight, {errors} errors, {rate:.1f}/s"
    )
