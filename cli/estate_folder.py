"""Which estate a command works on, and how it says what cannot be done there."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.embedded import default_folder
from cli.fail import CommandError, WrongUseError
from estate.errors import BrokenError, EstateError
from estate.files import alone
from estate.folder import EstateFolder

Folder = Annotated[
    Path | None,
    Parameter(
        env_var="IMAGEINVOKER_ESTATE",
        help="The estate's folder. Else IMAGEINVOKER_ESTATE, else one of this user's own.",
    ),
]
AsJson = Annotated[bool, Parameter(negative="")]


def place_of(folder: Path | None) -> Path:
    """The estate's folder."""
    return (folder or default_folder() / "estate").absolute()


@contextlib.contextmanager
def complaints() -> Iterator[None]:
    """Says what cannot be done as a command does."""
    try:
        yield
    except BrokenError as error:
        raise CommandError(str(error)) from error
    except EstateError as error:
        raise WrongUseError(str(error)) from error


@contextlib.contextmanager
def opened(folder: Path | None) -> Iterator[EstateFolder]:
    """The estate that is meant; no other command changes it meanwhile."""
    with complaints():
        there = EstateFolder.open(place_of(folder))
        with alone(there.folder):
            # It may have been changed while this waited.
            yield EstateFolder.open(there.folder)


def several(texts: Iterable[str]) -> tuple[str, ...]:
    """What was said one by one, or with commas between."""
    return tuple(each.strip() for text in texts for each in text.split(",") if each.strip())
