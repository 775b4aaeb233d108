"""Each machine has a connection of its own, and each connection is an open file to the system."""

import resource
from typing import Final

from cli.fail import CommandError

_OTHERS: Final = 100
"""Open files beside the machines' connections."""


def allow_connections(machines: int) -> None:
    """Raises the limit of open files of this process, as far as so many machines at a time need.

    Raises:
        CommandError: the system does not allow as many; the text says how many it does.
    """
    needed = machines + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CommandError(
            f"{machines} machines at a time need {needed} open files, and this system allows "
            f"{hard}: say --at-once {max(1, hard - _OTHERS)}, or raise the hard limit "
            "(`ulimit -Hn`, or LimitNOFILE= of a systemd unit)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
