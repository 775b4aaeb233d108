"""Which site a command talks to: as told, else by the environment, else the embedded one here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bus.subjects import DEFAULT_SITE, valid_site
from cli.embedded import running_site
from cli.fail import WrongUseError


@Parameter(name="*")
@dataclass(frozen=True)
class Target:
    """A site on a bus.

    Parameters
    ----------
    server
        The bus: nats://HOST:PORT, several separated by commas. Else IMAGEINVOKER_SERVER, else the
        embedded site that runs on this machine.
    site
        The site. Else IMAGEINVOKER_SITE, else the embedded one, else "main".
    """

    server: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SERVER")] = None
    site: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SITE")] = None


@dataclass(frozen=True)
class Address:
    """A site that was found."""

    server: str
    site: str


def find(target: Target | None) -> Address:
    """The site that is meant.

    Raises:
        WrongUseError: no server is known, or the site's name is none.
    """
    told = target or Target()
    server, site = told.server, told.site
    if server is None:
        running = running_site()
        if running is None:
            raise WrongUseError(
                "Which server? Give --server nats://HOST:PORT or set IMAGEINVOKER_SERVER, "
                "or start an embedded site here: imageinvoker up"
            )
        server, site = running.nats_url, site or running.site
    site = site or DEFAULT_SITE
    if not valid_site(site):
        raise WrongUseError(f"{site!r} is no site: 1 to 32 of a-z, 0-9 and -")
    return Address(server, site)


def database(file: Path | None, server: str | None = None) -> str:
    """The ODBC connection string of the deployment server's database.

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


def _told(name: Literal["database", "history"], file: Path | None, server: str | None) -> str:
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
            f"Which {name}? Set {variable} to an ODBC connection string, or give "
            f"--{name}-file with a file that holds it. (It may hold a password, so it is never "
            "an argument.)"
        )
    return text
