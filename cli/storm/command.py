"""`imageinvoker storm`: the arguments, the question whether it is meant, and the parts together."""

import gc
import importlib.util
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number

from bus.messages import encode
from bus.problems import Problem
from cli.embedded import running_site
from cli.engines import OtherEngineError, express_database
from cli.fail import DONE, WRONG, CommandError, WrongUseError
from cli.secret import read_password
from cli.storm.course import AT_REST, Plan, greet, run
from cli.storm.descriptors import allow_connections
from cli.storm.machines import MOST, Fleet
from cli.storm.results import told
from cli.target import Address, Target, find
from client.settings import shown
from services import logs

_YOUNG = 20_000
"""New objects after which Python looks for garbage among them."""
_INTERRUPTED = 130
_LONGEST = 86_400


def storm(
    *,
    machines: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST))],
    within: Annotated[float, Parameter(validator=Number(gte=0, lte=_LONGEST))] = 60.0,
    item: str | None = None,
    user: str | None = None,
    known: Annotated[bool, Parameter(negative="")] = False,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    prefix: str = "STORM",
    at_once: Annotated[int, Parameter(validator=Number(gte=1))] = 2000,
    give_up: Annotated[float, Parameter(validator=Number(gt=0, lte=_LONGEST))] = 600.0,
    metrics: Annotated[
        tuple[str, ...], Parameter(negative="", show_default=False, consume_multiple=True)
    ] = (),
    database_file: Path | None = None,
    probe: Annotated[bool, Parameter(negative="")] = False,
    target: Target | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    report: Path | None = None,
) -> int:
    """Let made-up machines boot and go through the portal, all of them, and measure the site.

    Each connects, is welcomed, signs in where the site is protected, sees the menu, has an item
    scheduled and waits for the outcome. THE JOBS ARE REAL: unknown machines get computers, and all
    of them get the item's jobs. So take a site for tests, or an item that does no harm.

    A site that asks for a password gets it from the terminal or standard input.

    Exit status: 0 every machine got its jobs exactly once, 1 something failed, 2 wrong use, 4 no
    server, 130 ended by Ctrl-C; the figures are told then, too.

    Examples:

        imageinvoker storm --machines 500 --within 30

        imageinvoker storm --machines 10000 --item "Memory test" --yes --report storm.html

        pass show site | imageinvoker storm --machines 1000 --known --seed 7 --yes --json

    Parameters
    ----------
    machines
        How many machines boot.
    within
        Seconds within which they arrive, spread evenly with jitter.
    item
        What each deploys: an id (job:2000112, folder:17) or a title; else the menu's first item.
    user
        Who signs in, where the site asks for a name.
    known
        Take the machines of an earlier storm with the same seed, which have computers by now.
    seed
        Makes the machines and the times of their arrival; else one by chance, which is told.
    prefix
        The names of new computers begin with it.
    at_once
        Machines on their way at a time; who arrives then has to wait.
    give_up
        Seconds after which the storm ends, whoever is still on the way.
    metrics
        Where services tell of themselves: http://HOST:PORT/metrics; else those of the embedded
        site.
    database_file
        A file with the ODBC connection string of the deployment server's database, to look there
        whether all jobs are there once. Else IMAGEINVOKER_DATABASE, else the embedded site's.
    probe
        Make a menu item of its own in that database meanwhile, give it other names, and tell how
        long it takes until menus show them; it is removed in the end.
    yes
        Do not ask whether it is meant.
    json
        For programs: an object of all figures; times in seconds.
    report
        Write a report with plots, one HTML file.
    """
    address = find(target)
    fleet = Fleet(secrets.randbelow(10**6) if seed is None else seed, prefix)
    try:
        fleet.check(AT_REST + machines)
    except Problem as problem:
        raise WrongUseError(
            f"--prefix {prefix!r} with {machines} machines gives no names: {problem.message}"
        ) from problem
    if report:
        _require_report(report)
    dsn = _database(database_file, address)
    if probe and dsn is None:
        raise WrongUseError(
            "--probe needs the deployment server's database: --database-file, or "
            "IMAGEINVOKER_DATABASE."
        )
    allow_connections(min(at_once, machines))
    plan = Plan(
        address=address,
        machines=machines,
        within=within,
        at_once=at_once,
        give_up=give_up,
        fleet=fleet,
        known=known,
        item=item,
        username=user,
        metrics=metrics or _embedded_metrics(address),
        database=dsn,
        probe=probe,
        command=_command(address),
    )
    # What is logged on the way belongs on standard error, beside the figures.
    logs.configure()
    protection = uvloop.run(greet(plan))
    if protection in {"server", "domain"} and not user:
        raise WrongUseError(f"The site asks who signs in ({protection}): say --user NAME.")
    if not yes:
        _require_consent(plan)
    password = "" if protection == "none" else read_password(f"Password of site {address.site}")
    # Thousands of journeys at once are no garbage, and to look through them takes its time.
    gc.freeze()
    gc.set_threshold(_YOUNG)
    result = uvloop.run(run(plan, protection, password))
    sys.stdout.write(encode(result).decode() + "\n" if json else told(result))
    sys.stdout.flush()
    if report:
        from cli.storm.report import write  # noqa: PLC0415 (it takes a second, and an extra)

        try:
            write(result, report)
        except OSError as error:
            raise CommandError(f"{report} cannot be written: {error.strerror}") from error
    if result.ended == "interrupted":
        return _INTERRUPTED
    return DONE if result.well else WRONG


def _require_report(report: Path) -> None:
    """Raises:
    WrongUseError: no report could be written in the end.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise WrongUseError(
            "--report draws with matplotlib, which is not installed: "
            "pip install 'imageinvoker[storm]'"
        )
    if not report.parent.is_dir():
        raise WrongUseError(f"--report: there is no folder {report.parent}.")


def _database(file: Path | None, address: Address) -> str | None:
    try:
        return express_database(file, address.server)
    except OtherEngineError as error:
        sys.stderr.write(f"{error} The reckoning goes by what the machines are told.\n")
        return None
    except WrongUseError:
        if file is not None:
            raise
        sys.stderr.write(
            "No database is known (--database-file, IMAGEINVOKER_DATABASE): the reckoning goes by "
            "what the machines are told.\n"
        )
        return None


def _embedded_metrics(address: Address) -> tuple[str, ...]:
    running = running_site()
    here = running is not None and running.nats_url == address.server
    return tuple(running.metrics.values()) if running and here else ()


def _command(address: Address) -> str:
    words = [word.replace(address.server, shown(address.server)) for word in sys.argv[1:]]
    return shlex.join(["imageinvoker", *words])


def _require_consent(plan: Plan) -> None:
    """Asks at a terminal whether it is meant.

    Raises:
        WrongUseError: nobody can be asked, or it is not.
    """
    whom = "computers of an earlier storm" if plan.known else "new computers"
    what = (
        f"{AT_REST + plan.machines} machines will have jobs scheduled for {whom} at site "
        f"{plan.address.site} ({shown(plan.address.server)})"
    )
    if not sys.stdin.isatty():
        raise WrongUseError(f"{what}: say --yes if that is meant.")
    sys.stderr.write(f"{what}.\nGo on? Type yes: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise WrongUseError("Nothing was done.")
