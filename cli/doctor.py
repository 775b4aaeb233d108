"""`imageinvoker doctor`: checks a site, or a boot image, and names each cure."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import nats.errors
import pyodbc
from cyclopts import Parameter
from msgspec import Struct

from bus import hub, subjects
from bus.__about__ import __version__
from bus.access_store import AccessStore
from bus.connection import Connection
from bus.option_store import read_layers
from bus.options import DEFAULTS, PASSWORD, Options, assemble, in_force
from bus.presence import present
from bus.problems import Problem
from cli.engines import EXPRESS, deployment_server
from cli.expiries import expiring
from cli.fail import WRONG, WrongUseError
from cli.reaching import NotReachedError, reach
from cli.target import Address, Target, find
from engine.errors import EngineUnavailable
from engine.finding import EngineError, Found, named
from engine.finding import find as find_engine
from engine.menu_rows import Wanted
from engine.tree import JobTree
from express.connection import DatabaseUnavailable
from express.database import Database, Transaction
from express.jobs import read_folders
from express.schema import Finding, examine
from services.auth.accounts import Accounts

_SERVICES: Final[Mapping[str, Literal["warn", "fail"]]] = {
    "menu": "fail",
    "auth": "fail",
    "scheduler": "fail",
    "monitor": "warn",
}
"""The services of a site, and how bad it is if none of a kind is at work."""
_AT_THE_HUB: Final[Mapping[str, Literal["warn", "fail"]]] = {"monitor": "fail"}
_CONSUMERS: Final = 1_000
_LIMITED_SINCE: Final = (2, 15)
"""Consumers that NATS allows on a stream from this version on, unless told otherwise."""
_NEARLY_FULL: Final = 0.8
_ENOUGH: Final = 20_000
"""What `deploy/nats/nats.conf` allows."""
_COLOURS: Final = {"ok": "32", "warn": "33", "fail": "31"}

Area = Literal["bus", "services", "options", "database"]
Place = Area | Literal["image"]


class Checked(Struct, frozen=True, kw_only=True):
    """One thing that was looked at, and where it belongs."""

    area: Place
    finding: Finding


def doctor(
    *,
    target: Target | None = None,
    database_file: Path | None = None,
    only: Annotated[tuple[Area, ...], Parameter(negative="", show_default=False)] = (),
    image: Path | None = None,
    index: int | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check bus, services, options and database of a site; name what is wrong, and the cure.

    At the hub of an estate, which has no options and no deployment server of its own, bus and
    services. With --image a Windows PE image is looked at instead: is the client in it, which
    version, which server, how long may it come in, and does anything start it.

    Nothing is changed. The exit status is 1 if something must be mended.

    Examples:

        imageinvoker doctor

        IMAGEINVOKER_DATABASE='Driver=...' imageinvoker doctor --only database

        imageinvoker doctor --image boot.wim

    Parameters
    ----------
    database_file
        A file with the ODBC connection string of the deployment server's database. Else
        IMAGEINVOKER_DATABASE, else the embedded site's.
    only
        Look at this part alone; may be given several times.
    image
        A Windows PE image (.wim) to look into.
    index
        Which of the images in that file; else the one that boots.
    json
        For programs: a list of findings.
    """
    if image is not None:
        found = _examine_image(image, index)
    else:
        wanted = only or ("bus", "services", "options", "database")
        found = asyncio.run(_examine(target, database_file, wanted))
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        sys.stdout.write(_report(found))
    return WRONG if any(each.finding.state == "fail" for each in found) else 0


def _examine_image(file: Path, index: int | None) -> list[Checked]:
    # Only here: who looks at a site needs nothing of boot images.
    from boot.errors import ImageError  # noqa: PLC0415
    from boot.winpe_check import look_into  # noqa: PLC0415
    from boot.winpe_wim import read_wim  # noqa: PLC0415

    try:
        wim = read_wim(file)
        seen = look_into(wim, wim.index(index))
    except ImageError as error:
        finding = Finding(check="image", state="fail", text=error.cause, cure=error.cure)
        return [Checked(area="image", finding=finding)]
    return [
        Checked(
            area="image",
            finding=Finding(check=each.check, state=each.state, text=each.text, cure=each.cure),
        )
        for each in seen
    ]


