"""The rules of the menu, once more: plain, slow and straight from their text, to compare with.

Shares nothing with the code it judges but the shapes of its input.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cmp_to_key
from typing import NamedTuple

from bus.access import Rule
from bus.technicians import Technician
from engine.tree import Folder, Job

BIDI = {
    "ARABIC LETTER MARK",
    *(f"{side} MARK" for side in ("LEFT-TO-RIGHT", "RIGHT-TO-LEFT")),
    *(f"{side} EMBEDDING" for side in ("LEFT-TO-RIGHT", "RIGHT-TO-LEFT")),
    *(f"{side} OVERRIDE" for side in ("LEFT-TO-RIGHT", "RIGHT-TO-LEFT")),
    *(f"{side} ISOLATE" for side in ("LEFT-TO-RIGHT", "RIGHT-TO-LEFT", "FIRST STRONG")),
    "POP DIRECTIONAL FORMATTING",
    "POP DIRECTIONAL ISOLATE",
}


def clean(text: str) -> str:
    out = ""
    for character in text:
        category = unicodedata.category(character)
        if unicodedata.name(character, "") in BIDI:
            continue
        if category == "Cc" or character.isspace():
            if out and not out.endswith(" "):
                out += " "
        elif category == "Cs":
            out += "\ufffd"
        else:
            out += character
    return out.strip()


def compare_naturally(a: str, b: str) -> int:
    """Below, at or above 0, as `a` comes before, with or after `b`."""
    return _compare_tokens(_tokens(a.casefold()), _tokens(b.casefold()))


def _tokens(text: str) -> list[str]:
    return re.findall("[0-9]+|[^0-9]", text)


def _compare_tokens(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return len(a) - len(b)
    first, second = a[0], b[0]
    if first.isascii() and first.isdigit() and second.isascii() and second.isdigit():
        if int(first) != int(second):
            return int(first) - int(second)
    elif first != second:
        return -1 if first[0] < second[0] else 1
    return _compare_tokens(a[1:], b[1:])


@dataclass(frozen=True)
class ReferenceItem:
    id: str
    title: str
    hint: str


class Access(NamedTuple):
    """The rules of a site and who asks."""

    rules: list[Rule]
    technician: Technician | None
    administrators: str | None

    def speak_of(self, level: str) -> list[Rule]:
        """The rules for this technician on a level."""
        if self.technician is None:
            return []
        names = [f"user:{self.technician.name}"]
        names += [f"group:{group}" for group in self.technician.groups]
        names = [name.casefold() for name in names]
        return [rule for rule in self.rules if rule.what == level and rule.who.casefold() in names]

    def administrator(self) -> bool:
        if self.technician is None or self.administrators is None:
            return False
        return self.administrators.lower() in [group.lower() for group in self.technician.groups]


Tree = list[tuple[str, str, "Tree"] | ReferenceItem]


class Reference:
    def __init__(
        self,
        jobs: list[Job],
        folders: list[Folder],
        tag: str,
        root_folder: str | None,
        access: Access | None = None,
    ) -> None:
        """Without ``access`` there are no rights, and everybody may do everything."""
        self.tag = tag
        self.access = access
        self.all_folders = [folder for folder in folders if self._ancestors(folder, folders)]
        roots = self._roots(root_folder)
        if len(roots) != 1:
            self.root: int | None = None
            self.folders: list[Folder] = []
            self.jobs: list[Job] = []
            return
        self.root = roots[0]
        self.folders = [
            folder
            for folder in self.all_folders
            if self.root in self._ancestors(folder, self.all_folders)
        ]
        places = [self.root] + [folder.id for folder in self.folders]
        self.jobs = [job for job in jobs if job.folder_id in places]

    def _ancestors(self, folder: Folder, folders: list[Folder]) -> list[int | None]:
        """From the parent to the root (None); empty if the root is not reached."""
        found: list[int | None] = []
        while folder.parent_id is not None:
            if folder.parent_id in found:
                return []
            found.append(folder.parent_id)
            parents = [parent for parent in folders if parent.id == folder.parent_id]
            if not parents:
                return []
            folder = parents[0]
        return [*found, None]

    def _roots(self, root_folder: str | None) -> list[int | None]:
        if root_folder is None:
            return [None]
        if re.fullmatch("[0-9]+", root_folder.strip()):
            return [f.id for f in self.all_folders if f.id == int(root_folder)]
        return [f.id for f in self.all_folders if self._has_path(f, root_folder)]

    def _has_path(self, folder: Folder, path: str) -> bool:
        segments = [part.strip().casefold() for part in path.strip().strip("/").split("/")]
        names: list[set[str]] = []
        by_id = {f.id: f for f in self.all_folders}
        while True:
            names.insert(0, {folder.name.strip().casefold(), self.label(folder).casefold()})
            if folder.parent_id is None:
                break
            folder = by_id[folder.parent_id]
        return (
            all(segments)
            and len(names) == len(segments)
            and all(segment in name for segment, name in zip(segments, names, strict=True))
        )

    def untagged(self, name: str) -> str:
        return clean("".join(name.split(self.tag))) or clean(name)

    def label(self, folder: Folder) -> str:
        return self.untagged(folder.name) or f"#{folder.id}"

    def is_title(self, job: Job) -> bool:
        return job.name.strip() == self.tag

    def title(self, folder: Folder) -> str:
        if self.tag in folder.name:
            for job in sorted(self.jobs, key=lambda job: job.id):
                if job.folder_id == folder.id and self.is_title(job) and clean(job.description):
                    return clean(job.description)
        return self.label(folder)

    def path(self, folder_id: int | None) -> str:
        if folder_id is None:
            return "/"
        folder = next(f for f in self.all_folders if f.id == folder_id)
        if folder.parent_id is None:
            return self.label(folder)
        return self.path(folder.parent_id) + "/" + self.label(folder)

    def jobs_below(self, folder_id: int) -> list[Job]:
        own = [j for j in self.jobs if j.folder_id == folder_id and not self.is_title(j)]
        inner = [f for f in self.folders if f.parent_id == folder_id]
        found = sorted(own, key=cmp_to_key(_by_name))
        for folder in sorted(inner, key=cmp_to_key(_by_name)):
            found += self.jobs_below(folder.id)
        return found

    def jobs_of(self) -> dict[str, list[Job]]:
        """Every item's id with its jobs."""
        jobs = [job for job in self.jobs if self.tag in job.name and not self.is_title(job)]
        folders = [folder for folder in self.folders if self.tag in folder.name]
        items = {f"job:{job.id}": [job] for job in jobs}
        items.update({f"folder:{folder.id}": self.jobs_below(folder.id) for folder in folders})
        return {id_: found for id_, found in items.items() if found}

    def levels(self, job: Job) -> list[str]:
        """The levels of a job, the nearest first."""
        if job.folder_id is None:
            return [f"job:{job.id}", "all"]
        folder = next(f for f in self.all_folders if f.id == job.folder_id)
        above = self._ancestors(folder, self.all_folders)
        places = [f"folder:{id_}" for id_ in above if id_ is not None]
        return [f"job:{job.id}", f"folder:{folder.id}", *places, "all"]

    def deciding(self, job: Job) -> list[Rule]:
        """The rules that decide on a job, unless it is for an administrator."""
        assert self.access is not None
        for level in self.levels(job):
            rules = self.access.speak_of(level)
            denying = [rule for rule in rules if rule.effect == "deny"]
            if rules:
                return denying or rules
        return []

    def permitted(self, job: Job) -> bool:
        if self.access is None or self.access.administrator():
            return True
        return "allow" in [rule.effect for rule in self.deciding(job)]

    def permitted_items(self) -> dict[str, list[Job]]:
        """Every item of which each job may be deployed."""
        return {
            id_: jobs
            for id_, jobs in self.jobs_of().items()
            if all(self.permitted(job) for job in jobs)
        }

    def items_in(self) -> list[tuple[int | None, ReferenceItem]]:
        """Every item that is shown, with the folder it sits in."""
        found: list[tuple[int | None, str, str]] = []
        for id_ in self.permitted_items():
            kind, _, number = id_.partition(":")
            if kind == "job":
                job = next(j for j in self.jobs if j.id == int(number))
                title = clean(job.description) or self.untagged(job.name)
                found.append((job.folder_id, id_, title))
            else:
                folder = next(f for f in self.folders if f.id == int(number))
                found.append((folder.parent_id, id_, self.title(folder)))
        titles = [title.casefold() for _, _, title in found]
        return [
            (
                place,
                ReferenceItem(
                    id_, title, self.path(place) if titles.count(title.casefold()) > 1 else ""
                ),
            )
            for place, id_, title in found
        ]

    def flat(self) -> Tree:
        items: Tree = [item for _, item in self.items_in()]
        return sorted(items, key=cmp_to_key(_by_title))

    def nested(self, folder_id: int | None) -> Tree:
        """The entries of a folder; folders to enter are (id, title, entries)."""
        found: Tree = [item for place, item in self.items_in() if place == folder_id]
        for folder in self.folders:
            if folder.parent_id == folder_id:
                entries = self.nested(folder.id)
                if entries:
                    found.append((f"folder:{folder.id}", self.title(folder), entries))
        return sorted(found, key=cmp_to_key(_by_title))


def _by_name(a: Job | Folder, b: Job | Folder) -> int:
    order = compare_naturally(a.name, b.name)
    if order == 0 and a.name != b.name:
        order = -1 if a.name < b.name else 1
    return order or a.id - b.id


def _by_title(
    a: "tuple[str, str, Tree] | ReferenceItem", b: "tuple[str, str, Tree] | ReferenceItem"
) -> int:
    a_item, b_item = isinstance(a, ReferenceItem), isinstance(b, ReferenceItem)
    a_title = a.title if isinstance(a, ReferenceItem) else a[1]
    b_title = b.title if isinstance(b, ReferenceItem) else b[1]
    a_hint = a.hint if isinstance(a, ReferenceItem) else ""
    b_hint = b.hint if isinstance(b, ReferenceItem) else ""
    a_id = a.id if isinstance(a, ReferenceItem) else a[0]
    b_id = b.id if isinstance(b, ReferenceItem) else b[0]
    return (
        compare_naturally(a_title, b_title)
        or b_item - a_item
        or compare_naturally(a_hint, b_hint)
        or compare_naturally(a_id, b_id)
    )
