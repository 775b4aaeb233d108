"""What access rules speak of, as the deployment server knows it: folders and jobs."""

import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from bus.access import EVERYTHING
from cli.engines import deployment_server
from cli.fail import CommandError, WrongUseError
from engine.errors import EngineUnavailable
from engine.finding import EngineError, find
from engine.menu_rows import Wanted
from engine.protocol import Engine, JobTrees
from engine.tree import Job, JobTree, one_line

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
    """Where a site's deployment server is told: in a file, else by the environment or this bus."""

    file: Path | None
    server: str
    site: str


async def asked(source: Source, question: Callable[[Engine], Awaitable[_T]]) -> _T:
    """What the deployment server answers, by whichever engine it is reached.

    Raises:
        NoDatabaseError: none is known, or it cannot be reached.
        WrongUseError: the file that was named cannot be read.
    """
    try:
        found = find(deployment_server(source.file, source.server))
    except WrongUseError as error:
        if source.file is not None:
            raise
        raise NoDatabaseError(str(error)) from error
    try:
        engine = found.open(source.site)
    except EngineError as error:
        raise NoDatabaseError(f"{error}.") from error
    try:
        return await question(engine)
    except CommandError:
        raise
    except EngineUnavailable as error:
        raise NoDatabaseError(f"The deployment server cannot be reached: {error.reason}") from error
    except Exception as error:
        raise NoDatabaseError(f"The deployment server refuses: {error}") from error
    finally:
        await engine.close()


async def read_names(trees: JobTrees, tag: str, targets: Iterable[str]) -> Deployable:
    """The names of all folders, and of those jobs that targets of rules name."""
    named = (target.partition(":") for target in targets)
    ids = frozenset(int(number) for kind, _, number in named if kind == "job")
    rows = await trees.menu_rows(Wanted(tag, ids))
    return Deployable(JobTree((), rows.folders, tag, None), rows.jobs)


async def find_folder(trees: JobTrees, tag: str, path: str) -> str:
    """The target of the one folder with this path.

    Raises:
        WrongUseError: there is none, or several have this path.
    """
    rows = await trees.menu_rows(Wanted(tag))
    top = JobTree((), rows.folders, tag, path).top
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
