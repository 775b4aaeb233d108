"""How this boot client comes on the bus, as it was told."""

from bus.door import BootLogin, Door
from bus.machines import machine_key
from bus.messages import Machine
from client.settings import Settings


def door_of(settings: Settings, machine: Machine) -> Door:
    """The door for a machine: whom it believes, and the credential of its boot image."""
    credential = settings.boot_credential
    boot = BootLogin(machine_key(machine), credential) if credential else None
    return Door(ca=settings.ca, boot=boot)
