"""The boot client, put together."""

import sys

from client.settings import Settings, WrongUseError
from client.status import WRONG_USE

_NO_SERVER = (
    "Which server? Give --server nats://HOST:PORT, or IMAGEINVOKER_SERVER in the environment, "
    "or imageinvoker.server=HOST on the kernel command line."
)
_NO_TERMINAL = (
    "The portal needs a terminal as its standard input and standard error; "
    "give an item to deploy without one."
)


def run(settings: Settings) -> int:
    """Runs the portal, or deploys unattended where an item is given; the exit status.

    0: scheduled or passed by. 2: wrong use. 3: refused. 4: no server.
    """
    if not settings.server:
        return _wrong(_NO_SERVER)
    # Each import waits for the way that needs it, since the first screen is waited for.
    from client.system import system  # noqa: PLC0415

    system.ready_console()
    try:
        if settings.item is not None:
            from client.unattended import deploy  # noqa: PLC0415

            return deploy(settings, settings.server, settings.item)
        machine = None
        if settings.machine is not None:
            from client.identity import machine_in  # noqa: PLC0415

            machine = machine_in(settings.machine)
    except WrongUseError as error:
        return _wrong(str(error))
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        return _wrong(_NO_TERMINAL)
    from client.lastresort import LastResort  # noqa: PLC0415

    with system.Asking() as asking:
        from client.portal.app import Portal  # noqa: PLC0415 (the terminal answers meanwhile)

        terminal = asking.answer()
    portal = Portal(settings, settings.server, machine, terminal)
    last_resort = LastResort()
    portal.guarded_by(last_resort)
    status = portal.run(mouse=False)
    last_resort.stay()
    return portal.return_code or 1 if status is None else status


def _wrong(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return WRONG_USE
