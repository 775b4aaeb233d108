"""A disc that a USB stick can be written with as well: it starts PCs with a BIOS and with UEFI.

UEFI finds the loaders that Debian has had signed, so that Secure Boot may stay on.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from boot import starting
from boot.errors import PackageError
from boot.tools import Tools

NAME: Final = "imageinvoker.iso"
LOADERS: Final = (
    "isolinux", "syslinux-common", "shim-signed", "shim-helpers-amd64-signed",
    "grub-efi-amd64-signed",
)  # fmt: skip
"""The packages of the boot loaders, of each of which only files are wanted."""
TOOLS: Final = ("xorriso", "mtools")

_VOLUME: Final = "IMAGEINVOKER"
_SECTORS: Final = 16_384
"""Of 512 bytes: 8 MB, for the three loaders of UEFI."""
_NUMBER: Final = "49494256"
"""Serial number of the file system with them: the same in each image, as all else is."""
_UEFI: Final = {
    "usr/lib/shim/shimx64.efi.signed": "BOOTX64.EFI",
    "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed": "grubx64.efi",
    "usr/lib/shim/mmx64.efi.signed": "mmx64.efi",
}
_BIOS: Final = {
    "usr/lib/ISOLINUX/isolinux.bin": "isolinux/isolinux.bin",
    "usr/lib/syslinux/modules/bios/ldlinux.c32": "isolinux/ldlinux.c32",
}
_HYBRID: Final = "usr/lib/ISOLINUX/isohdpfx.bin"


def make(folder: Path, loaders: Path, tools: Tools, line: str, draft: Path) -> Path:
    """Makes the disc of the kernel and the initramfs in ``folder``, and puts it there.

    ``loaders`` holds the packages `LOADERS`, unpacked; ``line`` is the kernel's command line.

    Raises:
        PackageError: a loader is not in its package.
        OutputError: it cannot be written.
        OSError: a file cannot be read or written.
    """
    disc = draft / "disc"
    for each in ("isolinux", "boot/grub", ".disk"):
        (disc / each).mkdir(parents=True)
    for name in (starting.KERNEL, starting.INITRAMFS):
        shutil.copyfile(folder / name, disc / name)
    for place, name in _BIOS.items():
        shutil.copyfile(_loader(loaders, place), disc / name)
    (disc / "isolinux/isolinux.cfg").write_text(starting.isolinux(line), encoding="ascii")
    (disc / "boot/grub/grub.cfg").write_text(starting.grub(line), encoding="ascii")
    # By this file GRUB finds the disc that it has come from.
    (disc / ".disk/info").write_text("ImageInvoker\n", encoding="ascii")
    _uefi(disc / "boot/efi.img", loaders, tools)
    for file in (*disc.rglob("*"), disc):
        os.utime(file, (tools.epoch, tools.epoch))
    made = folder / NAME
    tools.run(
        "xorriso", "-as", "mkisofs", "-quiet", "-o", made, "-V", _VOLUME, "-r", "-J",
        "-isohybrid-mbr", _loader(loaders, _HYBRID),
        "-c", "isolinux/boot.cat", "-b", "isolinux/isolinux.bin",
        "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
        "-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat",
        disc,
    )  # fmt: skip
    return made


def _uefi(image: Path, loaders: Path, tools: Tools) -> None:
    """The file system that UEFI looks into."""
    at = ("-i", image)
    tools.run("mformat", *at, "-C", "-T", str(_SECTORS), "-h", "16", "-s", "32", "-N", _NUMBER)
    tools.run("mmd", *at, "::EFI", "::EFI/BOOT")
    for place, name in _UEFI.items():
        tools.run("mcopy", *at, _loader(loaders, place), f"::EFI/BOOT/{name}")


def _loader(root: Path, place: str) -> Path:
    file = root / place
    if not file.is_file():
        raise PackageError(
            f"There is no {Path(place).name} in the packages of the boot loaders.",
            "Is this another release of Debian than boot images are made of?",
        )
    return file
