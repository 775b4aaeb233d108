"""What identifies a machine, and what only looks as if it did. Pure functions."""

import hashlib
import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

from bus.messages import Machine
from bus.problems import Problem

_UUID = re.compile(r"[0-9a-f]{32}\Z")
_MAC = re.compile(r"[0-9a-f]{12}\Z")
_SAME = re.compile(r"(.)\1*\Z")
_SERIAL_KEY = re.compile(r"sn[0-9a-f]{16}\Z")

_PLACEHOLDER_TEXTS: Final = frozenset(
    {
        "to be filled by o.e.m.",
        "to be filled by o.e.m",
        "to be filled by oem",
        "o.e.m.",
        "oem",
        "none",
        "null",
        "n/a",
        "na",
        "default",
        "default string",
        "empty",
        "invalid",
        "unknown",
        "undefined",
        "not applicable",
        "not available",
        "not specified",
        "not provided",
        "not defined",
        "not set",
        "no asset tag",
        "no asset information",
        "asset tag",
        "asset-1234567890",
        "system asset tag",
        "chassis asset tag",
        "base board asset tag",
        "serial",
        "serial number",
        "system serial number",
        "chassis serial number",
        "base board serial number",
        "sernum",
        "sernum0",
        "ssn12345678901234567",
        "type1 - serial number",
        "sn-12345",
        "sn-1234567890",
        "sys-1234567890",
        "eval",
        "iatpass",
        "0123456789",
        "12345",
        "123456789",
        "1234567890",
        "12345678",
        "1234567",
        "123456",
        "012345678",
        "0123456789abcdef",
    }
)


_PLACEHOLDER_MACS: Final = frozenset(
    {
        "444553540000",  # dial-up adapters of old Windows
        "505054503030",  # PPTP
        "005056c00001",  # VMware's own adapters on every host
        "005056c00008",
        "020054554e01",
    }
)
"""Addresses that many machines have alike."""


class Identity(Struct, frozen=True, kw_only=True):
    """What really identifies a machine: each value in its normal form, or absent.

    ``uuid`` is 32 hexadecimal digits in lower case, each of ``macs`` 12; ``serial`` and
    ``asset_tag`` are trimmed.
    """

    uuid: str | None = None
    serial: str | None = None
    asset_tag: str | None = None
    macs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.uuid or self.serial or self.asset_tag or self.macs)


def swap_uuid(uuid: str) -> str:
    """The other byte order of a UUID in normal form (its first three fields turned round).

    SMBIOS before 2.6 left the order open, so firmware and inventories differ (DMTF DSP0134, 7.2.1).
    """
    return (
        uuid[6:8] + uuid[4:6] + uuid[2:4] + uuid[0:2]
        + uuid[10:12] + uuid[8:10]
        + uuid[14:16] + uuid[12:14]
        + uuid[16:]
    )  # fmt: skip


_FACTORY_UUIDS: Final = (
    "03000200040005000006000700080009",
    "030201000504070608090a0b0c0d0e0f",
    "123456781234567890abcddeefaabbcc",
    "6ab5b300538d10149fb5b0684d007b53",
    "4c4c454400002010802080c04f202020",
)
"""UUIDs that boards leave the factory with when nobody sets one."""
_PLACEHOLDER_UUIDS: Final = frozenset(
    order for uuid in _FACTORY_UUIDS for order in (uuid, swap_uuid(uuid))
)


@lru_cache(maxsize=10_000)
def normal_uuid(text: str | None) -> str | None:
    """A UUID as 32 lower-case hexadecimal digits, or None for what identifies nothing.

    A machine asks several times, and what it asks is often answered faster than this is found out.
    """
    if not text:
        return None
    uuid = text.strip().strip("{}").replace("-", "").lower()
    # All zeros, all Fs and their kind are one octet, over and over.
    if not _UUID.match(uuid) or uuid[:2] * 16 == uuid or uuid in _PLACEHOLDER_UUIDS:
        return None
    return uuid


def normal_text(text: str | None) -> str | None:
    """A trimmed serial number or asset tag, or None for a placeholder."""
    if not text:
        return None
    value = text.strip(" \t\r\n\0.")
    if len(value) < 2 or not value.isprintable() or _SAME.match(value.replace(" ", "").lower()):
        return None
    if value.lower() in _PLACEHOLDER_TEXTS or value.lower() + "." in _PLACEHOLDER_TEXTS:
        return None
    return value


def normal_mac(text: str | None) -> str | None:
    """A hardware address as 12 lower-case hexadecimal digits, or None for no station's address."""
    if not text:
        return None
    mac = text.strip().translate({ord(c): None for c in ":-. "}).lower()
    if not _MAC.match(mac) or _SAME.match(mac) or mac in _PLACEHOLDER_MACS:
        return None
    # The lowest bit of the first octet marks a group address (IEEE 802), which no card has.
    return None if int(mac[:2], 16) & 1 else mac


def identity(machine: Machine, shared_macs: frozenset[str] = frozenset()) -> Identity:
    """What identifies ``machine``, less the addresses that are listed as shared (normal form)."""
    macs = dict.fromkeys(mac for mac in map(normal_mac, machine.macs) if mac)
    return Identity(
        uuid=normal_uuid(machine.uuid),
        serial=normal_text(machine.serial),
        asset_tag=normal_text(machine.asset_tag),
        macs=tuple(mac for mac in macs if mac not in shared_macs),
    )


def machine_key(machine: Machine) -> str:
    """The machine's token in every subject.

    The UUID if it is a real one, else ``sn`` and the first 16 hexadecimal digits of SHA-256 over
    the serial number, else ``mac`` and the first hardware address.

    Raises:
        Problem: ``bad_machine`` when nothing identifies the machine.
    """
    uuid = normal_uuid(machine.uuid)
    if uuid:
        return uuid
    serial = normal_text(machine.serial)
    if serial:
        return "sn" + hashlib.sha256(serial.encode()).hexdigest()[:16]
    for text in machine.macs:
        mac = normal_mac(text)
        if mac:
            return "mac" + mac
    raise Problem("bad_machine")


def valid_key(text: str) -> bool:
    """Whether `machine_key` can give this: the key of a machine that can be told from others."""
    if text.startswith("mac"):
        return normal_mac(text[3:]) == text[3:]
    return _SERIAL_KEY.match(text) is not None or normal_uuid(text) == text
