"""Rights over the job tree: which of its jobs and items may be deployed.

The rules are those of `bus/access.py`; here they meet the tree, in time linear in its folders and
the jobs that were read. What is said of a folder holds for all below it, and so also what is said
of a folder above the root folder. An item may be deployed if every one of its jobs may be.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from bus.access import EVERYTHING, Decision, Judge, Rights
from engine.tree import Folder, Item, Job, JobTree, name_order


class Permissions:
    """What some rights permit in a tree, of which not all jobs need to have been read.

    For `permits_item` the tree must have the tagged jobs, those that rules name, and the number of
    the others in each folder.
    """

    def __init__(self, tree: JobTree, rights: Rights) -> None:
        self._tree = tree
        self._rights = rights
        self._jobs = dict(rights.jobs)

    def permits(self, job: Job) -> bool:
        """Whether a job may be deployed; no, where its folder does not exist."""
        if self._rights.everything:
            return True
        folder = self._folders.get(job.folder_id)
        return folder is not None and self._jobs.get(job.id, folder)

    def permits_item(self, item: Item) -> bool:
        """Whether every job of an item of this tree may be deployed."""
        if self._rights.everything:
            return True
        kind, _, number = item.id.partition(":")
        if kind == "folder":
            return int(number) not in self._barred
        return self._jobs.get(int(number), self._folders[item.folder_id])

    @cached_property
    def _folders(self) -> Mapping[int | None, bool]:
        """Whether a folder's jobs may be deployed of which nothing is said, for every folder."""
        said = dict(self._rights.folders)
        allowed: dict[int | None, bool] = {None: self._rights.whole}
        for folder in self._tree.all_folders():
            allowed[folder.id] = said.get(folder.id, allowed[folder.parent_id])
        return allowed

    @cached_property
    def _barred(self) -> set[int | None]:
        """The folders with a job, in them or below, that may not be deployed."""
        barred: set[int | None] = set()
        allowed: Counter[int | None] = Counter()
        for id_, permitted in self._jobs.items():
            job = self._tree.job(id_)
            if job and permitted:
                allowed[job.folder_id] += 1
            elif job:
                barred.add(job.folder_id)
        for folder in reversed(self._tree.folders()):
            # Jobs that were not read are only counted: each of them is as its folder is.
            if folder.id in barred or not (
                self._folders[folder.id] or allowed[folder.id] == self._tree.job_count(folder.id)
            ):
                barred.add(folder.id)
                barred.add(folder.parent_id)
        return barred


def forbidden_jobs(tree: JobTree, rights: Rights, jobs: Iterable[Job]) -> list[Job]:
    """Those of the jobs that may not be deployed."""
    permissions = Permissions(tree, rights)
    return [job for job in jobs if not permissions.permits(job)]


class Explained(NamedTuple):
    """Why an item may be deployed or not; ``job`` is the first of its jobs that may not."""

    item: Item
    decision: Decision
    job: Job | None


def explain(tree: JobTree, judge: Judge) -> Iterator[Explained]:
    """Every item of a tree that has all jobs, and what decides on it; in no particular order.

    An item that may not be deployed has the decision on the first of its jobs that may not. Another
    one has the decision on the job or folder that it is, or, where each job of a folder is allowed
    but the folder is not, that on its first job.
    """
    nearest: dict[int | None, str] = {None: EVERYTHING}
    for folder in tree.all_folders():
        target = f"folder:{folder.id}"
        nearest[folder.id] = target if judge.speaks_of(target) else nearest[folder.parent_id]

    def decided(job: Job) -> Decision:
        return judge.decision((f"job:{job.id}", nearest[job.folder_id]))

    first = _first_jobs(tree, lambda _: True)
    forbidden = _first_jobs(tree, lambda job: not decided(job).permitted)
    for item in tree.items():
        kind, _, number = item.id.partition(":")
        if kind == "folder":
            job = forbidden.get(int(number))
            decision = decided(job) if job else judge.decision((nearest[int(number)],))
            if not job and not decision.permitted:
                decision = decided(first[int(number)])
        else:
            decision = judge.decision((item.id, nearest[item.folder_id]))
            job = None if decision.permitted else tree.job(int(number))
        yield Explained(item, decision, job)


def _first_jobs(tree: JobTree, wanted: Callable[[Job], bool]) -> dict[int | None, Job]:
    """Of each folder with a wanted job, in it or below, the first in the order to schedule them."""
    found: dict[int | None, Job] = {}
    children: defaultdict[int | None, list[Folder]] = defaultdict(list)
    # Parents come first, so that turned round what is below a folder is known when it comes.
    for folder in reversed(tree.folders()):
        own = next(filter(wanted, tree.jobs_in(folder.id)), None)
        if own is None and folder.id in children:
            own = found[min(children[folder.id], key=name_order).id]
        if own is not None:
            found[folder.id] = own
            children[folder.parent_id].append(folder)
    return found
