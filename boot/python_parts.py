"""Python in the image: Debian's own, with the boot client's packages, compiled ahead."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from boot import compiling, distributions, standing_in
from boot.errors import PackageError
from boot.linux import no_palette
from boot.tree import FILE_MODE, PROGRAM_MODE, Tree

VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
PROGRAM: Final = f"usr/bin/python{VERSION}"
STANDARD: Final = f"usr/lib/python{VERSION}"
PACKAGES: Final = "usr/lib/python3/dist-packages"
"""Where Debian's Python looks for packages."""

_LEFT_OUT: Final = frozenset({
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
    "distutils", "dbm", "sqlite3", "curses", "wsgiref", "xmlrpc", "unittest", "venv", "msilib",
    "__pycache__", "config-3.11-x86_64-linux-gnu", "turtle.py", "pydoc.py", "doctest.py",
    "_pydecimal.py", "antigravity.py", "this.py",
})  # fmt: skip
"""Files and folders of the standard library that no boot client has any use for."""
_LEFT_OUT_EXTENSIONS: Final = (
    "_curses", "_dbm", "_sqlite3", "_test", "_xx", "audioop", "nis", "ossaudiodev", "readline",
    "spwd", "xxlimited", "_lsprof", "_codecs_jp", "_codecs_kr", "_codecs_cn", "_codecs_tw",
    "_codecs_hk", "_codecs_iso2022", "_multibytecodec", "_crypt",
)  # fmt: skip


def put(tree: Tree, unpacked: Path, own: Path, draft: Path) -> list[Path]:
    """Puts all of it into the tree; the programs in it that need shared libraries.

    ``unpacked`` holds Debian's packages, ``own`` the rooms of this repository; what is compiled is
    written below ``draft``.

    Raises:
        PackageError: Debian's Python is not there.
        WrongInputError: a package of the client is not here.
        OSError: a file cannot be read or written.
    """
    program = unpacked / PROGRAM
    if not program.is_file():
        raise PackageError(
            f"There is no Python {VERSION} in the packages.",
            "Make the image with the Python of the Debian release that it is made of.",
        )
    tree.file(PROGRAM, program, PROGRAM_MODE)
    tree.link("usr/bin/python3", Path(PROGRAM).name)
    programs = [program]
    sources: list[tuple[Path, str]] = []
    for place, path in _all(unpacked, own):
        if place.endswith(".py"):
            sources.append((path, place))
        else:
            is_library = place.endswith(".so")
            tree.file(place, path, PROGRAM_MODE if is_library else FILE_MODE)
            programs += [path] * is_library
    for place, path in _compiled(sources, draft):
        tree.file(place, path)
    return programs


def _all(unpacked: Path, own: Path) -> Iterator[tuple[str, Path]]:
    yield from _standard(unpacked / STANDARD)
    for each in distributions.needed():
        if each.name == distributions.OURS:
            continue
        files = dict(distributions.files(each.name))
        _stand_in(files)
        for place, path in files.items():
            yield f"{PACKAGES}/{place}", path
    for place, path in distributions.own_files(own):
        yield f"{PACKAGES}/{place}", path


def _stand_in(files: dict[str, Path]) -> None:
    """Puts something smaller in the place of what the portal never shows, where it fits."""
    if standing_in.FILE in files:
        smaller = Path(no_palette.__file__)
        sources = (path.read_text(encoding="utf-8") for path in files.values() if _is_source(path))
        if standing_in.fits(smaller.read_text(encoding="utf-8"), sources):
            files[standing_in.FILE] = smaller


def _is_source(path: Path) -> bool:
    return path.suffix == ".py"


def _standard(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if not path.is_file() or _LEFT_OUT & set(place.parts):
            continue
        if place.parts[0] == "lib-dynload" and place.name.startswith(_LEFT_OUT_EXTENSIONS):
            continue
        if path.suffix in {".py", ".so"}:
            yield f"{STANDARD}/{place.as_posix()}", path


def _compiled(sources: Iterable[tuple[Path, str]], draft: Path) -> Iterator[tuple[str, Path]]:
    """Each source as what the interpreter makes of it, in its place."""
    wanted = [
        (path, place, draft / f"{place}c") for path, place in sorted(sources, key=lambda s: s[1])
    ]
    lines = "".join(f"{path}\t/{place}\t{target}\n" for path, place, target in wanted)
    done = subprocess.run(
        [sys.executable, "-S", "-s", compiling.__file__],
        input=lines,
        # Constant sets are written in the order of their hashes.
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise PackageError(
            f"A source could not be compiled: {done.stderr.strip().rpartition(chr(10))[2]}.",
            "Is one of the packages damaged? Install them anew.",
        )
    for _, place, target in wanted:
        yield f"{place}c", target
