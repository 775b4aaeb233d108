"""`imageinvoker account`: the site's own accounts, and the locks after too many failed sign-ins."""

import ipaddress
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import msgspec
from cyclopts import App, Parameter
from msgspec import Struct

from bus import subjects
from bus.connection import Connection
from bus.events import one_line
from bus.messages import Time
from bus.problems import Problem
from bus.technicians import folded
from cli.changes import record
from cli.fail import DONE, WRONG, CommandError, WrongUseError
from cli.running import talk
from cli.secret import read_password
from cli.target import Address, Target, find
from services.auth.accounts import (
    Account,
    AccountError,
    AccountExistsError,
    Accounts,
    BadAccountError,
    NoSuchAccountError,
    account_name,
    group_names,
    shown_name,
    technician_of,
)
from services.auth.lockout import Limits, Scope
from services.auth.tries import Lock, Tries

app = App(
    name="account",
    help="Manage the site's own accounts (protection `server`): who may sign in, and in which "
    "groups they are. Every change is in force at once.",
)

AsJson = Annotated[bool, Parameter(negative="")]

_SHORTEST_PASSWORD: Final = 8
"""Characters (NIST SP 800-63B-3, 5.1.1.2)."""
_HEADER: Final = ("NAME", "DISPLAY NAME", "GROUPS", "SINCE", "STATE")

_T = TypeVar("_T")
_Typed = TypeVar("_Typed")
_Meant = TypeVar("_Meant")


class Row(Struct, frozen=True, kw_only=True):
    """An account as it is shown; ``retry_after`` is in seconds, and set where it is locked."""

    name: str
    display_name: str | None
    groups: tuple[str, ...]
    created_at: Time
    retry_after: float | None
    in_force: bool


@app.command
def add(
    name: str,
    *,
    display_name: str | None = None,
    group: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    target: Target | None = None,
    json: AsJson = False,
) -> int:
    """Add an account; its password is read from the terminal or standard input.

    Examples:

        imageinvoker account add alice

        imageinvoker account add alice --display-name "Alice E." --group Staff

        pass show alice | imageinvoker account add alice

    Parameters
    ----------
    name
        What is typed to sign in; upper and lower case do not matter.
    display_name
        The name that is shown.
    group
        A group it is in; said once for each group.
    json
        For programs: an object of the account.
    """
    address = find(target)
    name, shown = _checked(account_name, name), _checked(shown_name, display_name)
    groups = _checked(group_names, group)
    # Before anybody types a password in vain.
    _talk(address, lambda accounts, _: _require_none(accounts, name))
    account = Account(
        name=name,
        password_hash=_new_password(name),
        display_name=shown,
        created_at=datetime.now(UTC),
    )

    async def work(accounts: Accounts, connection: Connection) -> Account:
        added = await accounts.add(account, groups)
        await _record(connection, address, added.name, "added", added.groups)
        return added

    added = _talk(address, work)
    _tell(
        f"{address.site}: account {added.name} is added"
        + (f", in {', '.join(added.groups)}" if added.groups else ""),
        {
            "name": added.name,
            "display_name": added.display_name,
            "groups": added.groups,
            "created_at": added.created_at,
        },
        as_json=json,
    )
    return DONE


@app.command
def remove(name: str, *, target: Target | None = None, json: AsJson = False) -> int:
    """Remove an account; whoever is signed in with it is out at once.

    Example: imageinvoker account remove alice

    Parameters
    ----------
    name
        The account.
    json
        For programs: an object of its name.
    """
    address = find(target)

    async def work(accounts: Accounts, connection: Connection) -> Account:
        removed = await accounts.remove(name)
        await _record(connection, address, removed.name, "removed", removed.groups)
        return removed

    removed = _talk(address, work)
    _tell(
        f"{address.site}: account {removed.name} is removed", {"name": removed.name}, as_json=json
    )
    return DONE


@app.command
def password(name: str, *, target: Target | None = None, json: AsJson = False) -> int:
    """Set an account's password, read from the terminal or standard input.

    Whoever is signed in with the old one is out at once.

    Examples:

        imageinvoker account password alice

        pass show alice | imageinvoker account password alice

    Parameters
    ----------
    name
        The account.
    json
        For programs: an object of its name.
    """
    address = find(target)
    _talk(address, lambda accounts, _: _require(accounts, name))
    known = _new_password(name)

    async def work(accounts: Accounts, connection: Connection) -> Account:
        account = await accounts.set_password(name, known)
        await _record(connection, address, account.name, "password", ())
        return account

    changed = _talk(address, work)
    _tell(
        f"{address.site}: the password of {changed.name} is set",
        {"name": changed.name},
        as_json=json,
    )
    return DONE


