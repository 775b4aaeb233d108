"""A bus, a database of each kind and a site of its own for each test of the services."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.menu.program import program as menu
from services.scheduler.program import program as scheduler
from tests.buses import BusServer
from tests.databases import (
    dsn,
    empty_dsn,
    kind,
    postgres,
    postgres_template,
    sqlite_template,
)
from tests.site import Asker, Express, asker, running, site_name

__all__ = ["dsn", "empty_dsn", "kind", "postgres", "postgres_template", "sqlite_template"]


@pytest.fixture(scope="session")
def shared_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = BusServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def url(shared_bus: str) -> str:
    """The bus of the test; it is shared, the site is not."""
    return shared_bus


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The site's name."""
    return site_name(request.node.originalname)


@pytest.fixture
def express(dsn: str) -> Express:
    """The deployment server's database as an operator sees it."""
    return Express(dsn)


@pytest.fixture
async def client(url: str, name: str) -> AsyncIterator[Asker]:
    """Somebody who asks a site on which no service runs yet."""
    async with asker(url, name) as found:
        yield found


@pytest.fixture
async def site(url: str, name: str, dsn: str, client: Asker) -> AsyncIterator[Asker]:
    """Somebody who asks a site with a menu service and a scheduler."""
    async with running(url, name, menu(dsn), scheduler(dsn)):
        yield client
