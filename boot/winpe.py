"""Puts the boot client into an image of Windows PE."""

import compileall
import json
import os
import py_compile
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from boot.errors import ImageError, OutputError, WrongInputError
from boot.winpe_python import AMD64, EmbeddablePython, examine_python, pe_machine
from boot.winpe_scripts import CA, CREDENTIAL, Told, menu_bat, menu_sh, script_text
from boot.winpe_startup import STARTNET, WINPESHL, Start, with_call
from boot.winpe_wheels import fetch_wheels, unpack
from boot.winpe_wim import Wim, copy_for, quoted, read_wim
from bus.__about__ import __version__
from bus.boot_credential import why_refused
from bus.door import Door, UnusableError, boot_credential

CLIENT: Final = "/ImageInvoker"
MENU: Final = "/startup/menu.bat"
NOTE: Final = f"{CLIENT}/image.json"
"""What was put into the image, for who looks at it later."""
_SIGN: Final = "/Windows/System32/wpeinit.exe"
"""What every Windows PE has, and nothing else."""
_ROOMS: Final = ("bus", "client", "cli")
"""Our own packages that the client consists of."""


class NotWindowsPeError(WrongInputError):
    """The image is no Windows PE for 64-bit PCs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What goes into an image, wherever that lies.

    ``wheels`` is a folder with the packages for Windows; without it they come from the package
    index. ``ca`` and ``credential`` are copied.
    """

    python: Path
    server: str
    site: str | None = None
    ca: Path | None = None
    credential: Path | None = None
    wheels: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made: where, with which Python and packages, and what starts the portal."""

    out: Path
    index: int | None
    python: str
    packages: dict[str, str]
    starts_from: str | None


def into_wim(file: Path, out: Path, contents: Contents, index: int | None, start: bool) -> Made:
    """Makes ``out`` from a Windows PE image, with the client in it; ``file`` itself may be ``out``.

    A client that an earlier run put there is replaced as a whole; what an operator has added to
    the calls stays. Without ``start`` nothing in the image calls the portal by itself.

    Raises:
        ImageError: it cannot be made; ``out`` is then as it was.
    """
    wim = read_wim(file)
    number = wim.index(index)
    here = wim.files(number)
    _check_pe(wim, number, here)
    began = with_call(wim.read(number, WINPESHL), wim.read(number, STARTNET)) if start else None
    before = script_text(wim.read(number, MENU) or b"")
    with staged(contents, before) as (tree, python, packages):
        commands = [f"delete --recursive {CLIENT}"] if CLIENT.lower() in here else []
        commands.append(f"add {quoted(str(tree))} /")
        if began is not None:
            started = tree.parent / "start"
            started.write_bytes(began.content)
            commands += _replacing(began, started, here)
        with copy_for(wim, out) as copy:
            copy.update(number, commands)
    return Made(
        out=out,
        index=number,
        python=python,
        packages=packages,
        starts_from=began.path if began else None,
    )


def into_folder(out: Path, contents: Contents) -> Made:
    """Lays out in a folder what would go into an image, for tools that make images themselves.

    Raises:
        ImageError: it cannot be made.
    """
    menu = out.joinpath(MENU.lstrip("/"))
    before = script_text(menu.read_bytes()) if menu.is_file() else ""
    with staged(contents, before) as (tree, python, packages):
        try:
            shutil.rmtree(out.joinpath(CLIENT.lstrip("/")), ignore_errors=True)
            shutil.copytree(tree, out, dirs_exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{out} cannot be written: {error.strerror}.", "Give another folder: --out DIR."
            ) from error
    return Made(out=out, index=None, python=python, packages=packages, starts_from=None)


def write_scripts(
    out: Path, server: str, site: str | None, ca: Path | None, credential: Path | None
) -> list[Path]:
    """Writes ``menu.sh`` and ``menu.bat`` into the root of an image, and the files they name.

    Raises:
        WrongInputError: a file is unfit, or a value cannot stand in a script.
        OutputError: they cannot be written.
    """
    check_secrets(ca, credential)
    told = Told(server=server, site=site, ca=ca is not None, credential=credential is not None)
    startup, client = out / "startup", out.joinpath(CLIENT.lstrip("/"))
    written: list[Path] = []
    try:
        startup.mkdir(parents=True, exist_ok=True)
        for name, script in (("menu.sh", menu_sh), ("menu.bat", menu_bat)):
            file = startup / name
            before = script_text(file.read_bytes()) if file.exists() else ""
            file.write_bytes(script(told, before))
            file.chmod(0o755)
            written.append(file)
        for source, name in ((ca, CA), (credential, CREDENTIAL)):
            if source is not None:
                client.mkdir(exist_ok=True)
                written.append(_put_secret(source, client / name))
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror}.", "Give another folder: --out DIR."
        ) from error
    return written


@contextmanager
def staged(contents: Contents, before: str) -> Iterator[tuple[Path, str, dict[str, str]]]:
    """The files as they go into the root of an image, in a folder that is gone afterwards.

    Gives the version of Python and those of the packages along with it. ``before`` is the
    ``menu.bat`` that is there already.

    Raises:
        ImageError: something that is needed is not there, or unfit.
    """
    python = examine_python(contents.python)
    check_secrets(contents.ca, contents.credential)
    with tempfile.TemporaryDirectory(prefix="imageinvoker-") as scratch:
        tree = Path(scratch) / "tree"
        client = tree.joinpath(CLIENT.lstrip("/"))
        wheels = fetch_wheels(python.version, Path(scratch) / "wheels", contents.wheels)
        shutil.copytree(python.folder, client, ignore=shutil.ignore_patterns("__pycache__"))
        (client / python.paths.name).write_text(python.paths_with_packages(), "utf-8", newline="")
        packages = client / "Lib" / "site-packages"
        versions = unpack(wheels, packages)
        for room in _ROOMS:
            shutil.copytree(_own(room), packages / room, ignore=_no_caches)
        _compile(packages, python)
        told = Told(
            server=contents.server,
            site=contents.site,
            ca=contents.ca is not None,
            credential=contents.credential is not None,
        )
        for source, name in ((contents.ca, CA), (contents.credential, CREDENTIAL)):
            if source is not None:
                _put_secret(source, client / name)
        menu = tree.joinpath(MENU.lstrip("/"))
        menu.parent.mkdir()
        menu.write_bytes(menu_bat(told, before))
        version = ".".join(map(str, python.version))
        note = {
            "version": __version__,
            "python": version,
            "server": contents.server,
            "site": contents.site,
            "packages": versions,
        }
        tree.joinpath(NOTE.lstrip("/")).write_text(json.dumps(note, indent=2) + "\n", "utf-8")
        yield tree, version, versions


def check_secrets(ca: Path | None, credential: Path | None) -> None:
    """Whether a client could come in with these files.

    Raises:
        WrongInputError: one of them is not there, holds something else, or has expired.
    """
    try:
        if ca is not None:
            Door(ca=ca).context()
        refusal = why_refused(boot_credential(credential), time.time()) if credential else None
    except UnusableError as error:
        raise WrongInputError(error.cause, "Name it as the estate has made it.") from error
    if refusal is not None:
        said = {"expired": "has expired", "not_yet_valid": "is not valid yet"}
        raise WrongInputError(
            f"The boot credential in {credential} {said.get(refusal, 'is damaged')}.",
            "Issue another: imageinvoker pki boot issue IMAGE",
        )


def _check_pe(wim: Wim, index: int, here: frozenset[str]) -> None:
    program = wim.read(index, _SIGN) if _SIGN.lower() in here else None
    if program is None:
        raise NotWindowsPeError(
            f"Image {index} of {wim.file} is no Windows PE: there is no wpeinit.exe in it.",
            "Give the boot.wim of a Windows PE, or another of its images: --index N.",
        )
    if pe_machine(program) != AMD64:
        raise NotWindowsPeError(
            f"Image {index} of {wim.file} is not for 64-bit PCs (amd64).",
            "Take a 64-bit Windows PE: Python and the client's packages are 64-bit.",
        )


def _replacing(began: Start, started: Path, here: frozenset[str]) -> list[str]:
    delete = [f"delete {began.path}"] if began.path.lower() in here else []
    return [*delete, f"add {quoted(str(started))} {began.path}"]


def _own(room: str) -> Path:
    spec = find_spec(room)
    if spec is None or spec.origin is None:
        raise ImageError(f"The package {room} is not installed here.", "Install imageinvoker.")
    return Path(spec.origin).parent


def _no_caches(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


def _compile(packages: Path, python: EmbeddablePython) -> None:
    """Spares every boot the compiling, where the Python here writes what the one there reads."""
    if python.version == sys.version_info[:2]:
        compileall.compile_dir(
            packages,
            quiet=2,
            stripdir=str(packages),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _put_secret(source: Path, place: Path) -> Path:
    """Copies it where nobody else can read it, not even for a moment."""
    place.unlink(missing_ok=True)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(source.read_bytes())
    return place
