"""A deployment server of each kind, reached by the engine that is installed for it."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.finding import find
from engine.protocol import Engine
from tests.databases import KINDS, empty_dsn, postgres
from tests.engine.grounds import Ground, TinyGround, express_on_postgres, express_on_sqlite
from tests.services.conftest import client, name, shared_bus, url

__all__ = ["client", "empty_dsn", "name", "postgres", "shared_bus", "url"]

TINY = Path(__file__).parent.parent / "tiny_engine"


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package of the engine `tiny` is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("tiny")
    source = shutil.copytree(TINY, folder / "source")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def tiny(tiny_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `tiny` is installed, here and for processes that are started."""
    monkeypatch.syspath_prepend(tiny_package)
    monkeypatch.setenv("PYTHONPATH", str(tiny_package))
    importlib.invalidate_caches()


@pytest.fixture(params=["tiny", *KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of deployment server at hand."""
    return str(request.param)


@pytest.fixture
async def ground(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    """A deployment server without jobs and computers."""
    if kind == "tiny":
        request.getfixturevalue("tiny")
        return TinyGround(tmp_path)
    dsn: str = request.getfixturevalue("empty_dsn")
    if kind == "sqlite":
        made = express_on_sqlite(dsn, tmp_path / "express.db")
    else:
        made = express_on_postgres(dsn, request.getfixturevalue("postgres"))
    await made.create()
    return made


@pytest.fixture
async def engine(ground: Ground) -> AsyncIterator[Engine]:
    """The engine of that deployment server, for the site `lab`."""
    found = find(ground.address).open("lab")
    yield found
    await found.close()