@app.command(name="list")
def list_(*, target: Target | None = None, json: AsJson = False) -> int:
    """List the accounts, and everything that is locked.

    Example: imageinvoker account list

    Parameters
    ----------
    json
        For programs: an object of `accounts` and `locked`, a list each; times in seconds.
    """
    address = find(target)

    async def work(accounts: Accounts, connection: Connection) -> tuple[list[Row], list[Lock]]:
        locks = await (await _tries(connection, address)).locked()
        waits = {folded(lock.name): lock.retry_after for lock in locks if lock.scope == "account"}
        rows = [
            Row(
                name=account.name,
                display_name=account.display_name,
                groups=account.groups,
                created_at=account.created_at,
                retry_after=waits.get(folded(account.name)),
                in_force=technician == technician_of(account),
            )
            for account, technician in await accounts.everybody()
        ]
        return rows, locks

    rows, locks = _talk(address, work)
    if json:
        sys.stdout.write(msgspec.json.encode({"accounts": rows, "locked": locks}).decode() + "\n")
    else:
        sys.stdout.write(_table(rows, address) + _others(rows, locks))
    return DONE


@app.command
def join(name: str, *group: str, target: Target | None = None, json: AsJson = False) -> int:
    """Put an account into groups.

    Example: imageinvoker account join alice Staff "Exam Team"

    Parameters
    ----------
    name
        The account.
    group
        The groups; they need not exist.
    json
        For programs: an object of its name and the groups that are new to it.
    """
    address = find(target)
    groups = _some_groups(group)

    async def work(accounts: Accounts, connection: Connection) -> tuple[Account, tuple[str, ...]]:
        account, joined = await accounts.join(name, groups)
        if joined:
            await _record(connection, address, account.name, "joined", joined)
        return account, joined

    account, joined = _talk(address, work)
    said = f"has joined {', '.join(joined)}" if joined else f"was in {', '.join(groups)} already"
    _tell(
        f"{address.site}: {account.name} {said}",
        {"name": account.name, "groups": joined},
        as_json=json,
    )
    return DONE


@app.command
def leave(name: str, *group: str, target: Target | None = None, json: AsJson = False) -> int:
    """Take an account out of groups; what they allow is taken away at once.

    The exit status is 1 if it was not in all of them.

    Example: imageinvoker account leave alice "Exam Team"

    Parameters
    ----------
    name
        The account.
    group
        The groups.
    json
        For programs: an object of its name and the groups it was in.
    """
    address = find(target)
    groups = _some_groups(group)

    async def work(accounts: Accounts, connection: Connection) -> tuple[Account, tuple[str, ...]]:
        account, left = await accounts.leave(name, groups)
        if left:
            await _record(connection, address, account.name, "left", left)
        return account, left

    account, left = _talk(address, work)
    said = f"has left {', '.join(left)}" if left else "has left no group"
    _tell(
        f"{address.site}: {account.name} {said}",
        {"name": account.name, "groups": left},
        as_json=json,
    )
    strange = set(map(folded, groups)) - set(map(folded, left))
    for group_name in groups:
        if folded(group_name) in strange:
            sys.stderr.write(f"{account.name} was not in {group_name}\n")
    return WRONG if strange else DONE


@app.command
def unlock(
    name: str | None = None,
    *,
    machine: str | None = None,
    network_address: Annotated[str | None, Parameter(name="--address")] = None,
    target: Target | None = None,
    json: AsJson = False,
) -> int:
    """Lift a lock, and forget the failed sign-ins that led to it.

    The exit status is 1 if there was none.

    Examples:

        imageinvoker account unlock alice

        imageinvoker account unlock --machine 4c4c4544004235108052b4c04f4d3132

        imageinvoker account unlock --address 192.0.2.17

    Parameters
    ----------
    name
        An account, as `account list` names it; one of a directory too.
    machine
        A machine's key instead, as `account list` and the audit name it.
    network_address
        A network address instead.
    json
        For programs: an object of what it is, its name, and whether it was locked.
    """
    address = find(target)
    scope, locked = _one_of(name, machine, network_address)

    async def work(_: Accounts, connection: Connection) -> bool:
        lifted = await (await _tries(connection, address)).unlock(scope, locked)
        if lifted:
            await record(connection, address.site, "login_unlocked", scope=scope, name=locked)
        return lifted

    lifted = _talk(address, work)
    _tell(
        f"{address.site}: {scope} {locked} {'is unlocked' if lifted else 'was not locked'}",
        {"scope": scope, "name": locked, "unlocked": lifted},
        as_json=json,
    )
    return DONE if lifted else WRONG


