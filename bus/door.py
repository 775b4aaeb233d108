"""How one comes on a bus that trusts nobody: whom to believe there, and what to show."""

import ipaddress
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, urlsplit

import nats.errors

from bus.certificates import CertificateTrouble, why

if TYPE_CHECKING:
    from bus.credentials import Credentials

_ENCRYPTED: Final = frozenset({"tls", "wss"})
_AT_ONCE: Final = 1.5
"""Seconds in which the auth service answers, where there is one; a server waits for 2 or more."""
_LONGEST: Final = 16_384
"""Bytes of a boot credential; one is a few hundred."""

Refusal = Literal["refused", "expired", "revoked", "crowded", "slow"]


class DoorError(nats.errors.Error):
    """Why one does not come in: ``cause`` and ``cure`` are sentences, and hold no secret.

    It is an error of nats-py, since most come up while it makes a connection.
    """

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} {cure}")
        self.cause: Final = cause
        self.cure: Final = cure


class UnprotectedError(DoorError):
    """A secret would go over a line that anybody can listen to."""


class UnusableError(DoorError):
    """A file that one needs to come in is not there, or holds something else."""

    def __init__(self, cause: str, cure: str, file: Path) -> None:
        super().__init__(cause, cure)
        self.file: Final = file


class CertificateError(DoorError):
    """The server is not believed to be the one that is meant."""

    def __init__(self, trouble: CertificateTrouble) -> None:
        super().__init__(*_CERTIFICATES[trouble])
        self.trouble: Final = trouble


class RefusedError(DoorError):
    """The server does not let this user in, or not any longer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(*_REFUSALS[refusal])
        self.refusal: Final = refusal


_CERTIFICATES: Final[dict[CertificateTrouble, tuple[str, str]]] = {
    "expired": (
        "The server's certificate has expired.",
        "Have it renewed (imageinvoker pki renew), or set the clock of this computer.",
    ),
    "not_yet_valid": (
        "The server's certificate is not valid yet.",
        "Set the clock of this computer, or of where the certificate was made.",
    ),
    "other_authority": (
        "The server's certificate is not of the authority that is believed here.",
        "Name the estate's ca.pem: --ca FILE or IMAGEINVOKER_CA; or is this another server?",
    ),
    "wrong_name": (
        "The server's certificate is for another name than this address.",
        "Take an address that stands in the certificate, or have this one added to it.",
    ),
    "unfit": (
        "The server's certificate is not fit to be believed.",
        "Have it made anew: imageinvoker pki renew.",
    ),
}
_REFUSALS: Final[dict[Refusal, tuple[str, str]]] = {
    "refused": (
        "The server does not let this user in.",
        "Are these credentials of its estate and site, and have they not been revoked? Name "
        "others: --credentials FILE or IMAGEINVOKER_CREDENTIALS.",
    ),
    "expired": (
        "The credentials have expired.",
        "Issue new ones and put them in their place; they are read anew by themselves.",
    ),
    "revoked": (
        "The credentials have been revoked.",
        "Issue new ones, if this user may still come in.",
    ),
    "crowded": (
        "The server takes no more connections.",
        "Raise its limit or the account's, or find out who holds so many.",
    ),
    "slow": (
        "Whether this user may come in could not be found out in time.",
        "Does the auth service run? Services and operators name credentials: --credentials FILE "
        "or IMAGEINVOKER_CREDENTIALS.",
    ),
}
_SAID: Final[tuple[tuple[str, Refusal], ...]] = (
    ("authentication revoked", "revoked"),
    ("authentication expired", "expired"),
    ("authorization violation", "refused"),
    ("authentication timeout", "slow"),
    ("connections exceeded", "crowded"),
    ("connection throttling", "crowded"),
)
"""What a server says, in lower case, when it closes a connection for whoever has it."""


@dataclass(frozen=True, slots=True)
class BootLogin:
    """How a boot client comes in: its machine key, and the file with its image's credential."""

    machine: str
    credential: Path


