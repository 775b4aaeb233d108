"""What a menu is made of, as an engine tells it."""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from engine.tree import Folder, Job


class Wanted(Struct, frozen=True):
    """Which rows are meant, by the tag and the ids of the jobs that rules name.

    ``whole`` is for what is asked seldom: all jobs then.
    """

    tag: str
    ruled: frozenset[int] = frozenset()
    whole: bool = False


class MenuRows(Struct, frozen=True):
    """What a menu is made of.

    ``jobs`` are at least those whose names hold the tag, and those that rules name; ``filled`` is
    how many other jobs each folder holds.
    """

    jobs: list[Job]
    folders: list[Folder]
    filled: dict[int | None, int]


def menu_rows(jobs: Iterable[Job], folders: Iterable[Folder], wanted: Wanted) -> MenuRows:
    """What a menu is made of, out of all that there is: for engines that have it all at hand."""
    tag = wanted.tag.strip()
    told: list[Job] = []
    others: Counter[int | None] = Counter()
    for job in jobs:
        if wanted.whole or tag in job.name or job.id in wanted.ruled:
            told.append(job)
        else:
            others[job.folder_id] += 1
    return MenuRows(told, list(folders), dict(others))
