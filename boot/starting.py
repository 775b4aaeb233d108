"""What hands kernel and initramfs over to a PC: scripts of iPXE, menus of boot loaders."""

from typing import Final

KERNEL: Final = "vmlinuz"
INITRAMFS: Final = "initramfs.img"
SCRIPT: Final = "boot.ipxe"
MENU: Final = "menu.ipxe"

_SCRIPT: Final = """\
#!ipxe
# ImageInvoker: straight to the portal. What stands behind {kernel} is the kernel's command line, on
# which everything may stand that the client takes: imageinvoker.timeout=0 waits for ever,
# imageinvoker.item=folder:17 imageinvoker.name=LAB-01 deploys without a question.
isset ${{ip}} || dhcp || shell
{start}
"""
_MENU: Final = """\
#!ipxe
# ImageInvoker, with a choice before it; without a key the portal comes up after five seconds.
isset ${{ip}} || dhcp || shell
:menu
menu ImageInvoker
item portal  Portal
item waits   Portal that waits for ever
item shell   Portal, then a shell
item disk    This computer's own disk
choose --default portal --timeout 5000 chosen || goto portal
goto ${{chosen}}

:portal
{start}

:waits
set more imageinvoker.timeout=0
goto portal

:shell
set more imageinvoker.timeout=0 imageinvoker.then=shell
goto portal

:disk
iseq ${{platform}} efi && exit ||
sanboot --no-describe --drive 0x80 || goto menu
"""
_START: Final = (
    "kernel {kernel} initrd={initramfs} {line}{more} BOOTIF=01-${{netX/mac:hexhyp}} || shell\n"
    "initrd {initramfs} || shell\n"
    "boot || shell"
)


def ipxe_script(line: str) -> str:
    """A script for iPXE that goes straight to the portal; it stands beside kernel and initramfs."""
    return _SCRIPT.format(kernel=KERNEL, start=_start(line, ""))


def ipxe_menu(line: str) -> str:
    """A script for iPXE with a menu."""
    return _MENU.format(start=_start(line, " ${more}"))


def _start(line: str, more: str) -> str:
    return _START.format(kernel=KERNEL, initramfs=INITRAMFS, line=line, more=more)


def isolinux(line: str) -> str:
    """The configuration of ISOLINUX, which starts PCs with a BIOS from a disc or a stick."""
    return (
        f"DEFAULT portal\nPROMPT 0\nTIMEOUT 1\nLABEL portal\n  KERNEL /{KERNEL}\n"
        f"  APPEND initrd=/{INITRAMFS} {line}\n"
    )


def grub(line: str) -> str:
    """The configuration of GRUB, which starts PCs with UEFI from them."""
    return (
        "set timeout=0\nmenuentry ImageInvoker {\n"
        f"  linux /{KERNEL} {line}\n  initrd /{INITRAMFS}\n}}\n"
    )
