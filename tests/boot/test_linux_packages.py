"""Which packages an image is made of, and what can be made of folders that lack some."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boot.dependencies import Stated, closure, stated
from boot.distributions import is_run, needed
from boot.errors import PackageError, WrongInputError
from boot.packages import PackageFolder, unpack

NAMES = ["aa", "bb", "cc", "dd", "ee"]
CHOICES = st.lists(st.sampled_from([*NAMES, "virtual", "gone"]), min_size=1, max_size=3).map(tuple)
THERE = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        Stated,
        needs=st.lists(CHOICES, max_size=3).map(tuple),
        provides=st.sampled_from([(), ("virtual",)]),
    ),
)


def test_what_a_control_file_says_is_read() -> None:
    fields = {
        "Depends": "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, python3:any",
        "Pre-Depends": "dpkg (>= 1.19)",
        "Provides": "mail-agent (= 1), mta",
    }
    assert stated(fields) == Stated(
        needs=(("dpkg",), ("libc6",), ("debconf", "debconf-2.0"), ("python3",)),
        provides=("mail-agent", "mta"),
    )


@given(THERE, st.sets(st.sampled_from(NAMES)))
@settings(max_examples=200, deadline=None)
def test_all_that_is_needed_is_taken_and_nothing_else(
    there: dict[str, Stated], wanted: set[str]
) -> None:
    taken, missing = closure(wanted, there)

    def of(name: str) -> str | None:
        if name in there:
            return name
        return next((e for e in sorted(there, reverse=True) if name in there[e].provides), None)

    slow_taken: set[str] = set()
    slow_missing: set[str] = set()
    choices = [(name,) for name in wanted]
    for _ in range(40):
        for choice in choices:
            found = next((each for name in choice if (each := of(name))), None)
            slow_taken |= {found} if found else set()
            slow_missing |= set() if found else {choice[0]}
        choices = [choice for name in slow_taken for choice in there[name].needs]
    assert (taken, missing) == (slow_taken, slow_missing)


def a_package(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A real one, with a file of its name in it."""
    root = folder / f"root-{name}-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/share").mkdir(parents=True)
    (root / "usr/share" / name).write_text(version)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@b.example>\n"
        f"Description: a test\n{f'Depends: {needs}' if needs else ''}\n".rstrip()
        + "\n"
    )
    file = folder / f"{name}_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", root, file], check=True, capture_output=True, timeout=60)


def test_kept_packages_are_taken_with_what_they_need_and_unpacked(tmp_path: Path) -> None:
    a_package(tmp_path, "python9", "1", "libnine (>= 1) | other")
    a_package(tmp_path, "libnine", "2")
    a_package(tmp_path, "unrelated", "3")
    kept = PackageFolder(tmp_path, offline=True)
    packages = kept.with_needs(["python9"])
    assert [(each.name, each.version) for each in packages] == [("libnine", "2"), ("python9", "1")]
    unpack(packages, tmp_path / "unpacked")
    assert {each.name for each in (tmp_path / "unpacked/usr/share").iterdir()} == {
        "python9",
        "libnine",
    }


def test_what_is_missing_or_there_twice_or_broken_is_named(tmp_path: Path) -> None:
    a_package(tmp_path, "python9", "1", "libnine")
    kept = PackageFolder(tmp_path, offline=True)
    with pytest.raises(PackageError, match="There is no package libnine"):
        kept.with_needs(["python9"])
    a_package(tmp_path, "python9", "2")
    with pytest.raises(WrongInputError, match="more than one version of python9"):
        kept.with_needs(["python9"])
    (tmp_path / "python9_1_amd64.deb").write_bytes(b"no package")
    (tmp_path / "python9_2_amd64.deb").unlink()
    with pytest.raises(PackageError, match="dpkg-deb could not do it"):
        unpack([kept.only("python9")], tmp_path / "unpacked")


def test_the_client_needs_what_it_says_and_nothing_of_the_services() -> None:
    names = {each.name for each in needed()}
    assert {"imageinvoker", "textual", "rich", "msgspec", "nats-py", "cyclopts"} <= names
    assert not names & {"pyodbc", "uvloop", "cryptography", "ldap3", "pip", "pytest", "packaging"}


@pytest.mark.parametrize(
    ("place", "runs"),
    [
        ("nats/aio/client.py", True),
        ("msgspec/_core.cpython-311-x86_64-linux-gnu.so", True),
        ("textual-8.dist-info/METADATA", True),
        ("textual-8.dist-info/RECORD", False),
        ("pygments/lexers/python.py", False),
        ("pygments/lexers/_mapping.py", True),
        ("rich/__pycache__/x.cpython-311.pyc", False),
        ("attrs/tests/test_x.py", False),
        ("../../../bin/cyclopts", False),
        ("msgspec/__init__.pyi", False),
    ],
)
def test_of_packages_only_what_runs_is_taken(place: str, runs: bool) -> None:
    assert is_run(place) is runs
