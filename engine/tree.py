"""What the job tree of a deployment server means: its menu items and the jobs they stand for.

Pure rules, shared by the menu service and the scheduler. Neither reads every job. The menu service
asks for all items, for which the tagged jobs and the number of others in each folder are enough;
the scheduler knows the item, and reads no more jobs than that item needs::

    tree = JobTree(tagged, all_folders, tag="(MI)", root_folder="Deploy/Staff", filled={17: 3})
    tree.items()  # [Item(id="folder:17", title="Office", folder_id=4), ...]

    bare = JobTree((), all_folders, tag="(MI)", root_folder="Deploy/Staff")
    bare.needed("folder:17")  # Needed(job_ids=(), folder_ids=(17, 23, 18))
    bare.needed("job:5")  # Needed(job_ids=(5,), folder_ids=())
    tree = JobTree(jobs_needed, all_folders, tag="(MI)", root_folder="Deploy/Staff")
    tree.jobs_of("folder:17")  # the jobs in the order to schedule them, None: no such item

A folder exists if its parents lead to the root and, with a root folder set, through that folder; a
job exists if its folder does. What does not exist is nowhere in the answers. Ids are expected to be
unique, as primary keys are.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple


class Job(NamedTuple):
    """A job: a row of `event`. A `folder_id` of None is the root."""

    id: int
    folder_id: int | None
    name: str
    description: str


class Folder(NamedTuple):
    """A job folder: a row of `event_folder`. A `parent_id` of None is the root."""

    id: int
    parent_id: int | None
    name: str


class Item(NamedTuple):
    """A menu item: ``job:<id>`` or ``folder:<id>``, its title, and the folder it sits in."""

    id: str
    title: str
    folder_id: int | None


class Needed(NamedTuple):
    """What must be read to know an item's jobs: jobs by id, and all jobs of whole folders."""

    job_ids: tuple[int, ...]
    folder_ids: tuple[int, ...]


Filled = Mapping[int | None, int]
"""How many jobs more than those that were read each folder holds; None is the root."""

_Children = Mapping[int | None, list[Folder]]

# One spelling for each id; 19 digits hold any number of a database.
_ITEM_ID: Final = re.compile(r"(job|folder):(0|-?[1-9][0-9]{0,18})")
_DIGITS: Final = re.compile(r"[0-9]+")

_BIDI_CONTROLS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ONE_LINE: Final[dict[int, str | None]] = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " "),
    **dict.fromkeys(_BIDI_CONTROLS, None),
    # Half a character, which UTF-8 and so the bus cannot carry.
    **dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"),
}


def one_line(text: str) -> str:
    """The text as one line of a terminal: control characters are spaces, white space is collapsed.

    Unicode's controls of the writing direction are dropped, for they could make a title look like
    another one.
    """
    if not text.isprintable():
        text = text.translate(_ONE_LINE)
    return " ".join(text.split())


def natural_key(text: str) -> str:
    """A sort key for natural order: upper and lower case are equal, ASCII digits are numbers.

    A number stands where its digits would stand among other characters.
    """
    return _DIGITS.sub(_number_key, text.casefold())


def _number_key(match: re.Match[str]) -> str:
    # Without leading zeros the longer number is the greater; int() refuses very long ones.
    digits = match[0].lstrip("0")
    return f"0{chr(min(len(digits), 0x10FFFF))}{digits}"


def name_order(named: Job | Folder) -> tuple[str, str, int]:
    """The key by which jobs of one folder, and folders of one folder, are sorted."""
    return natural_key(named.name), named.name, named.id


