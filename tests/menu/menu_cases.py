"""Job trees that Hypothesis makes up, and menus in a form that compares with the reference."""

from typing import NamedTuple

from hypothesis import strategies as st
from menu_reference import ReferenceItem, Tree

from bus.messages import Entry, ItemEntry
from engine.tree import Folder, Job, JobTree


class Case(NamedTuple):
    jobs: list[Job]
    folders: list[Folder]
    tag: str
    root_folder: str | None

    def tree(self) -> JobTree:
        return JobTree(self.jobs, self.folders, self.tag, self.root_folder)


PIECES = [
    *("(MI)", "(MI)", "(MI)", "a", "A", "b", "ß", "ss", "1", "2", "10", "01", " ", "  ", "/", "#1"),
    *("\t", "\x07", "\x85", "\u200f", "\u202e", "\u2066", "²", "😀", "👩\u200d🔬", "\ud83d"),
]
NAMES = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
DESCRIPTIONS = st.one_of(st.just(""), NAMES)
PLACES = st.one_of(st.none(), st.integers(1, 7))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    folder_ids = draw(st.lists(st.integers(1, 7), unique=True))
    job_ids = draw(st.lists(st.integers(1, 12), unique=True))
    folders = [Folder(id_, draw(PLACES), draw(NAMES)) for id_ in folder_ids]
    jobs = [Job(id_, draw(PLACES), draw(NAMES), draw(DESCRIPTIONS)) for id_ in job_ids]
    names = st.sampled_from([row.name for row in folders] or ["a"])
    paths = st.lists(st.one_of(names, names.map(str.swapcase)), min_size=1, max_size=3)
    roots = st.one_of(st.none(), st.integers(0, 8).map(str), paths.map("/".join))
    return Case(jobs, folders, draw(st.sampled_from(["(MI)", "(MI)", "a"])), draw(roots))


def plain(entries: tuple[Entry, ...]) -> list[object]:
    return [
        (entry.id, entry.title, entry.hint)
        if isinstance(entry, ItemEntry)
        else (entry.title, plain(entry.entries))
        for entry in entries
    ]


def plain_reference(entries: Tree) -> list[object]:
    return [
        (entry.id, entry.title, entry.hint)
        if isinstance(entry, ReferenceItem)
        else (entry[1], plain_reference(entry[2]))
        for entry in entries
    ]


def items_in(entries: tuple[Entry, ...]) -> list[ItemEntry]:
    found: list[ItemEntry] = []
    for entry in entries:
        found += [entry] if isinstance(entry, ItemEntry) else items_in(entry.entries)
    return found