@dataclass(frozen=True, slots=True)
class Door:
    """How one comes in; all files are read anew for each connection that is made.

    ``ca`` is a PEM file with whom to believe, else those whom the system believes. Whoever has
    ``credentials`` (a ``.creds`` file) is known to the server, a ``boot`` login is decided on by
    the auth service; there is one of them at most.
    """

    ca: Path | None = None
    credentials: Path | None = None
    boot: BootLogin | None = None

    def check(self, addresses: Iterable[str]) -> None:
        """Whether all addresses are fit for the secrets that will go there.

        Raises:
            UnprotectedError: a secret would go in the clear, and not only within this machine.
        """
        for address in addresses:
            if self._is_open(address):
                parts = _parts(address)
                where = parts.netloc.rpartition("@")[2]
                raise UnprotectedError(
                    f"A secret would go in the clear to {where}.",
                    f"Give its address as tls://{where}.",
                )

    def check_line(self, scheme: str, peer: str, *, encrypted: bool) -> None:
        """Whether a line to ``peer``, an IP address, is what was asked for; told before a word.

        The server itself says whether it wants TLS, and so could anybody between.

        Raises:
            UnprotectedError: it is in the clear.
        """
        asked_for = scheme in _ENCRYPTED
        if encrypted or not (asked_for or self._is_wary):
            return
        if asked_for or not _is_loopback(peer):
            raise UnprotectedError(
                "The server does not encrypt, or somebody between it and here does not let it.",
                "Set up TLS in its configuration: tls { ... }.",
            )

    def context(self) -> ssl.SSLContext:
        """How lines are encrypted, and who is believed.

        Raises:
            UnusableError: the file with whom to believe is not there, or holds something else.
        """
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            if self.ca is None:
                raise
            why_not = "holds no certificate" if isinstance(error, ssl.SSLError) else "is not there"
            raise UnusableError(
                f"The file {self.ca} {why_not}.",
                "Name the estate's ca.pem: --ca FILE or IMAGEINVOKER_CA.",
                self.ca,
            ) from None

    @property
    def _is_wary(self) -> bool:
        return bool(self.ca or self.credentials or self.boot)

    def _is_open(self, address: str) -> bool:
        parts = _parts(address)
        secret = self.credentials or self.boot or parts.password or parts.username
        return bool(secret) and parts.scheme not in _ENCRYPTED and not _is_loopback(parts.hostname)


def boot_credential(file: Path) -> str:
    """What a boot client shows.

    Raises:
        UnusableError: there is none in the file.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LONGEST + 1)
        text = content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text, content = "", b""
    if not text or len(content) > _LONGEST:
        raise UnusableError(
            f"There is no boot credential in {file}.",
            "Make the boot medium anew with one, or name it: --boot-credential FILE.",
            file,
        )
    return text


def refusal(said: str, shown: "Credentials | None", took: float = 0.0) -> RefusedError | None:
    """What it means when a server hangs up with these words; None for another reason.

    It says the same whether the ``shown`` credentials have expired or are bad, and whether the
    auth service says no or, after a while, nothing: ``took`` are the seconds.
    """
    text = said.lower()
    meant = next((refusal for words, refusal in _SAID if words in text), None)
    if meant == "refused" and shown and 0 < shown.expires_at <= time.time():
        meant = "expired"
    elif meant == "refused" and not shown and took > _AT_ONCE:
        meant = "slow"
    return RefusedError(meant) if meant else None


def distrust(error: ssl.SSLCertVerificationError) -> CertificateError:
    """The same, with its cause and its cure."""
    return CertificateError(why(error))


def addresses_in(server: str) -> list[str]:
    """The addresses in a text that separates them by commas."""
    return [address.strip() for address in server.split(",") if address.strip()]


def _parts(address: str) -> SplitResult:
    return urlsplit(address if "//" in address else f"nats://{address}")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
