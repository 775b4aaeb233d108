"""A machine with network cards of its own making: a client in a network namespace of its own."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

FAR = "192.0.2.7"
"""Nobody's address (RFC 5737)."""

DEAD = (
    "ip link add {card} type veth peer name {card} netns $far",
    "ip link set {card} up",
)
"""A card whose cable is not plugged in."""
LINKED = (*DEAD, "nsenter --net=/proc/$far/ns/net ip link set {card} up")
"""A card with a link, over which nobody gives an address."""
WORKING = (
    *LINKED,
    "ip address add 198.51.100.2/24 dev {card}",
    "ip route add default via 198.51.100.1",
    # Somebody takes every packet, and answers none.
    "ip neighbour add 198.51.100.1 lladdr 02:00:00:00:00:01 dev {card}",
)
"""A card with an address, in a network where nobody answers."""


def with_card(commands: Sequence[str], card: str) -> list[str]:
    """The commands for a card of this name."""
    return [command.format(card=card) for command in commands]


def alone(command: Sequence[str], *preparations: str, names_from: Path | None = None) -> list[str]:
    """The command in a namespace without any card but those that the preparations make.

    ``names_from`` stands in for ``/etc/resolv.conf``.
    """
    lines = [
        "set -e",
        "mount -t sysfs sysfs /sys",
        "ip link set lo up",
        "unshare --net sleep infinity & far=$!",
        # The other end of every cable lies there; it takes a moment to come to be.
        'while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done',
        *preparations,
    ]
    if names_from is not None:
        lines.append(f"mount --bind {shlex.quote(str(names_from))} /etc/resolv.conf")
    lines.append('exec "$@"')
    own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = "\n".join(lines)
    spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *own_user, *spaces, "sh", "-c", script, "sh", *command]


def client(*words: str) -> list[str]:
    """The boot client with these arguments."""
    return [sys.executable, "-m", "cli", "client", *words]
