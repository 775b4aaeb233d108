"""The documents: each link leads somewhere, each picture is shown."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^ {4}[^\n]*$|^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def links(document: Path) -> list[str]:
    """Where a document leads to."""
    return LINK.findall(CODE.sub("", document.read_text()))


def anchors(document: Path) -> set[str]:
    """The headings as GitHub names them in addresses."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_picture_is_taken_by_the_command_and_shown() -> None:
    there = {file.stem for file in (ROOT / "docs/pictures").glob("*.png")}
    taken = (ROOT / "docs/take_pictures.py").read_text()
    assert {name for name in there if f'"{name}"' not in taken} == set()
    shown = {
        Path(link).stem
        for document in DOCUMENTS
        for link in links(document)
        if link.endswith(".png")
    }
    unshown = there - shown
    assert unshown <= set(re.findall(r'"(\w+)": \d+', taken)), "only in the moving picture"


def test_every_dependency_says_why_it_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    told = tomllib.loads(project)
    groups = [
        told["project"]["dependencies"],
        *told["project"]["optional-dependencies"].values(),
        *told["dependency-groups"].values(),
    ]
    for requirement in {each for group in groups for each in group}:
        if not requirement.startswith("imageinvoker["):
            assert re.search(rf'"{re.escape(requirement)}",  # \w', project), requirement
