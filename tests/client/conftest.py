"""A bus and a site for each test of the boot client."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from client_site import MACHINE, Site, site_name

from tests.buses import BusServer


@pytest.fixture(scope="session")
def bus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = BusServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[BusServer]:
    """A server that a test may start and stop as it likes; not started yet."""
    server = BusServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def site(bus_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with Site(bus_url, site_name(request.node.name)).serving() as site:
        yield site


@pytest.fixture
def machine_file(tmp_path: Path) -> Path:
    file = tmp_path / "machine.json"
    file.write_bytes(msgspec.json.encode(MACHINE))
    return file
