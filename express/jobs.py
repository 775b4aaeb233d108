"""What is asked of the deployment server about its jobs."""

import re
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, Literal

from engine.menu_rows import MenuRows
from engine.tree import Folder, Job
from express.database import MAX_ROWS, Row, Transaction, markers

_TAGGED: Final = (
    "SELECT event_id, folder_id, COALESCE(name, ''), COALESCE(description, '') FROM event"
    " WHERE name LIKE ? ESCAPE '!'"
)
_UNTAGGED: Final = (
    "SELECT folder_id, COUNT(*) FROM event WHERE COALESCE(name, '') NOT LIKE ? ESCAPE '!'"
    " GROUP BY folder_id"
)
_FOLDERS: Final = "SELECT folder_id, parent_id, COALESCE(name, '') FROM event_folder"
_ALL: Final = "SELECT event_id, folder_id, COALESCE(name, ''), COALESCE(description, '') FROM event"

LARGEST_ID: Final = 2**31 - 1
"""No job has a greater id: `event.event_id` is an SQL int, and what is no int fails a query."""

_SPECIAL: Final = re.compile(r"[!%_\[]")
"""What means something in a pattern of LIKE, on one server or another."""

# Twice as fast as their `_make`, which counts the fields of each row.
_job: Final[Callable[[Row], Job]] = partial(tuple.__new__, Job)
_folder: Final[Callable[[Row], Folder]] = partial(tuple.__new__, Folder)


def read_menu_rows(tx: Transaction, tag: str, ruled: Collection[int] = ()) -> MenuRows:
    """All that a menu is made of, without the many jobs that are no items of their own.

    They are those whose names hold the tag, in any case where the server knows no cases, and those
    of the ids ``ruled``, which rules name: what rules say of a folder depends on them.
    """
    like = "%" + _SPECIAL.sub(r"!\g<0>", tag.strip()) + "%"
    tagged = list(map(_job, tx.fetch(_TAGGED, like)))
    read = {job.id for job in tagged}
    others = [job for job in read_jobs(tx, ruled) if job.id not in read]
    folders = read_folders(tx)
    # What the server itself counts as tagged was read; the rest is counted here, the others too.
    filled: dict[int | None, int] = {row[0]: row[1] for row in tx.fetch(_UNTAGGED, like)}
    for place, known in Counter(job.folder_id for job in others).items():
        filled[place] = filled.get(place, 0) - known
    return MenuRows(
        jobs=tagged + others,
        folders=folders,
        filled={place: count for place, count in filled.items() if count > 0},
    )


def read_folders(tx: Transaction) -> list[Folder]:
    """Every job folder, in no order."""
    return list(map(_folder, tx.fetch(_FOLDERS)))


def read_whole_tree(tx: Transaction) -> MenuRows:
    """Every job and every folder; there may be many jobs, so only for what is asked seldom."""
    return MenuRows(list(map(_job, tx.fetch(_ALL))), read_folders(tx), {})


def read_jobs_in(tx: Transaction, folder_ids: Collection[int]) -> list[Job]:
    """The jobs that stand directly in these folders, in no order."""
    return _read_where(tx, "folder_id", folder_ids)


def read_jobs(tx: Transaction, job_ids: Collection[int]) -> list[Job]:
    """The jobs of these ids that exist, in no order."""
    possible = [id_ for id_ in job_ids if abs(id_) <= LARGEST_ID]
    return _read_where(tx, "event_id", sorted(possible))


def _read_where(
    tx: Transaction, column: Literal["event_id", "folder_id"], ids: Collection[int]
) -> list[Job]:
    unique = list(dict.fromkeys(ids))
    jobs: list[Job] = []
    for start in range(0, len(unique), MAX_ROWS):
        batch = unique[start : start + MAX_ROWS]
        statement = (
            "SELECT event_id, folder_id, COALESCE(name, ''), COALESCE(description, '') FROM event"
            f" WHERE {column} IN ({markers(len(batch))})"
        )
        jobs.extend(map(_job, tx.fetch(statement, *batch)))
    return jobs
