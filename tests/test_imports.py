"""Who may import whom, and what a boot client can do without."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("boot", "bus", "engine", "estate", "express", "services", "client", "cli")

FORBIDDEN = {
    "boot": {"engine", "estate", "express", "services", "cli"},
    "bus": {"boot", "engine", "estate", "express", "services", "client", "cli"},
    "engine": {"boot", "estate", "express", "services", "client", "cli"},
    "estate": {"boot", "engine", "express", "services", "client", "cli"},
    "express": {"boot", "estate", "services", "client", "cli"},
    "client": {"boot", "engine", "estate", "express", "services", "cli"},
    "services": {"boot", "estate", "client", "cli"},
    "cli": set[str](),
}
"""The rooms that a room must not import."""

HISTORY = {"express.connection", "express.database", "express.dialects"}
"""What of `express` is ODBC and no engine: the monitor keeps a history of its own in a database."""

HEAVY = {
    "argon2", "cryptography", "estate", "express", "jwt", "ldap3", "litestar", "pyodbc",
    "services", "structlog", "uvloop",
}  # fmt: skip
"""What a boot client starts without."""


def _modules(folder: Path) -> dict[str, Path]:
    """The modules of a folder by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }


def _imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _offences(folder: str, forbidden: set[str]) -> list[str]:
    modules = _modules(ROOT / folder)
    assert modules, f"there is no {folder}"
    return sorted(
        f"{module} imports {name}"
        for module, path in modules.items()
        for name in set(_imported(path))
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    assert _offences(room, FORBIDDEN[room]) == []


def test_every_room_is_looked_at() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "bench"} == set(ROOMS)


def _services() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("services/*/__init__.py"))


@pytest.mark.parametrize("service", _services())
def test_no_service_imports_another(service: str) -> None:
    others = {f"services.{other}" for other in _services() if other != service}
    assert _offences(f"services/{service}", others) == []


@pytest.mark.parametrize("service", sorted({*_services()} - {"monitor"}))
def test_services_know_the_deployment_server_by_its_engine_only(service: str) -> None:
    assert _offences(f"services/{service}", {"express", "pyodbc"}) == []


def test_the_monitor_knows_databases_for_its_own_history_only() -> None:
    offences = _offences("services/monitor", {"express"})
    modules = {offence.rpartition(" ")[2] for offence in offences}
    assert {".".join(module.split(".")[:2]) for module in modules} <= HISTORY


@pytest.mark.parametrize("service", sorted({*_services()} - {"menu", "scheduler", "monitor"}))
def test_only_who_needs_the_deployment_server_knows_engines(service: str) -> None:
    assert _offences(f"services/{service}", {"engine"}) == []


def test_an_engine_of_another_package_needs_nothing_but_the_protocol_and_what_travels() -> None:
    own = {room for room in ROOMS if room not in {"bus", "engine"}}
    assert _offences("tests/tiny_engine", own) == []


def test_what_services_share_imports_none_of_them() -> None:
    services = {f"services.{name}" for name in _services()}
    for path in (ROOT / "services").glob("*.py"):
        roots = {".".join(name.split(".")[:2]) for name in _imported(path)}
        assert not roots & services, path


def test_only_the_bus_knows_the_names_on_the_wire() -> None:
    """No subject, stream or bucket is written by hand outside of bus/subjects.py."""
    prefixes = ("imaging.", "imaging_", "IMAGING_")
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path == ROOT / "bus" / "subjects.py":
                continue
            tree = ast.parse(path.read_text(), path)
            documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and id(node) not in documents
                ):
                    assert not node.value.startswith(prefixes), f"{path}:{node.lineno}"


def _loaded_by(modules: str) -> set[str]:
    """What a fresh interpreter has loaded after importing the modules."""
    program = f"import {modules}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60,
        cwd=ROOT,
    )  # fmt: skip
    loaded = done.stdout.split()
    return {name.partition(".")[0] for name in loaded} | set(loaded)


def test_the_boot_client_starts_without_database_directory_web_and_service_packages() -> None:
    loaded = _loaded_by("client.main, client.portal.app, client.unattended")
    assert loaded & {"client"}
    assert loaded & HEAVY == set()


def test_the_command_line_starts_the_client_without_them_too() -> None:
    assert _loaded_by("cli.main, cli.client") & HEAVY == set()


def test_what_runs_on_the_pc_knows_nothing_of_how_images_are_made() -> None:
    making = {f"boot.{path.stem}" for path in (ROOT / "boot").glob("*.py")} - {"boot.__init__"}
    assert _offences("boot/linux", making) == []
    makers = {"boot.linux_image", "boot.packages", "packaging", "cyclopts"}
    assert _loaded_by("boot.linux.start") & (HEAVY | makers) == set()


def test_every_module_imports_by_itself() -> None:
    """No module needs another to have been imported before it."""
    names = [name for room in ROOMS for name in _modules(ROOT / room) if "__main__" not in name]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for each in [m for m in sys.modules if m.partition('.')[0] in "
        f"{ROOMS!r}]:\n"
        "        del sys.modules[each]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
