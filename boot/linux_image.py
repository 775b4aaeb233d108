"""The Linux boot image: kernel and initramfs out of Debian's packages and the boot client.

The same packages, client and wishes make the same bytes.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

import boot
from boot import cpio, distributions, iso, libraries, modules, output, python_parts, starting
from boot.errors import OutputError, PackageError
from boot.modules import Module
from boot.packages import Package, PackageFolder, unpack
from boot.tools import Tools
from boot.tree import PROGRAM_MODE, SECRET_MODE, Tree
from boot.wishes import CA, CREDENTIAL, PASSWORD, Wishes, passed
from bus.__about__ import __version__

Say = Callable[[str], None]
"""Is told each step, as a sentence."""

KERNEL: Final = "linux-image-amd64"
USERLAND: Final = (f"python{python_parts.VERSION}", "busybox-static", "ca-certificates")
PACKERS: Final = ("zstd",)
IPXE: Final = {"usr/lib/ipxe/undionly.kpxe": "undionly.kpxe", "usr/lib/ipxe/ipxe.efi": "ipxe.efi"}
"""What PCs fetch first that do not come with iPXE: with a BIOS, and with UEFI."""

_NEEDED: Final = 1_500_000_000
"""Bytes that packages, what they unpack to and drafts take."""
_INSIDE: Final = Path(boot.__file__).parent / "linux"
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_MERGED: Final = ("bin", "sbin", "lib", "lib64")
_FOLDERS: Final = ("dev", "etc", "mnt", "opt", "proc", "root", "run", "sys", "tmp", "var")
_COMMAND: Final = """\
#!/bin/sh
exec python3 -I -c 'from cli.main import main; main()' "$@"
"""
_LEVEL: Final = "-19"
_QUICK: Final = "-3"


class Part(Struct, frozen=True, kw_only=True):
    """A package that the image is made of."""

    name: str
    version: str
    sha256: str = ""


class Manifest(Struct, frozen=True, kw_only=True):
    """What an image is made of; `floor` in seconds since 1970 is the time that is in it."""

    imageinvoker: str
    server: str
    site: str | None
    then: str
    kernel: str
    floor: int
    debian: tuple[Part, ...]
    python: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made, and where; ``packages`` is where Debian's packages are kept."""

    wishes: Wishes
    out: Path
    packages: Path
    offline: bool = False
    with_iso: bool = False
    with_ipxe: bool = False
    quick: bool = False


def make(order: Order, say: Say) -> Manifest:
    """Makes the image; tells what it is made of.

    Raises:
        ImageError: it cannot be made; says why.
    """
    given = passed(order.wishes)
    output.check(order.out)
    output.check_room(order.packages, _NEEDED)
    try:
        with output.begun(order.out) as draft:
            work = draft / ".work"
            work.mkdir()
            manifest = _Making(order, draft, work, say).make(given)
            shutil.rmtree(work)
    except OSError as error:
        raise output.unwritable(order.out, error) from error
    return manifest


