"""Job trees as large estates have them, and how they get into a database."""

import asyncio
from collections.abc import Sequence
from typing import Final

import pyodbc

from engine.tree import Folder, Job
from express.database import Database
from express.schema import create_embedded

_LEVELS: Final = (("Campus", 10), ("Faculty", 90), ("Department", 900), ("Room", 4000))
"""What the folders of each depth are called, and how many there are: 5,000, nested 4 deep."""
_JOBS_IN_FOLDER: Final = 20
_TAGGED_FOLDER: Final = 20
_TAGGED_JOB: Final = 50
"""One of so many is tagged."""
_STEPS: Final = (
    "Check hardware",
    "Update firmware",
    "Partition disk",
    "Lay down Windows 11",
    "Inject drivers",
    "Join domain",
    "Install Office",
    "Install printers",
    "Encrypt disk",
    "Hand over",
)
_PURPOSES: Final = ("Staff desktop", "Laptop", "Kiosk", "Exam mode", "CAD workstation")


def large_tree(smaller: int = 1) -> tuple[list[Job], list[Folder]]:
    """100,000 jobs in 5,000 folders, or ``smaller`` times fewer of both, nested as deep.

    1 of 50 jobs and 1 of 20 folders are tagged. Half of the tagged folders have their title from
    the description of a job named ``(MI)``, a third of the other jobs are described. Some titles
    occur often, most do not.
    """
    folders: list[Folder] = []
    parents: Sequence[Folder] = ()
    for word, count in _LEVELS:
        level: list[Folder] = []
        for number in range(1, count // smaller + 1):
            id_ = len(folders) + len(level) + 1
            tag = " (MI)" if id_ % _TAGGED_FOLDER == 0 else ""
            parent = parents[number % len(parents)].id if parents else None
            level.append(Folder(id_, parent, f"{word} {number}{tag}"))
        folders += level
        parents = level
    jobs = [_job(folder, number) for folder in folders for number in range(1, _JOBS_IN_FOLDER + 1)]
    return jobs, folders


def _job(folder: Folder, number: int) -> Job:
    id_ = 2_000_000 + folder.id * _JOBS_IN_FOLDER + number
    if number == 1 and folder.id % (2 * _TAGGED_FOLDER) == 0:
        return Job(id_, folder.id, "(MI)", f"Everything for {folder.name.removesuffix(' (MI)')}")
    step = _STEPS[number % len(_STEPS)]
    description = f"{step}, as agreed for {folder.name}" if id_ % 3 == 0 else ""
    if id_ % _TAGGED_JOB == 0:
        purpose = _PURPOSES[folder.id % len(_PURPOSES)]
        return Job(id_, folder.id, f"{purpose} {folder.id % 1000} (MI)", description)
    return Job(id_, folder.id, f"{number}. {step}", description)


def fill(dsn: str, jobs: Sequence[Job], folders: Sequence[Folder], sample: bool = False) -> None:
    """Makes an embedded database and puts a tree into it; parents come before their children."""

    async def create() -> None:
        database = Database(dsn, create=True)
        try:
            await create_embedded(database, sample=sample)
        finally:
            await database.close()

    asyncio.run(create())
    insert(dsn, jobs, folders)


def insert(dsn: str, jobs: Sequence[Job], folders: Sequence[Folder]) -> None:
    """Puts a tree into an embedded database that is there; parents come before their children."""
    connection = pyodbc.connect(dsn, autocommit=False)
    try:
        cursor = connection.cursor()
        cursor.executemany(
            "INSERT INTO event_folder (folder_id, parent_id, name) VALUES (?, ?, ?)", folders
        )
        cursor.executemany(
            "INSERT INTO event (event_id, folder_id, name, description) VALUES (?, ?, ?, ?)",
            [(job.id, job.folder_id, job.name, job.description or None) for job in jobs],
        )
        connection.commit()
    finally:
        connection.close()