class JobTree:
    """A job tree, or as much of it as was read: all folders, and some or all of the jobs."""

    root_found: bool
    """Whether the root folder was found (true without one); if not, the tree is empty."""

    top: int | None
    """Where the tree begins: the root folder, None for the root itself."""

    def __init__(
        self,
        jobs: Iterable[Job],
        folders: Iterable[Folder],
        tag: str,
        root_folder: str | None,
        filled: Filled = MappingProxyType({}),
    ) -> None:
        """Makes the tree of ``jobs`` in ``folders``; ``filled`` counts the untagged jobs not read.

        White space around the tag means nothing. ``root_folder`` is an id in digits or a path of
        names, with or without the tag, in any case, such as ``Deploy/Staff``; a folder with a slash
        in its name can only be told by its id. A path that several folders have is not found.

        Raises:
            ValueError: The tag has no visible character.
        """
        self._tag = tag.strip()
        if not one_line(self._tag):
            raise ValueError("the tag must have a visible character")
        self._children: defaultdict[int | None, list[Folder]] = defaultdict(list)
        # One folder an id, and so one parent each: else a walk down might not end.
        for folder in {folder.id: folder for folder in folders}.values():
            self._children[folder.parent_id].append(folder)
        self._connected = _below(None, self._children)
        self._paths: dict[int | None, str] = {None: ""}

        self.top = self._find(root_folder) if root_folder is not None else None
        self.root_found = root_folder is None or self.top is not None
        self._folders: dict[int | None, Folder] = {}
        if self.root_found:
            whole = self.top is None
            self._folders = self._connected if whole else _below(self.top, self._children)
        self._places = {self.top, *self._folders} if self.root_found else set()

        self._jobs = list(jobs)
        self._filled = filled
        tagged = [
            job for job in self._jobs if self._tag in job.name and job.folder_id in self._places
        ]
        self._tagged_jobs = {job.id: job for job in tagged if not self._is_title(job)}
        self._descriptions: dict[int | None, str] = {}
        for job in sorted(filter(self._is_title, tagged), key=lambda job: job.id):
            if description := one_line(job.description):
                self._descriptions.setdefault(job.folder_id, description)

    def items(self) -> list[Item]:
        """Every menu item, once, in no particular order."""
        filled = self._filled_folders()
        jobs = [
            Item(f"job:{job.id}", self._job_title(job), job.folder_id)
            for job in self._tagged_jobs.values()
        ]
        folders = [
            Item(f"folder:{folder.id}", self.title(folder.id), folder.parent_id)
            for folder in self._folders.values()
            if self._tag in folder.name and folder.id in filled
        ]
        return jobs + folders

    def jobs_of(self, item_id: str) -> list[Job] | None:
        """The jobs an item stands for, in the order to schedule them; None: there is no such item.

        A tree of some jobs only answers rightly if it has those that `needed` tells.
        """
        needed = self.needed(item_id)
        if needed is None:
            return None
        jobs = [self._tagged_jobs[id_] for id_ in needed.job_ids if id_ in self._tagged_jobs]
        for folder_id in needed.folder_ids:
            jobs += self.jobs_in(folder_id)
        return jobs or None

    def needed(self, item_id: str) -> Needed | None:
        """The jobs that `jobs_of` must have for this item; None: there can be no such item."""
        match = _ITEM_ID.fullmatch(item_id)
        if match is None or not self.root_found:
            return None
        number = int(match[2])
        if match[1] == "job":
            return Needed((number,), ())
        folder = self._folders.get(number)
        if folder is None or self._tag not in folder.name:
            return None
        return Needed((), tuple(self.subtree(number)))

    def folders(self) -> list[Folder]:
        """The folders that exist (below the root folder, if there is one), parents first."""
        return list(self._folders.values())

    def all_folders(self) -> list[Folder]:
        """The folders whose parents lead to the root, whatever the root folder is, parents first.

        What is said of a folder holds below it, on both sides of the root folder.
        """
        return list(self._connected.values())

    def job(self, job_id: int) -> Job | None:
        """A job that was read and exists; None for a title, too."""
        return self._known.get(job_id)

    def jobs_in(self, folder_id: int | None) -> list[Job]:
        """The jobs directly in a folder that were read, in the order to schedule them."""
        return sorted(self._jobs_by_folder.get(folder_id, ()), key=name_order)

    def job_count(self, folder_id: int | None) -> int:
        """How many jobs are directly in a folder, those that were not read with them."""
        return self._counts[folder_id]

    def subtree(self, folder_id: int) -> list[int]:
        """The folder and all folders below it, in the order their jobs are scheduled.

        Raises:
            KeyError: There is no such folder.
        """
        order: list[int] = []
        waiting = [self._folders[folder_id]]
        while waiting:
            folder = waiting.pop()
            order.append(folder.id)
            waiting += sorted(self._children.get(folder.id, ()), key=name_order, reverse=True)
        return order

    def title(self, folder_id: int) -> str:
        """What a folder is called in the menu, as an item and as a folder to enter.

        Raises:
            KeyError: There is no such folder.
        """
        folder = self._folders[folder_id]
        if self._tag in folder.name and folder_id in self._descriptions:
            return self._descriptions[folder_id]
        return self._label(folder)

    def path(self, folder_id: int | None) -> str:
        """The names of a folder and its parents without the tag, from the root on; ``/``: the root.

        Raises:
            KeyError: There is no such folder.
        """
        missing: list[Folder] = []
        while folder_id not in self._paths:
            folder = self._connected[folder_id]
            missing.append(folder)
            folder_id = folder.parent_id
        path = self._paths[folder_id]
        for folder in reversed(missing):
            path = f"{path}/{self._label(folder)}" if path else self._label(folder)
            self._paths[folder.id] = path
        return path or "/"

    @cached_property
    def _jobs_by_folder(self) -> dict[int | None, list[Job]]:
        jobs: defaultdict[int | None, list[Job]] = defaultdict(list)
        for job in self._jobs:
            if not self._is_title(job):
                jobs[job.folder_id].append(job)
        return jobs

    @cached_property
    def _known(self) -> dict[int, Job]:
        existing = (job for job in self._jobs if job.folder_id in self._places)
        return {job.id: job for job in existing if not self._is_title(job)}

    @cached_property
    def _counts(self) -> Counter[int | None]:
        counts: Counter[int | None] = Counter(self._filled)
        counts.update(job.folder_id for job in self._known.values())
        return counts

    def _filled_folders(self) -> set[int | None]:
        """The folders with a job in them or below; the top counts as one."""
        places = {job.folder_id for job in self._jobs if self._tag not in job.name}
        places.update(self._filled)
        places.update(job.folder_id for job in self._tagged_jobs.values())
        filled = {self.top}
        for place in places & self._folders.keys():
            folder_id = place
            # Above a folder that is known to be filled all are: so each folder is passed once.
            while folder_id not in filled:
                filled.add(folder_id)
                folder_id = self._folders[folder_id].parent_id
        return filled

    def _is_title(self, job: Job) -> bool:
        return job.name.strip() == self._tag

    def _job_title(self, job: Job) -> str:
        return one_line(job.description) or self._untagged(job.name)

    def _untagged(self, name: str) -> str:
        return one_line(name.replace(self._tag, "")) or one_line(name)

    def _label(self, folder: Folder) -> str:
        # A folder without a name must still be seen, to be entered.
        return self._untagged(folder.name) or f"#{folder.id}"

    def _find(self, root_folder: str) -> int | None:
        text = root_folder.strip()
        if text.isascii() and text.isdigit():
            # The length is bounded since int() refuses texts of thousands of digits.
            number = int(text) if len(text) < 20 else None
            return number if number in self._connected else None
        found: list[int | None] = [None]
        for segment in text.strip("/").split("/"):
            wanted = segment.strip().casefold()
            if not wanted:
                return None
            found = [
                folder.id
                for parent_id in found
                for folder in self._children.get(parent_id, ())
                if wanted in {folder.name.strip().casefold(), self._label(folder).casefold()}
            ]
        return found[0] if len(found) == 1 else None


def _below(top: int | None, children: _Children) -> dict[int | None, Folder]:
    """The folders below ``top``, parents first; what is in a cycle or has no parent is not met."""
    found = list(children.get(top, ()))
    for folder in found:
        found += children.get(folder.id, ())  # walked later in this same loop
    return {folder.id: folder for folder in found}
