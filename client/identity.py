"""What this machine says of itself: its firmware's tables and its network cards."""

import sys
from pathlib import Path

import msgspec

from bus.machines import normal_mac, normal_text
from bus.messages import Machine
from client.settings import WrongUseError

_ETHERNET = "1"
"""ARPHRD_ETHER in ``/sys/class/net/*/type``; it stands for wireless cards as well."""
_RANDOM = "1"
"""NET_ADDR_RANDOM in ``/sys/class/net/*/addr_assign_type``: made up at this boot."""


def this_machine(file: Path | None = None, boot_card: str | None = None) -> Machine:
    """The machine the client runs on, or the one described in ``file``.

    Raises:
        WrongUseError: the file cannot be read or describes no machine.
    """
    if file is not None:
        return machine_in(file)
    if sys.platform == "win32":
        from client.identity_windows import windows_machine  # noqa: PLC0415 (only on Windows)

        return windows_machine()
    else:  # noqa: RET505 (mypy knows platforms by branches)
        return linux_machine(Path("/sys"), boot_card)


def machine_in(file: Path) -> Machine:
    """The machine described by a JSON file.

    Raises:
        WrongUseError: the file cannot be read or describes no machine; says why.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Machine)
    except OSError as error:
        raise WrongUseError(f"--machine {file}: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongUseError(f"--machine {file} describes no machine: {error}.") from error


def linux_machine(sys_root: Path, boot_card: str | None = None) -> Machine:
    """The machine as the kernel shows it under ``sys_root`` (``/sys``)."""
    firmware = sys_root / "class/dmi/id"
    serial = _line(firmware / "product_serial")
    return Machine(
        uuid=_line(firmware / "product_uuid"),
        # Self-built machines often carry a serial number on the board alone.
        serial=serial if normal_text(serial) else _line(firmware / "board_serial") or serial,
        asset_tag=_line(firmware / "chassis_asset_tag"),
        macs=_cards(sys_root / "class/net", boot_card),
        manufacturer=_line(firmware / "sys_vendor"),
        model=_line(firmware / "product_name"),
    )


def _cards(folder: Path, boot_card: str | None) -> tuple[str, ...]:
    """The addresses of the physical cards, the one booted from first.

    Without any physical card (a container) those of the others, less loopback and bridges.
    """
    try:
        cards = [card for card in sorted(folder.iterdir()) if _line(card / "type") == _ETHERNET]
    except OSError:
        return ()
    physical = [
        card
        for card in cards
        if (card / "device").exists() and _line(card / "addr_assign_type") != _RANDOM
    ]
    chosen = physical or [card for card in cards if not (card / "bridge").exists()]
    addresses = [address for card in chosen if (address := _line(card / "address"))]
    booted = normal_mac(boot_card)
    addresses.sort(key=lambda address: booted is None or normal_mac(address) != booted)
    return tuple(dict.fromkeys(addresses))[:64]


def _line(file: Path) -> str | None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return text[:1024] or None
