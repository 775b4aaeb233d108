"""What the bus keeps in memory for each event of the last hour and each subject of a stream.

Many messages as events are go to a server of its own: once all of different machines, once all of
one. The server remembers the ids of an hour, and the subjects of all that a stream holds.
"""

import asyncio
import tempfile
import uuid
from pathlib import Path
from typing import Final

import nats.errors
from msgspec import Struct

from bench.harness import MeasureError, Say
from bench.scale_bus import pid_of, resident_bytes
from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from tests.buses import BusServer

_MESSAGES: Final = 200_000
_BODY: Final = b"x" * 300
_KEPT_WITHIN: Final = 60.0


class Remembered(Struct, frozen=True):
    """Bytes of memory: of an event whose subject is there already, and of a subject more."""

    event: float
    subject: float


def measured(say: Say) -> Remembered:
    """What the bus remembers.

    Raises:
        MeasureError: it does not keep what it is sent.
    """
    one, many = (asyncio.run(_taken(machines)) for machines in (1, _MESSAGES))
    found = Remembered(event=one / _MESSAGES, subject=(many - one) / _MESSAGES)
    say(f"memory of the bus: {found.event:.0f} bytes an event, {found.subject:.0f} a subject more")
    return found


async def _taken(machines: int) -> float:
    """Bytes of memory that the server takes for the messages of so many machines."""
    with tempfile.TemporaryDirectory(prefix="ii-bench-") as scratch:
        bus = BusServer(Path(scratch))
        bus.start()
        try:
            connection = await connect(bus.url, "bench")
            try:
                await prepare(connection.jetstream())
                server = pid_of(Path(scratch) / "nats.conf")
                before = resident_bytes(server)
                await _publish(connection, machines)
                return resident_bytes(server) - before
            finally:
                await connection.close()
        finally:
            bus.stop()


async def _publish(connection: Connection, machines: int) -> None:
    for number in range(1, _MESSAGES):
        await connection.publish(*_message(number % machines), headers=_headers())
        if number % 1000 == 0:
            await connection.flush()
    try:
        # It is kept after those before it.
        stream = connection.jetstream()
        await stream.publish(*_message(0), timeout=_KEPT_WITHIN, headers=_headers())
    except nats.errors.Error as error:
        raise MeasureError("the bus does not keep what it is sent") from error


def _message(machine: int) -> tuple[str, bytes]:
    return subjects.event("campus", str(uuid.UUID(int=machine)), "menu_shown"), _BODY


def _headers() -> dict[str, str]:
    return {"Nats-Msg-Id": str(uuid.uuid4())}
