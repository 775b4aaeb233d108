"""What keeps a boot client from its site, in plain words: which text of the portal says it."""

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import nats.errors

from bus.certificates import CertificateTrouble
from bus.door import (
    CertificateError,
    Door,
    DoorError,
    Refusal,
    RefusedError,
    UnusableError,
    boot_credential,
)
from bus.problems import Code
from client.network import is_here, names, network_trouble
from client.settings import shown
from client.system import system


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell the technician: a text of the portal by name, and its ``message``.

    ``code`` is that of the problem, where a service answered with one.
    """

    text: str
    message: str = ""
    code: Code | None = None


_CERTIFICATES: Final[dict[CertificateTrouble, str]] = {
    "expired": "trouble_certificate_expired",
    "not_yet_valid": "trouble_certificate_not_yet_valid",
    "other_authority": "trouble_certificate_other_authority",
    "wrong_name": "trouble_certificate_wrong_name",
    "unfit": "trouble_certificate",
}
_REFUSALS: Final[dict[Refusal, str | None]] = {
    "refused": "trouble_door",
    "revoked": "trouble_door",
    "crowded": "trouble_door_crowded",
    "slow": "trouble_door_slow",
    "expired": None,  # A boot client is let in for a while only, and comes again by itself.
}
_OTHERS: Final[tuple[tuple[type[Exception], str | None], ...]] = (
    # Order matters: all of these but nats-py's own are kinds of OSError.
    (ConnectionRefusedError, "trouble_refused"),
    (socket.gaierror, "trouble_host"),
    (TimeoutError, "trouble_timeout"),
    (nats.errors.TimeoutError, "trouble_timeout"),
    (ssl.SSLError, "trouble_certificate"),
    (OSError, "trouble_network"),
    (DoorError, "trouble_unprotected"),
    (nats.errors.NoServersError, None),
)

OF_NETWORK: Final = frozenset({"network_no_card", "network_no_link", "network_no_address"})
"""The texts that name a fault of this machine's own network."""
OF_TIME: Final = frozenset({
    "trouble_certificate_expired",
    "trouble_certificate_not_yet_valid",
    "trouble_boot_expired",
    "trouble_boot_not_yet_valid",
})  # fmt: skip
"""The texts that say what time it is here, which may be what is wrong."""
_FAR: Final = frozenset({"trouble_host", "trouble_timeout", "trouble_network"})
"""What may be the fault of this machine's own network."""


def trouble(error: Exception, server: str, door: Door | None = None) -> Notice | None:
    """What to say of an error of the connection to ``server``; nothing of one that says nothing."""
    match error:
        case CertificateError():
            untrusted = _CERTIFICATES[error.trouble]
            return Notice(untrusted, _now() if untrusted in OF_TIME else shown(server))
        case RefusedError():
            text = _of_boot_credential(door) if error.refusal == "refused" else None
            text = text or _REFUSALS[error.refusal]
            return Notice(text, _now() if text in OF_TIME else "") if text else None
        case UnusableError():
            return Notice("trouble_file", str(error.file))
    text = next((text for kind, text in _OTHERS if isinstance(error, kind)), "trouble_other")
    if text in _FAR:
        return of_network(server) or Notice(text)
    return Notice(text) if text else None


def of_network(server: str) -> Notice | None:
    """What is wrong with this machine's own network, if that is what keeps ``server`` away."""
    if is_here(server):
        return None
    cards = system.cards()
    wrong = network_trouble(cards)
    return Notice(f"network_{wrong}", names(cards, wrong)) if wrong else None


def _of_boot_credential(door: Door | None) -> str | None:
    """What a refused boot credential says of itself: the server tells no stranger why."""
    # Only here: a client that nobody refuses goes without.
    from bus.boot_credential import why_refused  # noqa: PLC0415

    if door is None or door.boot is None:
        return "trouble_boot_none"
    try:
        reason = why_refused(boot_credential(door.boot.credential))
    except UnusableError:
        return None  # it was there a moment ago; told when it is read for the next try
    return f"trouble_boot_{reason}" if reason in {"malformed", "expired", "not_yet_valid"} else None


def _now() -> str:
    """By this computer's clock, which may be what is wrong."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
