"""The command `imageinvoker`: each of its commands is imported only when it is called."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from bus.__about__ import __version__
from cli.fail import WRONG_USE, CommandError

_HELP = "Deployment menus at the PC: boot it, press a key, sign in, pick, name it, walk away."

_EXAMPLES = """
Examples:

    imageinvoker up                       run a whole site here
    imageinvoker client                   open the portal on it
    imageinvoker client --item Exam       deploy without a question
    imageinvoker options set timeout 10   change an option, in force at once
    imageinvoker doctor                   check bus, services and database
"""

_COMMANDS = {
    "up": ("cli.up:up", "Run a whole site in the foreground, for a trial, a lab or a small site."),
    "demo": ("cli.demo:demo", "Start a site with a sample job tree and open the portal on it."),
    "client": ("cli.client:client", "Open the portal on this machine, or deploy unattended."),
    "menu": ("cli.services:menu", "Run a copy of the menu service."),
    "auth": ("cli.services:auth", "Run a copy of the auth service."),
    "scheduler": ("cli.services:scheduler", "Run a copy of the scheduler."),
    "monitor": ("cli.monitor:monitor", "Run a copy of the monitor."),
    "options": ("cli.options:app", "Show and change the options of a site."),
    "account": ("cli.account:app", "Manage the site's own accounts, and lift locks."),
    "access": ("cli.access:app", "Say who may deploy what, and why."),
    "live": ("cli.live:live", "Show which machine is at which stage."),
    "stats": ("cli.stats:stats", "Show how many deployments there were, and how they went."),
    "requests": ("cli.requests:app", "See what was asked for, and replay what was rejected."),
    "events": ("cli.events:app", "Follow what happens at a site."),
    "audit": ("cli.audit:audit", "Show who did what, at which machine, and when."),
    "storm": ("cli.storm.command:storm", "Let thousands of made-up machines boot, and measure."),
    "database": ("cli.database:app", "Prepare the deployment server's database."),
    "pki": ("cli.pki:app", "Begin an estate; renew and revoke its certificates and credentials."),
    "site": ("cli.site:app", "Add sites to an estate, and see those that there are."),
    "boot": ("cli.boot:app", "Make boot images, and put the client into those that exist."),
    "doctor": ("cli.doctor:doctor", "Check a site; name what is wrong, and the cure."),
}


def make_app(called: str | None) -> App:
    """The command line; ``called`` is the one command whose own help may be asked for."""
    app = App(
        name="imageinvoker",
        help=_HELP,
        help_epilogue=None if called else _EXAMPLES,
        help_format="plaintext",
        version=__version__,
        version_flags=("--version",),
        result_action="return_value",
    )
    for position, (name, (place, summary)) in enumerate(_COMMANDS.items()):
        # A summary here stands instead of the command's whole help.
        about = None if name == called else summary
        app.command(place, name=name, help=about, sort_key=position)
    return app


def _as_menus_call(tokens: Sequence[str]) -> list[str]:
    """The client's arguments as menus of Windows PE have always written them.

    The last of several time-outs counts: one may stand in a menu, another where that is called.
    """
    words = ["-t" if token.lower() == "/t" else token for token in tokens]
    for at in [at for at, word in enumerate(words) if word in {"-t", "--timeout"}][-2::-1]:
        del words[at : at + 2]
    return words


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    called = next((token for token in tokens[:1] if not token.startswith("-")), None)
    if called is not None and called not in _COMMANDS:
        import difflib  # noqa: PLC0415 (every command would wait for it)

        near = difflib.get_close_matches(called, _COMMANDS, 1) or list(_COMMANDS)
        sys.stderr.write(f"There is no command {called!r}. Did you mean: {', '.join(near)}?\n")
        sys.exit(WRONG_USE)
    if called == "client":
        tokens = _as_menus_call(tokens)
    try:
        status = make_app(called)(tokens, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(WRONG_USE)
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.status)
    except ImportError as error:
        missing = error.__cause__ or error
        sys.stderr.write(
            f"`imageinvoker {called}` needs packages that are not installed here ({missing}); "
            f"pip install 'imageinvoker[site]' brings all of them.\n"
        )
        sys.exit(WRONG_USE)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status)
