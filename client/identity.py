"""What this machine says of itself: its firmware's tables and its network cards."""

import sys
from pathlib import Path

import msgspec

from bus.machines import normal_mac, normal_text
from bus.messages import Machine
from client.network import card_folders, line_of
from client.settings import WrongUseError


def this_machine(file: Path | None = None, boot_card: str | None = None) -> Machine:
    """The machine the client runs on, or the one described in ``file``.

    Raises:
        WrongUseError: the file cannot be read or describes no machine.
    """
    if file is not None:
        return machine_in(file)
    if sys.platform == "win32":
        from client.windows import this_windows  # noqa: PLC0415 (only on Windows)

        return this_windows().machine()
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
    serial = line_of(firmware / "product_serial")
    return Machine(
        uuid=line_of(firmware / "product_uuid"),
        # Self-built machines often carry a serial number on the board alone.
        serial=serial if normal_text(serial) else line_of(firmware / "board_serial") or serial,
        asset_tag=line_of(firmware / "chassis_asset_tag"),
        macs=_addresses(sys_root, boot_card),
        manufacturer=line_of(firmware / "sys_vendor"),
        model=line_of(firmware / "product_name"),
    )


def _addresses(sys_root: Path, boot_card: str | None) -> tuple[str, ...]:
    """The addresses of the cards: those built in first, and of these the one booted from.

    A USB adapter moves from machine to machine, so it may only ever identify the last resort.
    """
    booted = normal_mac(boot_card)

    def order(card: Path) -> tuple[bool, bool]:
        is_booted = booted is not None and normal_mac(line_of(card / "address")) == booted
        return (card / "device/subsystem").resolve().name == "usb", not is_booted

    cards = sorted(card_folders(sys_root), key=order)
    addresses = [address for card in cards if (address := line_of(card / "address"))]
    return tuple(dict.fromkeys(addresses))[:64]
