"""The packages that the client needs on 64-bit Windows, as wheels."""

import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from boot.errors import PackageError

_DISTRIBUTION: Final = "imageinvoker"
_LIMIT: Final = 900
"""Seconds for a download over a slow line."""
_CURE: Final = "Is pip here, and the package index in reach? Or give a folder: --wheels DIR."
_MISSING: Final = re.compile(r"No matching distribution found for (\S+)")
_DATA: Final = re.compile(r"[^/]+\.data/(?:purelib|platlib)/(.+)\Z")


class WheelMissingError(PackageError):
    """There is no wheel of a package for this Python on Windows."""

    def __init__(self, package: str, version: tuple[int, int], where: str) -> None:
        super().__init__(
            f"There is no wheel of {package} for Python {version[0]}.{version[1]} on 64-bit "
            f"Windows {where}.",
            "Give another Python, or a folder that has it: --wheels DIR.",
        )
        self.package: Final = package


def fetch_wheels(version: tuple[int, int], into: Path, given: Path | None = None) -> list[Path]:
    """Puts the wheels that the client needs into a folder: from ``given``, else from the index.

    From the index come the versions that are installed here, with which the client was tested.

    Raises:
        WheelMissingError: one is not to be had for this version of Python.
        PackageError: pip is not here, or could not do it.
    """
    into.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--platform", "win_amd64", "--implementation", "cp"),
        *("--python-version", f"{version[0]}.{version[1]}", "--dest", str(into)),
    ]
    if given is not None:
        command += ["--no-index", "--find-links", str(given)]
    else:
        constraints = into / "installed.txt"
        constraints.write_text("".join(f"{each}\n" for each in _installed()))
        command += ["--constraint", str(constraints)]
    try:
        subprocess.run(
            [*command, *needed()], check=True, capture_output=True, text=True, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"The packages were not here within {_LIMIT} s.", "Try again, or give --wheels DIR."
        ) from error
    except subprocess.CalledProcessError as error:
        missing = _MISSING.search(error.stderr)
        if missing:
            where = f"in {given}" if given else "at the package index"
            raise WheelMissingError(missing[1], version, where) from error
        lines = error.stderr.strip().splitlines()
        said = lines[-1] if lines else "it did not say why."
        raise PackageError(f"pip could not fetch the packages: {said}", _CURE) from error
    return sorted(into.glob("*.whl"))


def needed() -> list[str]:
    """What the client requires, as pip reads it."""
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise PackageError(
            "imageinvoker is not installed here, so nobody knows its needs.",
            "Install it: pip install 'imageinvoker[client]'",
        ) from error
    parts = [each.partition(";") for each in required]
    return [
        name.strip()
        for name, _, marker in parts
        if not marker.strip() or re.fullmatch(r"extra == ['\"]client['\"]", marker.strip())
    ]


def unpack(wheels: list[Path], into: Path) -> dict[str, str]:
    """Unpacks wheels for import; the version of each package by its name."""
    packages: dict[str, str] = {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        packages[name.replace("_", "-").lower()] = version
        try:
            with zipfile.ZipFile(wheel) as opened:
                for entry in opened.infolist():
                    _place(opened, entry, into)
        except (zipfile.BadZipFile, OSError) as error:
            raise PackageError(f"{wheel} cannot be unpacked: {error}.", _CURE) from error
    return dict(sorted(packages.items()))


def _place(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path) -> None:
    data = _DATA.match(entry.filename)
    if entry.is_dir() or (".data/" in entry.filename and data is None):
        return  # programs, which nobody calls there
    if data:
        entry.filename = data[1]
    opened.extract(entry, into)


def _installed() -> list[str]:
    versions = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return sorted(f"{name}=={version}" for name, version in versions.items() if name)
