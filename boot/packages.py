"""Debian packages: fetched by apt into a folder of their own, and unpacked; root is not needed.

apt checks their signatures by the lists that this system has. What is installed on this system
does not matter, nor is it touched.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boot.dependencies import closure, stated
from boot.errors import MissingToolError, OutputError, PackageError, WrongInputError

_APT: Final = "apt-get"
_LONGEST: Final = 1800.0
"""Seconds that all downloads together may take."""
_UNPACKING: Final = 300.0
_STATED: Final = re.compile(r"^\s+Depends: (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """A package as a file: its name, version and the SHA-256 of all of it."""

    name: str
    version: str
    sha256: str
    file: Path


class PackageFolder:
    """The folder in which packages are kept, so that none is fetched twice.

    ``offline`` takes those that are in it and asks nobody.
    """

    def __init__(self, folder: Path, *, offline: bool = False) -> None:
        self._folder = folder
        self._offline = offline

    def kernel(self, meta: str) -> Package:
        """The package of the kernel that ``meta`` (``linux-image-amd64``) stands for.

        Raises:
            PackageError: there is none.
            MissingToolError: apt is not here.
        """
        if self._offline:
            return self._newest(re.compile(r"linux-image-\d[^_]*"), meta)
        stated = _run([_tool("apt-cache"), "depends", meta])
        names = [name for name in _STATED.findall(stated) if name.startswith("linux-image-")]
        if not names:
            raise _unknown(meta)
        return self.only(names[0])

    def only(self, name: str) -> Package:
        """One package without anything that it needs.

        Raises:
            PackageError: it cannot be had.
            MissingToolError: apt is not here.
        """
        if self._offline:
            return self._newest(re.compile(re.escape(name)), name)
        before = self._wanted(["--print-uris", "download", name])
        self._fetch(["download", name], self._folder)
        return self._named(before)[0]

    def with_needs(self, names: Sequence[str]) -> list[Package]:
        """The packages and all that they need, as on a system on which nothing is installed.

        Raises:
            PackageError: one cannot be had.
            MissingToolError: apt is not here.
        """
        if self._offline:
            kept = {package.name: package for package in self._all()}
            there = {name: stated(_control(package)) for name, package in kept.items()}
            taken, missing = closure(names, there)
            if missing:
                raise _not_kept(min(missing), self._folder)
            return [kept[name] for name in sorted(taken)]
        install = ["--no-install-recommends", "--yes", "install", *names]
        wanted = self._wanted(["--print-uris", *install])
        self._fetch(["--download-only", *install], self._folder)
        return sorted(self._named(wanted), key=lambda package: package.name)

    def _wanted(self, arguments: Sequence[str]) -> list[str]:
        """The names of the files that apt would fetch."""
        lines = self._apt(arguments).splitlines()
        return [line.split()[1] for line in lines if line.startswith("'") and ".deb " in line]

    def _fetch(self, arguments: Sequence[str], folder: Path) -> None:
        self._apt(arguments, within=folder)

    def _apt(self, arguments: Sequence[str], within: Path | None = None) -> str:
        apt = _tool(_APT)
        state = self._folder / ".apt"
        status = state / "status"
        try:
            (self._folder / "partial").mkdir(parents=True, exist_ok=True)
            state.mkdir(exist_ok=True)
            status.touch()
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        # What is asked for is kept apart from this system: its locks, its cache, what it has.
        settings = {
            "Debug::NoLocking": "1",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",
            "Dir::State::status": str(status),
            "Dir::State::extended_states": str(state / "extended_states"),
            # Asked before it is there, apt tells every file, else only those that are missing.
            "Dir::Cache::archives": f"{self._folder if within else state}/",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
        }
        (state / "partial").mkdir(exist_ok=True)
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return _run([apt, "-q", *options, *arguments], cwd=within or state)

    def _named(self, files: Iterable[str]) -> list[Package]:
        found: list[Package] = []
        for name in sorted(files):
            file = self._folder / name
            if not file.is_file():
                raise PackageError(
                    f"The package {name} was not fetched into {self._folder}.",
                    "Try again; is there room on the disk?",
                )
            found.append(_package(file))
        return found

    def _all(self) -> list[Package]:
        newest: dict[str, Package] = {}
        for file in sorted(self._folder.glob("*.deb")):
            package = _package(file)
            if package.name in newest:
                raise WrongInputError(
                    f"The folder {self._folder} holds more than one version of {package.name}.",
                    "Leave in it the one that the image is to be made of.",
                )
            newest[package.name] = package
        return list(newest.values())

    def _newest(self, name: re.Pattern[str], called: str) -> Package:
        found = [package for package in self._all() if name.fullmatch(package.name)]
        if not found:
            raise _not_kept(called, self._folder)
        return found[-1]


def unpack(packages: Iterable[Package], folder: Path) -> None:
    """Unpacks packages into one folder, later ones over earlier ones.

    Raises:
        PackageError: one is damaged, or there is no room for it.
        MissingToolError: dpkg is not here.
    """
    tool = _tool("dpkg-deb")
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _run([tool, "--extract", str(package.file), str(folder)], seconds=_UNPACKING)


def _control(package: Package) -> dict[str, str]:
    """What the package says of itself, each field on one line."""
    said = _run([_tool("dpkg-deb"), "--field", str(package.file)]).replace("\n ", " ")
    return dict(line.partition(": ")[::2] for line in said.splitlines())


def _package(file: Path) -> Package:
    """By the name of its file, as apt writes it: name, version and architecture."""
    name, _, rest = file.name.partition("_")
    version = rest.partition("_")[0].replace("%3a", ":")
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(
            f"The package {file} cannot be read: {error.strerror}.", "Is it another user's?"
        ) from error
    return Package(name, version, digest, file)


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if found is None:
        raise MissingToolError(
            f"There is no {name} on this computer.",
            "Boot images are made of Debian's packages: make them on Debian.",
        )
    return found


def _run(command: Sequence[str], *, cwd: Path | None = None, seconds: float = _LONGEST) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"{Path(command[0]).name} has not ended within {seconds:.0f} s.",
            "Can this computer reach where its packages come from (apt-get update)?",
        ) from error
    if done.returncode:
        raise _failed(command, done.stderr)
    return done.stdout


def _failed(command: Sequence[str], said: str) -> PackageError:
    told = [line[3:] for line in said.splitlines() if line.startswith("E: ")]
    text = " ".join(told[:2]) or said.strip().rpartition("\n")[2] or "it did not say why"
    unknown = re.search(r"Unable to locate package (\S+)", said)
    if unknown:
        return _unknown(unknown[1])
    if "No space left" in said or "enough free space" in said:
        return PackageError(f"{text}.".replace("..", "."), "Make room, or name another folder.")
    return PackageError(
        f"{Path(command[0]).name} could not do it: {text}.".replace("..", "."),
        "Does `apt-get update` work on this computer?",
    )


def _unknown(name: str) -> PackageError:
    return PackageError(
        f"apt knows no package {name}.",
        "Run `apt-get update`; is it in the sources of this computer's apt?",
    )


def _not_kept(name: str, folder: Path) -> PackageError:
    return PackageError(
        f"There is no package {name} in {folder}.",
        "Make the image once without --offline, so that its packages are fetched.",
    )


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot be written: {error.strerror}.", "Name another folder: --packages DIR."
    )
