"""Kernel modules: which of them go into the image, and what tells `modprobe` of them. Pure.

A module says of itself (in its section ``.modinfo``) what it is called, for which devices it is,
which modules and which firmware it needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from boot import elf

CHOSEN: Final = (
    # network cards, and what is between them and the wire
    "drivers/net/ethernet/", "drivers/net/usb/", "drivers/net/phy/", "drivers/net/mdio/",
    "drivers/net/pcs/", "drivers/net/hyperv/", "drivers/net/vmxnet3/", "drivers/net/virtio_net.ko",
    "drivers/net/xen-netfront.ko", "drivers/net/thunderbolt-net.ko", "drivers/thunderbolt/",
    # disks
    "drivers/ata/", "drivers/nvme/", "drivers/scsi/", "drivers/message/", "drivers/mmc/",
    "drivers/block/", "drivers/md/", "drivers/usb/storage/", "drivers/pci/controller/",
    # where keyboards, cards and disks are plugged in
    "drivers/usb/host/", "drivers/usb/core/", "drivers/usb/common/", "drivers/usb/typec/",
    "drivers/hid/hid-generic.ko", "drivers/hid/hid-hyperv.ko", "drivers/hid/hid-apple.ko",
    "drivers/hid/hid-logitech", "drivers/hid/hid-cherry.ko", "drivers/hid/hid-microsoft.ko",
    "drivers/hid/usbhid/", "drivers/hid/i2c-hid/", "drivers/input/serio/", "drivers/virtio/",
    "drivers/usb/serial/", "drivers/hv/", "drivers/char/hw_random/virtio-rng.ko",
    # what is on disks and on servers
    "fs/ext4/", "fs/xfs/", "fs/btrfs/", "fs/fat/", "fs/exfat/", "fs/isofs/", "fs/udf/",
    "fs/squashfs/", "fs/overlayfs/", "fs/fuse/", "fs/nls/", "fs/nfs/", "fs/smb/client/",
    "fs/cifs/", "fs/efivarfs/", "fs/ntfs3/",
)  # fmt: skip
"""Paths below ``kernel/`` of the module tree, by their beginnings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module: its ``path`` from the folder of its kernel, and what it says of itself."""

    path: str
    name: str
    aliases: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()
    """What it asks the kernel to load beside it, by name or alias; it works without."""
    firmware: tuple[str, ...] = ()


def read(path: str, data: bytes) -> Module:
    """The module in a file.

    Raises:
        NotElfError: it is none.
    """
    said: dict[str, list[str]] = {}
    for word in elf.section(data, ".modinfo").decode("latin-1").split("\0"):
        key, _, value = word.partition("=")
        said.setdefault(key, []).append(value)
    name = path.rpartition("/")[2].partition(".")[0]
    return Module(
        path=path,
        name=plain(name),
        aliases=tuple(said.get("alias", ())),
        depends=tuple(plain(each) for each in ",".join(said.get("depends", ())).split(",") if each),
        wishes=tuple(
            word
            for wish in said.get("softdep", ())
            for word in wish.split()
            if not word.endswith(":")
        ),
        firmware=tuple(said.get("firmware", ())),
    )


def plain(name: str) -> str:
    """The name as the kernel has it: a hyphen is an underscore."""
    return name.replace("-", "_")


def is_chosen(path: str) -> bool:
    """Whether a module at this path of the module tree goes into the image for its own sake."""
    return path.removeprefix("kernel/").startswith(CHOSEN)


def with_needs(modules: Iterable[Module]) -> list[Module]:
    """The chosen ones among them and all that these need or wish for, in the order of paths."""
    known = {module.name: module for module in modules}
    by_alias: dict[str, list[str]] = {}
    for module in known.values():
        for alias in module.aliases:
            by_alias.setdefault(alias, []).append(module.name)
    taken: set[str] = set()
    waiting = [module.name for module in known.values() if is_chosen(module.path)]
    while waiting:
        name = waiting.pop()
        if name in taken or name not in known:
            continue  # what is no module is a part of the kernel itself
        taken.add(name)
        waiting += known[name].depends
        for wish in known[name].wishes:
            waiting += [plain(wish), *by_alias.get(wish, ()), *by_alias.get(f"crypto-{wish}", ())]
    return sorted((known[name] for name in taken), key=lambda module: module.path)


def indexes(modules: Iterable[Module]) -> dict[str, bytes]:
    """The files that `modprobe` goes by, by their names, as `depmod` writes them."""
    known = {module.name: module for module in modules}
    dep = [
        " ".join([f"{module.path}:", *(known[name].path for name in _below(module.name, known))])
        for module in known.values()
    ]
    alias = [f"alias {each} {module.name}" for module in known.values() for each in module.aliases]
    return {"modules.dep": _lines(dep), "modules.alias": _lines(alias)}


def _below(name: str, known: Mapping[str, Module]) -> list[str]:
    """What a module needs, each before whatever itself needs: they are loaded from the end."""
    order: dict[str, None] = {}

    def visit(each: str) -> None:
        for need in known[each].depends:
            if need in known:
                order.pop(need, None)
                order[need] = None
                visit(need)

    visit(name)
    return list(order)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