def _talk(address: Address, work: Callable[[Accounts, Connection], Awaitable[_T]]) -> _T:
    """Does ``work`` with the accounts of a site."""

    async def with_accounts(connection: Connection) -> _T:
        return await work(await Accounts.open(connection, address.site), connection)

    try:
        return talk(address, with_accounts)
    except BadAccountError as error:
        raise WrongUseError(str(error)) from error
    except AccountError as error:
        raise CommandError(str(error)) from error
    except Problem as problem:
        raise WrongUseError(problem.message) from problem


async def _tries(connection: Connection, address: Address) -> Tries:
    bucket = await connection.jetstream().key_value(subjects.TRIES)
    return Tries(bucket, address.site, Limits)


async def _require_none(accounts: Accounts, name: str) -> None:
    account = await accounts.find(name)
    if account:
        # It may have been added by this very command, which was cut off then.
        await accounts.put_in_force(name)
        raise AccountExistsError(account.name)


async def _require(accounts: Accounts, name: str) -> None:
    if not await accounts.find(name):
        raise NoSuchAccountError(name)


async def _record(
    connection: Connection, address: Address, name: str, change: str, groups: tuple[str, ...]
) -> None:
    await record(
        connection,
        address.site,
        "account_changed",
        account=name,
        change=change,
        groups=list(groups),
    )


def _checked(rule: Callable[[_Typed], _Meant], typed: _Typed) -> _Meant:
    try:
        return rule(typed)
    except BadAccountError as error:
        raise WrongUseError(str(error)) from error


def _some_groups(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise WrongUseError("Which groups? Name one at least.")
    return _checked(group_names, names)


def _new_password(name: str) -> str:
    """The hash of a new password."""
    secret = read_password(f"New password of {name}", shortest=_SHORTEST_PASSWORD)
    # Only here: who lists accounts should not need the packages that hash passwords.
    from argon2 import PasswordHasher  # noqa: PLC0415

    return PasswordHasher().hash(secret)


def _one_of(name: str | None, machine: str | None, network: str | None) -> tuple[Scope, str]:
    told: list[tuple[Scope, str | None]] = [
        ("account", name), ("machine", machine), ("address", network),
    ]  # fmt: skip
    given = [(scope, text.strip()) for scope, text in told if text is not None]
    if len(given) != 1:
        raise WrongUseError("Unlock what? One of NAME, --machine KEY and --address ADDRESS.")
    scope, text = given[0]
    if scope == "machine":
        return scope, text.lower()
    if scope == "address":
        try:
            return scope, str(ipaddress.ip_address(text))
        except ValueError as error:
            raise WrongUseError(f"{text!r} is no network address (192.0.2.17).") from error
    if not text or not text.isprintable():
        raise WrongUseError(f"{text!r} is no account's name.")
    return scope, text


def _tell(line: str, values: dict[str, object], *, as_json: bool) -> None:
    sys.stdout.write((msgspec.json.encode(values).decode() if as_json else line) + "\n")


def _table(rows: list[Row], address: Address) -> str:
    if not rows:
        return f"{address.site} has no accounts of its own: imageinvoker account add NAME\n"
    cells = [_HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    state = "" if row.retry_after is None else f"locked for {row.retry_after:.0f} s"
    if not row.in_force:
        state = "not in force: a command was cut off; repeat it"
    return (
        row.name,
        row.display_name or "",
        ", ".join(row.groups),
        f"{row.created_at:%Y-%m-%d}",
        state,
    )


def _others(rows: list[Row], locks: list[Lock]) -> str:
    """The locks that no account of the site shows; their names are whatever somebody typed."""
    shown = {folded(row.name) for row in rows}
    lines = [
        f"{lock.scope} {one_line(lock.name)} is locked for {lock.retry_after:.0f} s\n"
        for lock in locks
        if lock.scope != "account" or folded(lock.name) not in shown
    ]
    return "\n" + "".join(lines) if lines else ""
