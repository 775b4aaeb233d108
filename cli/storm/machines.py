"""The made-up machines of a storm, and the ids of what they ask for. Pure.

The seed makes the machines, so that a later storm can send the same ones. The ids of a storm's
requests share all but their last twelve digits, which are the number of the machine: so nothing
needs to be remembered of each, and all of them are one range of the table's primary key.
"""

import hashlib
import uuid
from typing import Final

from msgspec import Struct

from bus.messages import Machine
from bus.names import NETBIOS_LENGTH, check_name

MOST: Final = 1_000_000
"""Machines of a storm."""
_DIGITS: Final = 5


class Fleet(Struct, frozen=True):
    """The machines of a seed, by their numbers from 1 on."""

    seed: int
    prefix: str

    def machine(self, number: int) -> Machine:
        """What this machine says of itself."""
        of_seed = hashlib.sha256(f"storm {self.seed}".encode()).hexdigest()
        low = f"{number:06x}"
        return Machine(
            uuid=numbered(of_seed, number),
            serial=f"{of_seed[20:28].upper()}{number:08}",
            # Locally administered, so no real card has it (IEEE 802).
            macs=(":".join(("02", of_seed[28:30], of_seed[30:32], low[:2], low[2:4], low[4:])),),
            manufacturer="ImageInvoker",
            model="Storm",
        )

    def name(self, number: int) -> str:
        """The name that this machine asks for when nobody knows it."""
        return f"{self.prefix}{number:0{_DIGITS}}"

    def check(self, machines: int) -> None:
        """Makes sure that the names of so many machines are names.

        Raises:
            Problem: ``bad_name``, with the rule that they break.
        """
        check_name(self.name(machines), NETBIOS_LENGTH)


class RequestIds(Struct, frozen=True):
    """The ids of one storm's requests: no other storm's are among them."""

    storm: str
    """32 hexadecimal digits by chance."""

    @classmethod
    def new(cls) -> "RequestIds":
        """Those of a storm that begins."""
        return cls(uuid.uuid4().hex)

    def of(self, number: int) -> str:
        """The request of the machine of this number."""
        return numbered(self.storm, number)

    @property
    def pattern(self) -> str:
        """What all of them match, and no others, in an SQL ``LIKE``."""
        return f"{self.of(0)[:-12]}%"


def numbered(digits: str, number: int) -> str:
    """A UUID of one's own making (version 8, RFC 9562, 5.8) that ends with a number."""
    return f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}-8{digits[15:18]}-{number:012x}"


def number_of(request_id: str) -> int:
    """The number that a request's id ends with."""
    return int(request_id[-12:], 16)