async def _examine(
    target: Target | None, database_file: Path | None, wanted: tuple[Area, ...]
) -> list[Checked]:
    found: list[Checked] = []
    options: Options | None = DEFAULTS
    if {"bus", "services", "options"} & set(wanted):
        seen, options = await _examine_bus(target)
        found += seen
    if "database" in wanted and options:
        found += [
            Checked(area="database", finding=finding)
            for finding in await _examine_database(
                database_file, target.server if target else None, options
            )
        ]
    return [each for each in found if each.area in wanted]


async def _examine_bus(target: Target | None) -> tuple[list[Checked], Options | None]:
    """What was found, and the site's options; None at a hub, which is no site."""
    try:
        address = find(target)
    except WrongUseError as error:
        return [_bus("fail", "there is no address to look at", str(error))], DEFAULTS
    try:
        connection = await reach(address, "doctor")
    except NotReachedError as error:
        cause = error.cause[0].lower() + error.cause[1:].removesuffix(".")
        return [_bus("fail", cause, error.cure)], DEFAULTS
    try:
        version = connection.connected_server_version
        text = f"nats-server {version.major}.{version.minor}.{version.patch} at {address.server}"
        at_hub = await _is_hub(connection)
        stream = subjects.EVENTS if at_hub else subjects.REQUESTS
        found = [_bus("ok", text), await _examine_stream(connection, stream)]
        found += [_bus("warn", text, cure) for text, cure in expiring(connection)]
        found += await _examine_consumers(connection, (version.major, version.minor))
        if at_hub:
            found += await _examine_services(connection, subjects.ESTATE, _AT_THE_HUB)
            return found, None
        found += await _examine_services(connection, address.site, _SERVICES)
        seen, options = await _examine_options(connection, address)
        return found + seen, options
    finally:
        await connection.close()


async def _is_hub(connection: Connection) -> bool:
    try:
        return (await connection.jetstream().account_info()).domain == hub.DOMAIN
    except nats.errors.Error:
        return False


async def _examine_stream(connection: Connection, stream: str) -> Checked:
    try:
        await connection.jetstream().account_info()
        info = await connection.jetstream().stream_info(stream)
    except nats.errors.Error:
        cure = "Turn JetStream on in the server's configuration and start a service; it makes it."
        return _bus("fail", f"the stream {stream} is not there", cure)
    count = info.state.messages
    what = "requests waiting" if stream == subjects.REQUESTS else "events"
    return _bus("ok", f"{stream}: {count} {what}")


async def _examine_consumers(connection: Connection, version: tuple[int, int]) -> list[Checked]:
    """Whether there is room for more sites."""
    stream = connection.jetstream()
    try:
        account = (await stream.account_info()).limits.max_consumers
        fullest = max(await stream.streams_info(), key=lambda each: each.state.consumer_count)
    except (nats.errors.Error, ValueError):
        return []  # there is no stream, as is told already
    default = _CONSUMERS if version >= _LIMITED_SINCE else 0
    limit = max(0, fullest.config.max_consumers or 0) or max(0, account) or default
    count = fullest.state.consumer_count
    text = f"{fullest.config.name} has {count} consumers, most of all streams"
    # With more than it there is another limit, which no server tells.
    if not limit * _NEARLY_FULL <= count <= limit:
        return [_bus("ok", text)]
    cure = f"If not done: jetstream {{ limits {{ default_max_consumers: {_ENOUGH} }} }}"
    if limit != default:
        cure = f"Allow the stream or its account more, such as {_ENOUGH}."
    return [_bus("warn", f"{text}; it has room for {limit} unless the limit is lifted", cure)]


async def _examine_services(
    connection: Connection, site: str, wanted: Mapping[str, Literal["warn", "fail"]]
) -> list[Checked]:
    copies = await present(connection, site)
    found: list[Checked] = []
    for name, missing in wanted.items():
        versions = sorted(copy.version for copy in copies if copy.name == name)
        finding = Finding(
            check=name,
            state="ok" if versions else missing,
            text=f"{len(versions)} at work, {', '.join(sorted(set(versions)))}"
            if versions
            else f"none at work for site {site!r}",
            cure="" if versions else f"Start one: imageinvoker {name} {_which(site)}",
        )
        found.append(Checked(area="services", finding=finding))
    return found


