"""What every test can have: a bus of its own, a connection to it, and a domain controller."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bus.connection import Connection, connect
from tests.buses import BusServer
from tests.samba import controller

__all__ = ["controller"]

# A shell lets what it starts in the background ignore Ctrl-C, and all that tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[BusServer]:
    """A NATS server that runs, for this test alone."""
    server = BusServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def connection(bus: BusServer) -> AsyncIterator[Connection]:
    """A connection to the bus of this test."""
    connection = await connect(bus.url, "test")
    yield connection
    await connection.close()
