"""How large a run is, its chance, a bus that keeps what it acknowledges, and databases."""

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import dsn, kind, postgres_template, sqlite_template
from tests.faults.estate import CrashingPostgres, SafeBus
from tests.site import Express, site_name

__all__ = ["dsn", "kind", "postgres_template", "sqlite_template"]


@dataclass(frozen=True, slots=True)
class Size:
    """How many machines go through the portal, and how often each of them."""

    machines: int
    rounds: int


@pytest.fixture
def size() -> Size:
    """Small unless told otherwise; `make soak` tells."""
    return Size(
        machines=int(os.environ.get("IMAGEINVOKER_FAULT_MACHINES", "40")),
        rounds=int(os.environ.get("IMAGEINVOKER_FAULT_ROUNDS", "2")),
    )


@pytest.fixture
def chance() -> random.Random:
    """What happens when; its seed is printed, so that a run can be had again."""
    seed = int(os.environ.get("IMAGEINVOKER_FAULT_SEED", "0")) or random.randrange(1, 10**6)
    sys.stdout.write(f"IMAGEINVOKER_FAULT_SEED={seed}\n")
    return random.Random(seed)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The site's name."""
    return site_name(request.node.originalname)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SafeBus]:
    """A NATS server for this test alone."""
    server = SafeBus(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[CrashingPostgres]:
    """A PostgreSQL server that only these tests hurt."""
    server = CrashingPostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def express(dsn: str) -> Express:
    """The deployment server's database as an operator sees it."""
    return Express(dsn)