class _Making:
    def __init__(self, order: Order, draft: Path, work: Path, say: Say) -> None:
        self._order = order
        self._draft = draft
        self._work = work
        self._say = say
        self._kept = PackageFolder(order.packages, offline=order.offline)

    def make(self, given: int) -> Manifest:
        order, wishes = self._order, self._order.wishes
        self._say("Fetching Debian's packages ...")
        kernel = self._kept.kernel(KERNEL)
        userland = self._kept.with_needs(USERLAND)
        tools = self._kept.with_needs((*PACKERS, *iso.TOOLS) if order.with_iso else PACKERS)
        loaders = [self._kept.only(each) for each in iso.LOADERS] if order.with_iso else []
        ipxe = [self._kept.only("ipxe")] if order.with_ipxe else []
        firmware = [self._kept.only(each) for each in wishes.firmware]
        self._say("Unpacking them ...")
        roots = {
            name: self._unpacked(name, packages)
            for name, packages in {
                "kernel": [kernel], "userland": userland, "tools": tools, "loaders": loaders,
                "ipxe": ipxe, "firmware": firmware,
            }.items()
        }  # fmt: skip
        vmlinuz = _vmlinuz(roots["kernel"])
        floor = _floor(given, vmlinuz, roots["userland"] / python_parts.PROGRAM)
        self._say("Choosing drivers, compiling the client ...")
        tree = self._tree(roots["kernel"], roots["userland"], roots["firmware"], floor)
        self._say("Packing the initramfs ...")
        packers = Tools(roots["tools"], floor)
        shutil.copyfile(vmlinuz, self._draft / starting.KERNEL)
        self._pack(tree, packers, floor)
        if order.with_ipxe:
            self._put_ipxe(roots["ipxe"])
        if order.with_iso:
            self._say("Writing the disc ...")
            iso.make(self._draft, roots["loaders"], packers, wishes.append, self._work)
        manifest = Manifest(
            imageinvoker=__version__,
            server=wishes.server,
            site=wishes.site,
            then=wishes.then,
            kernel=kernel.name.removeprefix("linux-image-"),
            floor=floor,
            debian=_parts([kernel, *userland, *firmware, *loaders, *ipxe]),
            python=tuple(
                Part(name=each.name, version=each.version) for each in distributions.needed()
            ),
        )
        told = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (self._draft / output.MANIFEST).write_bytes(told + b"\n")
        for file in self._draft.iterdir():
            os.utime(file, (floor, floor))
        return manifest

    def _unpacked(self, name: str, packages: Iterable[Package]) -> Path:
        root = self._work / name
        unpack(packages, root)
        return root

    def _tree(self, kernel: Path, userland: Path, firmware: Path, floor: int) -> Tree:
        wishes = self._order.wishes
        tree = Tree()
        for name in _MERGED:
            tree.link(name, f"usr/{name}")
        for name in _FOLDERS:
            tree.folder(name)
        tree.device("dev/console")
        chosen = _put_modules(tree, kernel)
        _put_firmware(tree, chosen, firmware)
        own = Path(boot.__file__).parent.parent
        programs = python_parts.put(tree, userland, own, self._work / "compiled")
        for name, library in libraries.needed(programs, userland).items():
            tree.file(f"{_LIBRARIES}/{name}", library.resolve(), PROGRAM_MODE)
        tree.link(f"usr/lib64/{libraries.LOADER}", f"../../{_LIBRARIES}/{libraries.LOADER}")
        _put_busybox(tree, userland)
        tree.file("init", _INSIDE / "init", PROGRAM_MODE)
        tree.file("usr/lib/imageinvoker/lease", _INSIDE / "lease", PROGRAM_MODE)
        tree.file("usr/bin/imageinvoker", _COMMAND.encode(), PROGRAM_MODE)
        tree.file("etc/imageinvoker/command-line", f"{wishes.inside(floor)}\n".encode())
        tree.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        tree.file("etc/group", b"root:x:0:\ntty:x:5:\n")
        tree.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")
        tree.file("usr/lib/ssl/cert.pem", b"".join(_trusted(userland)))
        if wishes.ca:
            tree.file(CA, wishes.ca)
        if wishes.credential:
            tree.file(CREDENTIAL, wishes.credential, SECRET_MODE)
        if wishes.password:
            tree.file(PASSWORD, wishes.password, SECRET_MODE)
        _put_brought(tree, wishes)
        return tree

    def _pack(self, tree: Tree, packers: Tools, floor: int) -> None:
        archive = self._work / "initramfs.cpio"
        with archive.open("wb") as opened:
            for part in cpio.archive(tree, floor):
                opened.write(part)
        level = _QUICK if self._order.quick else _LEVEL
        packers.run("zstd", "-q", "-T2", level, archive, "-o", self._draft / starting.INITRAMFS)

    def _put_ipxe(self, root: Path) -> None:
        line = self._order.wishes.append
        script, menu = starting.ipxe_script(line), starting.ipxe_menu(line)
        (self._draft / starting.SCRIPT).write_text(script, encoding="ascii")
        (self._draft / starting.MENU).write_text(menu, encoding="ascii")
        for place, name in IPXE.items():
            shutil.copyfile(root / place, self._draft / name)


