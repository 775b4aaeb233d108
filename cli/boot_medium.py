"""What every boot medium is told, and how the making of one ends."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, TypeAlias

from cyclopts import Parameter

from boot.errors import ImageError, WrongInputError
from cli.fail import CommandError
from cli.fail import WrongUseError as WrongUse

Server: TypeAlias = Annotated[str, Parameter(name="--server", env_var="IMAGEINVOKER_SERVER")]
Site: TypeAlias = Annotated[str | None, Parameter(name="--site", env_var="IMAGEINVOKER_SITE")]
Ca: TypeAlias = Annotated[Path | None, Parameter(name="--ca", env_var="IMAGEINVOKER_CA")]
BootCredential: TypeAlias = Annotated[
    Path | None, Parameter(name="--boot-credential", env_var="IMAGEINVOKER_BOOT_CREDENTIAL")
]


def told(server: str, site: str | None, credential: Path | None) -> tuple[str, str | None]:
    """Server and site as the client would understand them: found out now, not at the first boot.

    Raises:
        WrongUseError: the client would refuse them, or a secret stands in the address.
    """
    # Only here: the commands must list quickly.
    from client.settings import WrongUseError, resolve, shown  # noqa: PLC0415

    if shown(server) != server:
        raise WrongUse(
            "--server: a user or password does not belong in an address that everybody with the "
            "image can read; give --boot-credential."
        )
    try:
        settings = resolve(server=server, site=site, boot_credential=credential, environment={})
    except WrongUseError as error:
        raise WrongUse(str(error)) from error
    return settings.server or server, settings.site


@contextlib.contextmanager
def making() -> Iterator[None]:
    """Tells in a sentence why an image cannot be made; leaves no draft behind when told to end.

    Raises:
        CommandError: it cannot be made.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except WrongInputError as error:
        raise WrongUse(str(error).strip()) from error
    except ImageError as error:
        raise CommandError(str(error).strip()) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
