"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bus.messages import Machine
from tests.e2e.e2e_site import OpenPortal, Site
from tests.terminal import Terminal


@pytest.fixture
def idle_site(tmp_path: Path) -> Iterator[Site]:
    """A site that has not been started."""
    site = Site(tmp_path / "site", tmp_path / "home")
    yield site
    site.stop()


@pytest.fixture
def site(idle_site: Site) -> Site:
    """A site with the sample job tree."""
    idle_site.start()
    return idle_site


@pytest.fixture
def boot(idle_site: Site) -> Iterator[OpenPortal]:
    """Boots a machine; its terminal ends with the test."""
    with ExitStack() as terminals:

        def open_portal(machine: Machine, *arguments: str, **size: int) -> Terminal:
            return terminals.enter_context(idle_site.boot(machine, *arguments, **size))

        yield open_portal
