"""Which site a command talks to: as told, else by the environment, else the embedded one here.

And how it comes in there, by the same ways.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from bus.door import Door, UnprotectedError, addresses_in
from bus.subjects import DEFAULT_SITE, valid_site
from cli.embedded import running_site
from cli.fail import WrongUseError

OPERATOR: Final = "operator"
"""Whose credentials all commands show but those that run a service."""

_Told = Literal["database", "history"]
_FORMS: Final[dict[_Told, str]] = {
    "database": "the ODBC connection string of the deployment server's database, or to the address "
    "of another one by its engine (ENGINE:ADDRESS)",
    "history": "an ODBC connection string",
}


@Parameter(name="*")
@dataclass(frozen=True)
class Target:
    """A site on a bus.

    Parameters
    ----------
    server
        The bus: nats://HOST:PORT, or tls://HOST:PORT where it is secured; several separated by
        commas. Else IMAGEINVOKER_SERVER, else the embedded site that runs on this machine.
    site
        The site. Else IMAGEINVOKER_SITE, else the embedded one, else "main".
    credentials
        The .creds file that lets us in where not everybody may come; or a folder with one for each
        program: menu.creds, auth.creds, scheduler.creds, monitor.creds, and operator.creds for all
        other commands. Else IMAGEINVOKER_CREDENTIALS.
    ca
        A PEM file with the authority of the bus's certificates. Else IMAGEINVOKER_CA, else those
        that this system trusts.
    """

    server: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SERVER")] = None
    site: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SITE")] = None
    # No paths yet: an empty variable says nothing, and would be the folder one is in.
    credentials: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_CREDENTIALS")] = None
    ca: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_CA")] = None


@dataclass(frozen=True)
class Address:
    """A site that was found, and how to come in there."""

    server: str
    site: str
    door: Door = field(default_factory=Door)


def find(target: Target | None, program: str = OPERATOR) -> Address:
    """The site that is meant, as ``program`` comes in there.

    Raises:
        WrongUseError: no server is known, the site's name is none, or the credentials would go over
            the network in the clear.
    """
    told = target or Target()
    server, site, door = told.server, told.site, _door(told, program)
    if server is None:
        running = running_site()
        if running is None:
            raise WrongUseError(
                "Which server? Give --server nats://HOST:PORT or set IMAGEINVOKER_SERVER, "
                "or start an embedded site here: imageinvoker up"
            )
        # It trusts whoever is on this machine.
        server, site, door = running.nats_url, site or running.site, Door()
    site = site or DEFAULT_SITE
    if not valid_site(site):
        raise WrongUseError(f"{site!r} is no site: 1 to 32 of a-z, 0-9 and -")
    try:
        door.check(addresses_in(server))
    except UnprotectedError as error:
        raise WrongUseError(str(error)) from error
    return Address(server, site, door)


def database(file: Path | None, server: str | None = None) -> str:
    """Where the deployment server answers: the ODBC connection string of its database, or the
    address that its engine asks for.

    It stands in a file, else in IMAGEINVOKER_DATABASE, never in an argument. Else it is the
    embedded site's, unless ``server`` is another bus than its own.

    Raises:
        WrongUseError: there is none.
    """
    return _told("database", file, server)


def history(file: Path | None, server: str | None = None) -> str:
    """The ODBC connection string of the history, from where `database` has its own.

    Raises:
        WrongUseError: there is none.
    """
    return _told("history", file, server)


def _door(told: Target, program: str) -> Door:
    credentials = Path(told.credentials) if told.credentials else None
    if credentials and credentials.is_dir():
        credentials /= f"{program}.creds"
    return Door(ca=Path(told.ca) if told.ca else None, credentials=credentials)


def _told(name: _Told, file: Path | None, server: str | None) -> str:
    variable = f"IMAGEINVOKER_{name.upper()}"
    if file:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise WrongUseError(f"{file} cannot be read: {error.strerror}") from error
    else:
        text = os.environ.get(variable, "").strip()
        running = running_site()
        if not text and running and server in {None, running.nats_url}:
            text = running.database if name == "database" else running.history
    if not text:
        raise WrongUseError(
            f"Which {name}? Set {variable} to {_FORMS[name]}, or give --{name}-file with a file "
            "that holds it. (It may hold a password, so it is never an argument.)"
        )
    return text
