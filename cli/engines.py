"""Which deployment server a command reaches, and by which engine."""

import os
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from cli.embedded import running_site
from cli.fail import WrongUseError
from cli.target import database
from engine.finding import EngineError, find, named

_VARIABLE: Final = "IMAGEINVOKER_ENGINE"
EXPRESS: Final = "express"
"""The engine that some commands look into the database of."""

EngineName = Annotated[
    str | None,
    Parameter(
        name="--engine",
        env_var=_VARIABLE,
        help="By which engine the deployment server is reached, where its address does not begin "
        "with it, such as express:Driver=...; else express.",
    ),
]


class OtherEngineError(WrongUseError):
    """What is asked for can be done by the engine `express` only, and this is another."""


def deployment_server(file: Path | None, server: str | None, engine: str | None = None) -> str:
    """Where the deployment server answers, with the name of its engine before it.

    The engine is the one that is told, else IMAGEINVOKER_ENGINE says it; the rest comes from where
    `cli.target.database` has it.

    Raises:
        WrongUseError: no address is known, or there is no such engine.
    """
    text = ":".join(_found(file, server, engine))
    try:
        find(text)
    except EngineError as error:
        raise WrongUseError(f"{error}.") from error
    return text


def express_database(file: Path | None, server: str | None = None) -> str:
    """The ODBC connection string of the deployment server's database, from the same places.

    Raises:
        WrongUseError: none is known.
        OtherEngineError: the deployment server is none that the engine `express` reaches.
    """
    name, address = _found(file, server, None)
    if name != EXPRESS:
        raise OtherEngineError(
            f"This looks into an eXpress database, which the engine {EXPRESS!r} reaches; the "
            f"deployment server here is told to be reached by {name!r}."
        )
    return address


def _found(file: Path | None, server: str | None, engine: str | None) -> tuple[str, str]:
    text = database(file, server)
    running = running_site()
    if running and text == running.database:
        # Whatever is told of another deployment server, the embedded site has its own.
        return EXPRESS, text
    try:
        return named(text, engine or os.environ.get(_VARIABLE, "").strip() or None)
    except EngineError as error:
        raise WrongUseError(f"{error}.") from error
