"""What access rules speak of, as the deployment server's database knows it: folders and jobs."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import pyodbc

from bus.access import EVERYTHING
from bus.problems import Problem
from cli.fail import CommandError, WrongUseError
from cli.target import database
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction
from express.jobs import LARGEST_ID, read_folders, read_job
from express.tree import Job, JobTree, one_line

_ID: Final = re.compile(r"(job|folder):(0|-?[1-9][0-9]{0,18})\Z", re.IGNORECASE)
_T = TypeVar("_T")
_KIND: Final = re.compile(r"(?:job|folder):", re.IGNORECASE)


class NoDatabaseError(CommandError):
    """The deployment server's database cannot be asked; the text says why."""


class Deployable:
    """The names of folders, and of the jobs that were read."""

    def __init__(self, tree: JobTree, jobs: Iterable[Job]) -> None:
        self._tree = tree
        self._folders = {folder.id for folder in tree.all_folders()}
        self._jobs = {job.id: job for job in jobs}

    def name(self, what: str) -> str | None:
        """What a rule's target is called; None for what does not exist."""
        if what == EVERYTHING:
            return "everything"
        kind, _, number = what.partition(":")
        if kind == "folder":
            return self._tree.path(int(number)) if int(number) in self._folders else None
        job = self._jobs.get(int(number))
        return self.job_name(job) if job else None

    def job_name(self, job: Job) -> str:
        """A job's name behind the path of its folder."""
        name = one_line(job.name)
        if job.folder_id not in self._folders:
            return name
        return f"{self._tree.path(job.folder_id)}/{name}"


class Source(NamedTuple):
    """Where the database is told: in a file, else by the environment or the site on this bus."""

    file: Path | None
    server: str


async def asked(source: Source, question: Callable[[Transaction], _T]) -> _T:
    """What the deployment server's database answers.

    Raises:
        NoDatabaseError: none is known, or it cannot be reached.
        WrongUseError: the file that was named cannot be read.
    """
    try:
        dsn = database(source.file, source.server)
    except WrongUseError as error:
        if source.file is not None:
            raise
        raise NoDatabaseError(str(error)) from error
    connected = Database(dsn, size=1)
    try:
        return await connected.transact(question)
    except DatabaseUnavailable as error:
        raise NoDatabaseError(f"The database cannot be reached: {error.reason}") from error
    except (Problem, pyodbc.Error) as error:
        raise NoDatabaseError(f"The database refuses: {error}") from error
    finally:
        await connected.close()


def read_names(tx: Transaction, tag: str, targets: Iterable[str]) -> Deployable:
    """The names of all folders, and of those jobs that targets of rules name."""
    folders = read_folders(tx)
    jobs = [
        read_job(tx, number)
        for kind, _, text in (target.partition(":") for target in targets)
        if kind == "job" and abs(number := int(text)) <= LARGEST_ID
    ]
    return Deployable(JobTree((), folders, tag, None), filter(None, jobs))


def find_folder(tx: Transaction, tag: str, path: str) -> str:
    """The target of the one folder with this path.

    Raises:
        WrongUseError: there is none, or several have this path.
    """
    top = JobTree((), read_folders(tx), tag, path).top
    if top is None:
        raise WrongUseError(
            f"There is no single job folder {path!r}; say folder:ID, or its path: Deploy/Staff"
        )
    return f"folder:{top}"


def told_target(text: str) -> str | None:
    """The target that is told as it stands in a rule; None for the path of a folder.

    Raises:
        WrongUseError: it can be neither.
    """
    text = text.strip()
    if text.lower() == EVERYTHING or text == "/":
        return EVERYTHING
    if _ID.match(text):
        return text.lower()
    if _KIND.match(text) or not text.strip("/") or text.isdecimal():
        raise WrongUseError(
            f"{text!r} is nothing to deploy: say job:ID, folder:ID, the path of a folder "
            "(Deploy/Staff) or all"
        )
    return None
