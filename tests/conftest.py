"""What every test can have: a bus of its own, a connection to it, and a domain controller."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bus.connection import Connection, connect
from tests.buses import BusServer
from tests.samba import controller

__all__ = ["controller"]


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