def _which(site: str) -> str:
    return "--estate" if site == subjects.ESTATE else f"--site {site}"


async def _examine_options(
    connection: Connection, address: Address
) -> tuple[list[Checked], Options]:
    try:
        values = in_force(*await read_layers(connection, address.site))
    except (nats.errors.Error, TimeoutError):
        cure = "Start a service of the site; it makes the bucket."
        return [_options("fail", "the options cannot be read", cure)], DEFAULTS
    options, complaints = assemble(values)
    found = [
        _options("fail", complaint, "Set it anew: imageinvoker options set NAME VALUE")
        for complaint in complaints
    ]
    if options.protection == "hash" and PASSWORD not in values:
        cure = "Set it: imageinvoker options password"
        found.append(_options("fail", "there is no password, so nobody can sign in", cure))
    elif options.protection == "none":
        cure = "Set a password and `imageinvoker options set protection hash`."
        found.append(_options("warn", "whoever can start a PC can deploy it", cure))
    elif options.protection in {"server", "domain"}:
        found += await _examine_access(connection, address, options)
    if options.protection == "domain":
        found += await _examine_directory(options)
    found = found or [_options("ok", f"{len(values)} set, the others at their defaults")]
    return found, options


async def _examine_access(
    connection: Connection, address: Address, options: Options
) -> list[Checked]:
    found: list[Checked] = []
    try:
        kept = await (await AccessStore.open(connection, address.site)).read()
        accounts = await (await Accounts.open(connection, address.site)).everybody()
    except (nats.errors.Error, TimeoutError):
        cure = "Start a service of the site; it makes the buckets."
        return [_access("fail", "accounts and rules cannot be read", cure)]
    if options.protection == "server" and not accounts:
        cure = "Add one: imageinvoker account add NAME"
        found.append(_access("fail", "there are no accounts, so nobody can sign in", cure))
    if kept.unreadable:
        cure = "Remove them from the bucket, and make them anew: imageinvoker access allow|deny"
        text = f"{len(kept.unreadable)} access rules cannot be read, so none allows anything"
        found.append(_access("fail", text, cure))
    if not kept.rules:
        who = f"members of {options.administrators!r}" if options.administrators else "nobody"
        cure = "Allow something: imageinvoker access allow group:NAME Deploy/Staff"
        found.append(_access("warn", f"there are no access rules: {who} may deploy", cure))
    text = f"{len(kept.rules)} access rules"
    if options.protection == "server":
        text = f"{len(accounts)} accounts, {text}"
    return found or [_access("ok", text)]


async def _examine_directory(options: Options) -> list[Checked]:
    # Only here: a machine that runs no auth service may lack what talks to directories.
    from services.auth.directory import Directory  # noqa: PLC0415
    from services.auth.domain import settings_of  # noqa: PLC0415

    settings = settings_of(options)
    if settings is None:
        cure = "Name it: imageinvoker options set domain lab.example"
        return [_directory("fail", "no domain is set, so nobody can sign in", cure)]
    directory = Directory(settings)
    try:
        examined = await directory.examine()
    finally:
        directory.close()
    cure = (
        "Can this machine reach it, is its certificate for this name, and from the CA in the "
        "option domain_ca?"
    )
    found = [
        _directory("fail", f"{each.controller}: {each.trouble}", cure)
        if each.trouble
        else _directory("ok", each.controller)
        for each in examined
    ]
    if options.send_domain_passwords_in_clear_text:
        cure = "imageinvoker options set send_domain_passwords_in_clear_text no"
        found.append(_directory("warn", "passwords may go in clear text", cure))
    return found


