"""The command `imageinvoker`: each of its commands is imported only when it is called."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from bus.__about__ import __version__
from cli.fail import WRONG_USE, CommandError

_EXAMPLES = """
Deployment menus at the PC: a technician boots it, picks an item, names it, and walks away.

Examples:

    imageinvoker up                         run a whole site here, with a sample job tree

    imageinvoker client                     open the portal against it

    imageinvoker client --item "Disk wipe"  deploy without a question

    imageinvoker options set timeout 10     change an option, in force at once

    imageinvoker doctor                     check bus, services and database
"""


def make_app() -> App:
    """The command line with all of its commands."""
    app = App(
        name="imageinvoker",
        help=_EXAMPLES,
        help_format="markdown",
        version=__version__,
        version_flags=("--version",),
        result_action="return_value",
    )
    app.command("cli.up:up")
    app.command("cli.client:client")
    app.command("cli.demo:demo")
    for service in ("menu", "auth", "scheduler"):
        app.command(f"cli.services:{service}")
    app.command("cli.options:app", name="options")
    app.command("cli.doctor:doctor")
    app.command("cli.database:app", name="database")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens[:1] == ["client"]:
        # As menus of Windows PE have always called it.
        tokens = ["-t" if token.lower() == "/t" else token for token in tokens]
    try:
        status = make_app()(tokens, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(WRONG_USE)
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status)
