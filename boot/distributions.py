"""Which Python packages the boot client needs, and which of their files. Pure but for reading."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from boot.errors import WrongInputError

OURS: Final = "imageinvoker"
CLIENT: Final = "client"
ROOMS: Final = ("bus", "client", "cli")
"""The rooms of this repository that a boot client consists of; see also `INSIDE`."""
INSIDE: Final = ("boot/__init__.py", "boot/linux")
"""What of `boot` runs inside of the image."""

_LEFT_OUT: Final = (
    "pygments/lexers/", "pygments/styles/", "pygments/formatters/",  # source code in colours
    "textual/demo/", "textual/tree_sitter/", "cyclopts/completion/",
)  # fmt: skip
"""What of these packages the portal never shows, by the beginnings of the files' names."""
_NEEDED_ALL_THE_SAME: Final = ("__init__.py", "_mapping.py", "_utils.py")
_NOT_RUN: Final = frozenset({"tests", "test", "__pycache__", "testing"})
_STATED: Final = ("METADATA", "entry_points.txt")
"""What of a distribution's own files programs ask for while they run."""


@dataclass(frozen=True, slots=True, order=True)
class Needed:
    """A distribution by its name and version."""

    name: str
    version: str


def needed(root: str = OURS, extra: str = CLIENT) -> list[Needed]:
    """What ``root[extra]`` needs here, itself among them, by name.

    Raises:
        WrongInputError: one of them is not installed here.
    """
    wanted: dict[str, set[str]] = {}
    waiting = [(root, frozenset({"", extra}))]
    while waiting:
        name, extras = waiting.pop()
        key = canonicalize_name(name)
        if extras <= wanted.get(key, set()):
            continue
        wanted.setdefault(key, set()).update(extras)
        for text in _distribution(name).requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": each}) for each in extras):
                waiting.append((requirement.name, frozenset({"", *requirement.extras})))
    return sorted(Needed(name, _distribution(name).version) for name in wanted)


def files(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a distribution that its programs need, by their places below `sys.path`.

    Raises:
        WrongInputError: they are not known, or not there.
    """
    found = _distribution(name)
    if found.files is None:
        raise WrongInputError(
            f"Which files the package {name} has is not known here.",
            "Install it with pip, into a virtual environment.",
        )
    for each in found.files:
        place = str(each)
        if is_run(place):
            path = Path(str(each.locate()))
            if not path.is_file():
                raise WrongInputError(
                    f"The file {place} of the package {name} is missing here.",
                    f"Install it anew: pip install --force-reinstall {name}.",
                )
            yield place, path


def own_files(root: Path) -> Iterator[tuple[str, Path]]:
    """The same of this repository's own rooms, which stand below ``root``."""
    for name in (*ROOMS, *INSIDE):
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else (top,):
            place = path.relative_to(root).as_posix()
            if path.is_file() and is_run(place):
                yield place, path


def is_run(place: str) -> bool:
    """Whether a file of a distribution is needed while its programs run."""
    parts = place.split("/")
    if place.startswith(("..", "/")) or _NOT_RUN & set(parts):
        return False  # programs of a bin folder, tests, what was compiled here
    if parts[0].endswith(".dist-info"):
        return parts[-1] in _STATED
    if place.startswith(_LEFT_OUT):
        return parts[-1] in _NEEDED_ALL_THE_SAME
    return not place.endswith((".pyi", ".pyc", ".pth", ".c", ".h", ".pyx", "py.typed"))


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise WrongInputError(
            f"The package {name} is not installed here, and the boot client needs it.",
            "Install what goes into the image: pip install 'imageinvoker[client]'.",
        ) from error