async def _examine_database(
    file: Path | None, server: str | None, options: Options
) -> list[Finding]:
    try:
        name, dsn = named(deployment_server(file, server))
    except WrongUseError as error:
        return [Finding(check="connection", state="fail", text="none is known", cure=str(error))]
    if name != EXPRESS:
        return await _examine_engine(find_engine(f"{name}:{dsn}"), options)

    def look(transaction: Transaction) -> list[Finding]:
        findings = examine(transaction, options.new_computer_group)
        if options.root_folder is not None:
            folders = read_folders(transaction)
            tree = JobTree((), folders, options.tag, options.root_folder)
            findings.append(_root_folder(tree, options))
        return findings

    connected = Database(dsn, size=1)
    try:
        return await connected.transact(look)
    except DatabaseUnavailable as error:
        cure = "Is the server up, is the connection string right, may this user sign in?"
        return [Finding(check="connection", state="fail", text=error.reason, cure=cure)]
    except (Problem, pyodbc.Error) as error:
        cure = "May this user read the catalogue and the tables?"
        return [Finding(check="reading", state="fail", text=str(error), cure=cure)]
    finally:
        await connected.close()


async def _examine_engine(found: Found, options: Options) -> list[Finding]:
    """What every engine can tell; how it keeps jobs and computers is known to it alone."""
    check = f"engine {found.name}"
    try:
        engine = found.open("doctor")
    except EngineError as error:
        return [Finding(check=check, state="fail", text="it cannot be used", cure=f"{error}.")]
    try:
        rows = await engine.menu_rows(Wanted(options.tag))
    except Exception as error:  # noqa: BLE001 (whatever it is, the jobs cannot be read)
        text = error.reason if isinstance(error, EngineUnavailable) else str(error)
        cure = "Is the deployment server up, and is its address right?"
        return [Finding(check=check, state="fail", text=text, cure=cure)]
    finally:
        await engine.close()
    tree = JobTree(rows.jobs, rows.folders, options.tag, options.root_folder, rows.filled)
    text = f"answers, with {len(tree.items())} menu items; more is looked at by `express` only"
    findings = [Finding(check=check, state="ok", text=text, cure="")]
    return findings + ([_root_folder(tree, options)] if options.root_folder is not None else [])


def _root_folder(tree: JobTree, options: Options) -> Finding:
    if tree.root_found:
        return Finding(check="root folder", state="ok", text=str(options.root_folder))
    return Finding(
        check="root folder",
        state="fail",
        text=f"there is no single job folder {options.root_folder!r}, so every menu is empty",
        cure="Give another: imageinvoker options set root_folder Deploy/Staff (or an id, or none)",
    )


def _bus(state: Literal["ok", "warn", "fail"], text: str, cure: str = "") -> Checked:
    return Checked(area="bus", finding=Finding(check="bus", state=state, text=text, cure=cure))


def _options(state: Literal["ok", "warn", "fail"], text: str, cure: str = "") -> Checked:
    finding = Finding(check="options", state=state, text=text, cure=cure)
    return Checked(area="options", finding=finding)


def _access(state: Literal["ok", "warn", "fail"], text: str, cure: str = "") -> Checked:
    finding = Finding(check="access", state=state, text=text, cure=cure)
    return Checked(area="options", finding=finding)


def _directory(state: Literal["ok", "warn", "fail"], text: str, cure: str = "") -> Checked:
    finding = Finding(check="directory", state=state, text=text, cure=cure)
    return Checked(area="options", finding=finding)


def _report(found: list[Checked]) -> str:
    coloured = sys.stdout.isatty()
    lines = [f"imageinvoker {__version__}"]
    width = max((len(each.finding.check) for each in found), default=0)
    area = ""
    for each in found:
        if each.area != area:
            area = each.area
            lines += ["", area]
        finding = each.finding
        mark = f"{finding.state:<4}"
        if coloured:
            mark = f"\033[{_COLOURS[finding.state]}m{mark}\033[0m"
        lines.append(f"  {mark}  {finding.check:<{width}}  {finding.text}")
        if finding.cure:
            lines.append(f"        {'':<{width}}  -> {finding.cure}")
    wrong = sum(each.finding.state == "fail" for each in found)
    doubtful = sum(each.finding.state == "warn" for each in found)
    lines += ["", f"{len(found)} checked, {wrong} to be mended, {doubtful} worth a look"]
    return "\n".join(lines) + "\n"
