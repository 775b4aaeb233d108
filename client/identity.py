"""What this machine says of itself: its firmware's tables and its network cards."""

from pathlib import Path

import msgspec

from bus.messages import Machine
from client.settings import WrongUseError
from client.system import system


def this_machine(file: Path | None = None, boot_card: str | None = None) -> Machine:
    """The machine the client runs on, or the one described in ``file``.

    Raises:
        WrongUseError: the file cannot be read or describes no machine.
    """
    if file is not None:
        return machine_in(file)
    return system.machine(boot_card)


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
