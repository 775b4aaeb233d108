"""What an image is to be like, and the command line that says so inside of it."""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from boot.errors import WrongInputError
from boot.linux.told import THEN, Then, told
from bus.boot_credential import CredentialRefused, parts, why_refused
from bus.door import UnusableError, boot_credential
from client.settings import WrongUseError, resolve

FOLDER: Final = "etc/imageinvoker"
CA: Final = f"{FOLDER}/ca.pem"
CREDENTIAL: Final = f"{FOLDER}/boot-credential"
PASSWORD: Final = f"{FOLDER}/password"
CONSOLES: Final = "console=ttyS0,115200 console=tty0"
"""The serial line, where there is one, and the screen, which the kernel takes for its own."""

_MEANT: Final = frozenset("$;{}|&<>\\'")
"""What the loaders that hand the command line over take for their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a Linux boot image is to be like.

    ``then`` comes after the portal; ``brought`` is the agent's folder or the script that the image
    brings along for it. ``password`` is a file with the one that unattended PCs sign in with.
    ``firmware`` are names of Debian packages. ``append`` is the kernel's command line, with its
    consoles.
    """

    server: str
    site: str | None = None
    ca: Path | None = None
    password: Path | None = None
    credential: Path | None = None
    then: Then = "local"
    brought: Path | None = None
    firmware: tuple[str, ...] = ()
    append: str = CONSOLES

    def inside(self, floor: int) -> str:
        """The command line that stands in the image; ``floor`` is when it was made."""
        said = {
            "server": self.server,
            "site": self.site,
            "ca": f"/{CA}" if self.ca else None,
            "boot-credential": f"/{CREDENTIAL}" if self.credential else None,
            "then": self.then,
            "floor": str(floor),
            "clock": "server",
        }
        return " ".join(
            f"imageinvoker.{name}={quoted(value)}" for name, value in said.items() if value
        )


def quoted(value: str) -> str:
    """A value for the kernel's command line.

    Raises:
        WrongInputError: it holds what cannot stand there.
    """
    if '"' in value or not value.isprintable():
        raise WrongInputError(
            f"{value!r} cannot stand on a kernel's command line.", "Leave out quotes and the like."
        )
    return f'"{value}"' if " " in value else value


def parsed_then(text: str) -> tuple[Then, Path | None]:
    """What comes after the portal: ``reboot``, ``agent:FOLDER``, ``script:FILE`` ...

    Raises:
        WrongInputError: it makes no sense, or what it names is not there.
    """
    name, _, place = text.partition(":")
    for each in get_args(Then):
        if name == each and bool(place) == (each in {"agent", "script"}):
            brought = Path(place) if place else None
            if brought and each == "script" and not brought.is_file():
                raise WrongInputError(f"There is no file {brought}.", "Name it: script:FILE.")
            if brought and each == "agent" and not (brought / "start").is_file():
                raise WrongInputError(
                    f"There is no file {brought / 'start'}.",
                    "The agent's folder holds a program of that name: agent:FOLDER.",
                )
            return each, brought
    plain = ", ".join(each for each in THEN if each not in {"agent", "script"})
    raise WrongInputError(
        f"{text!r} cannot come after the portal.", f"Say {plain}, agent:FOLDER or script:FILE."
    )


def passed(wishes: Wishes) -> int:
    """A time that has passed for sure, by what the image is given; else 0.

    Raises:
        WrongInputError: a file or a value makes no sense.
    """
    _check_line(wishes.append)
    line = f"{wishes.inside(0)} {wishes.append}"
    try:
        unknown = resolve(environment={}, kernel=line).unknown
    except WrongUseError as error:
        raise WrongInputError(str(error), "") from error
    wrong = [*told(line).wrong, *(f"{name} means nothing." for name in unknown)]
    if wrong:
        raise WrongInputError(f"--append: {wrong[0]}", "Correct it, or leave it out.")
    if wishes.password is not None:
        _check_password(wishes.password)
    return max(_of_ca(wishes.ca), _of_credential(wishes.credential))


def _check_line(text: str) -> None:
    unfit = {char for char in text if not (char.isascii() and char.isprintable())}
    unfit |= _MEANT.intersection(text)
    if unfit:
        raise WrongInputError(
            f"--append: {min(unfit)!r} cannot stand on a kernel's command line.", "Leave it out."
        )
    if text.count('"') % 2:
        raise WrongInputError("--append: a quote is not closed.", 'Write name="two words".')


def _check_password(file: Path) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines or not lines[0]:
        raise WrongInputError(
            f"There is no password in {file}.", "It stands in the first line, in UTF-8."
        )


def _of_ca(file: Path | None) -> int:
    if file is None:
        return 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file)
        begins = [each["notBefore"] for each in context.get_ca_certs()]
    except OSError as error:
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else "cannot be read"
        raise WrongInputError(
            f"The file {file} {why}.", "Name the estate's ca.pem: --ca FILE."
        ) from None
    moments = [ssl.cert_time_to_seconds(each) for each in begins if isinstance(each, str)]
    return max(moments, default=0)


def _of_credential(file: Path | None) -> int:
    if file is None:
        return 0
    try:
        token = boot_credential(file)
        said = parts(token)[1]
    except UnusableError as error:
        raise WrongInputError(error.cause, "imageinvoker pki boot issue makes one.") from None
    except CredentialRefused:
        raise WrongInputError(
            f"There is no boot credential in {file}.", "imageinvoker pki boot issue makes one."
        ) from None
    if why_refused(token) == "expired":
        raise WrongInputError(
            f"The boot credential in {file} has expired: "
            f"{time.strftime('%Y-%m-%d', time.gmtime(said.expires))}.",
            "imageinvoker pki boot issue makes a new one.",
        )
    return int(said.issued)
