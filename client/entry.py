"""How this boot client comes on the bus, as it was told."""

from bus.door import BootLogin, Door
from bus.machines import machine_key
from bus.messages import Machine
from bus.problems import Problem
from client.settings import Settings


def door_of(settings: Settings, machine: Machine) -> Door:
    """The door for a machine: whom it believes, and the credential of its boot image."""
    credential = settings.boot_credential
    boot = BootLogin(_key(machine), credential) if credential else None
    return Door(ca=settings.ca, boot=boot)


def _key(machine: Machine) -> str:
    try:
        return machine_key(machine)
    except Problem:
        return ""  # it never gets as far as the door, and is told why by whoever asks for it
