"""Which engine reaches a deployment server, and what is said where there is none."""

from pathlib import Path

import pytest

from engine.finding import EngineError, find, installed, named
from express.engine import open_engine

DSN = "Driver=SQLite3;Database=/nowhere/express.db;PWD=s3cret"


def install(folder: Path, package: str, **engines: str) -> None:
    """A package without code that offers engines."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {place}\n" for name, place in engines.items())
    (about / "entry_points.txt").write_text(f"[imageinvoker.engines]\n{lines}")


@pytest.mark.parametrize(
    ("text", "told", "expected"),
    [
        (DSN, None, ("express", DSN)),
        (f"express:{DSN}", None, ("express", DSN)),
        (f" express: {DSN}\n", "express", ("express", DSN)),
        (DSN, "tiny", ("tiny", DSN)),
        ("tiny:/srv/tiny.db", None, ("tiny", "/srv/tiny.db")),
        ("tiny:/srv/a:b", "tiny", ("tiny", "/srv/a:b")),
        ("DSN=x:y", None, ("express", "DSN=x:y")),
    ],
)
def test_the_name_stands_before_the_address_or_is_told_or_is_express(
    text: str, told: str | None, expected: tuple[str, str]
) -> None:
    assert named(text, told) == expected


def test_two_names_are_refused(tiny: None) -> None:
    with pytest.raises(EngineError, match=r"'express'.*'tiny'") as caught:
        named(f"express:{DSN}", "tiny")
    assert "s3cret" not in str(caught.value)


def test_express_is_found_as_it_was_installed() -> None:
    found = find(f"express:{DSN}")
    assert (found.name, found.address, found.make) == ("express", DSN, open_engine)
    assert find(DSN) == found
    assert "s3cret" not in repr(found)


def test_an_engine_of_another_package_is_found_beside_it(tiny: None) -> None:
    assert {"express", "tiny"} <= set(installed())
    assert find("tiny:/srv/tiny.db").make.__module__ == "tiny_engine.engine"


def test_an_unknown_engine_is_refused_with_those_that_there_are(tiny: None) -> None:
    with pytest.raises(EngineError, match=r"no engine 'postgres'.*express, tiny") as caught:
        find("postgres://imaging:s3cret@db/express")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere.at_all:open_engine", "cannot be loaded .*nowhere"),
        ("express.engine:gone", "cannot be loaded .*gone"),
        ("half_made:open_engine", "cannot be loaded .*half_made.py, line 1"),
        ("express.engine:TURNS", "express.engine:TURNS is no function"),
    ],
    ids=["no module", "no such name", "an error in it", "no function"],
)
def test_an_engine_that_cannot_be_loaded_is_told_with_the_reason(
    place: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_made.py").write_text("def open_engine(:\n")
    install(tmp_path, "broken", broken=place)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=f"'broken' {why}|'broken' cannot be used: {why}"):
        find("broken:x")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return object()", "is none as this version wants it"),
        ("raise ValueError(address)", "cannot be made of the address that is told .ValueError."),
        ("raise EngineError('Give a path')", "Give a path"),
    ],
    ids=["no engine", "an error", "an address that is none"],
)
async def test_what_makes_no_engine_is_refused_without_the_address(
    body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"odd_{len(body)}"
    (tmp_path / f"{module}.py").write_text(
        f"from engine.finding import EngineError\ndef make(address, site, observe):\n    {body}\n"
    )
    install(tmp_path, "odd", odd=f"{module}:make")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=why) as caught:
        find("odd:PWD=s3cret").open("lab")
    assert "s3cret" not in str(caught.value)


def test_a_name_that_two_packages_offer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        install(tmp_path, f"package{number}", double=f"package{number}.engine:open_engine")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"package1.engine.*package2.engine"):
        find("double:x")