def _vmlinuz(root: Path) -> Path:
    found = sorted((root / "boot").glob("vmlinuz-*"))
    if not found:
        raise PackageError("There is no kernel in its package.", "Is the package damaged?")
    return found[0]


def _floor(given: int, *files: Path) -> int:
    """A time that has passed for sure: packages were built, certificates signed; or as asked for.

    Raises:
        OutputError: SOURCE_DATE_EPOCH makes no sense.
    """
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    if asked:
        if not asked.isascii() or not asked.isdigit() or len(asked) > 12:
            raise OutputError(f"SOURCE_DATE_EPOCH is {asked!r}, no number of seconds.", "Unset it.")
        return int(asked)
    return max(given, *(int(file.stat().st_mtime) for file in files))


def _put_modules(tree: Tree, kernel: Path) -> list[Module]:
    folder = next(iter(sorted((kernel / "lib/modules").iterdir())))
    read = [
        modules.read(file.relative_to(folder).as_posix(), file.read_bytes())
        for file in sorted(folder.rglob("*.ko"))
    ]
    chosen = modules.with_needs(read)
    if not chosen:
        raise PackageError(
            "There are no drivers in the kernel's package.",
            "Is this another release of Debian than boot images are made of?",
        )
    place = f"usr/lib/modules/{folder.name}"
    for module in chosen:
        tree.file(f"{place}/{module.path}", folder / module.path)
    for name, content in modules.indexes(chosen).items():
        tree.file(f"{place}/{name}", content)
    return chosen


def _put_firmware(tree: Tree, chosen: Iterable[Module], root: Path) -> None:
    for name in sorted({name for module in chosen for name in module.firmware}):
        for folder in ("lib/firmware", "usr/lib/firmware"):
            file = root / folder / name
            if file.is_file():
                tree.file(f"usr/lib/firmware/{name}", file.resolve())


def _put_busybox(tree: Tree, userland: Path) -> None:
    there = (userland / "bin/busybox", userland / "usr/bin/busybox")
    busybox = next((file for file in there if file.is_file()), None)
    if busybox is None:
        raise PackageError("There is no busybox in its package.", "Is the package damaged?")
    tree.file("usr/bin/busybox", busybox, PROGRAM_MODE)
    told = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True, timeout=60
    )
    for name in told.stdout.split():
        if f"usr/bin/{name}" not in tree:
            tree.link(f"usr/bin/{name}", "busybox")
    # By this name the kernel itself asks for modules.
    tree.link("usr/sbin/modprobe", "../bin/busybox")


def _trusted(userland: Path) -> Iterator[bytes]:
    """Those that Debian trusts: whom a server is believed by if no authority is named."""
    for file in sorted((userland / "usr/share/ca-certificates").rglob("*.crt")):
        yield file.read_bytes()


def _put_brought(tree: Tree, wishes: Wishes) -> None:
    if wishes.brought is None:
        return
    if wishes.then == "script":
        tree.file("opt/script", wishes.brought, PROGRAM_MODE)
        return
    for file in sorted(wishes.brought.rglob("*")):
        place = f"opt/agent/{file.relative_to(wishes.brought).as_posix()}"
        if file.is_symlink():
            tree.link(place, str(file.readlink()))
        elif file.is_file():
            is_program = file.stat().st_mode & stat.S_IXUSR or place == "opt/agent/start"
            tree.file(place, file, PROGRAM_MODE if is_program else 0o644)
        elif file.is_dir():
            tree.folder(place)


def _parts(packages: Sequence[Package]) -> tuple[Part, ...]:
    found = {each.name: each for each in packages}
    return tuple(
        Part(name=each.name, version=each.version, sha256=each.sha256)
        for _, each in sorted(found.items())
    )
