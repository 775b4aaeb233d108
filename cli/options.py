"""`imageinvoker options`: what an operator decides for a site, in force at once."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from bus import options, subjects
from bus.buckets import watch
from bus.connection import Connection
from bus.option_store import OptionStore
from bus.options import OptionError
from bus.texts import TEXTS
from cli.changes import record
from cli.fail import WrongUseError
from cli.old_options import read_old_options
from cli.running import talk
from cli.secret import read_password
from cli.target import Address, Target, find

app = App(
    name="options",
    help="Show and change the options of a site; every change is in force at once, everywhere.",
)

AsJson = Annotated[bool, Parameter(negative="")]

_CLEAR_TEXT: Final = "send_domain_passwords_in_clear_text"
_READ_TIMEOUT: Final = 5.0


@app.command
def show(
    name: str | None = None,
    *,
    target: Target | None = None,
    texts: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
) -> int:
    """Show the options in force, and what each is for.

    Examples:

        imageinvoker options show

        imageinvoker options show timeout

    Parameters
    ----------
    name
        Only this option.
    texts
        The texts of the portal too.
    json
        For programs: an object of names and values.
    """
    address = find(target)
    values = talk(address, lambda connection: _read(connection, address))
    current, complaints = options.assemble(values)
    rows = _rows(current, with_texts=texts or (name or "").startswith(options.TEXT_PREFIX))
    if name is not None:
        rows = {key: value for key, value in rows.items() if key == name}
        if not rows:
            raise WrongUseError(f"There is no option {name!r}.")
    if json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
    else:
        sys.stdout.write(_table(rows, values))
    for complaint in complaints:
        sys.stderr.write(f"cannot be used and is at its default: {complaint}\n")
    return 1 if complaints else 0


@app.command(name="set")
def set_(name: str, value: str, *, target: Target | None = None, json: AsJson = False) -> int:
    """Change one option.

    Examples:

        imageinvoker options set timeout 0

        imageinvoker options set root_folder Deploy/Staff

        imageinvoker options set text.countdown "Press i to deploy"

        imageinvoker options set domain lab.example

    Parameters
    ----------
    name
        Its name, as `options show` lists it.
    value
        Its value; yes and no for true and false, `none` for none, lists with commas.
    json
        For programs: an object of the name and the value.
    """
    address = find(target)
    parsed = _parsed(name, value)

    async def write(connection: Connection) -> None:
        store = await OptionStore.open(connection, address.site)
        values = await store.read()
        _require_sense(name, values | {name: parsed})
        await store.write(name, parsed)
        await _record(connection, address, name, values, values | {name: parsed})
        await _warn(connection, address, {name: parsed})

    talk(address, write)
    _tell({name: parsed}, address, as_json=json)
    return 0


@app.command
def reset(name: str, *, target: Target | None = None) -> int:
    """Put one option back to its default.

    Example: imageinvoker options reset text.countdown
    """
    address = find(target)
    if name not in options.names():
        raise WrongUseError(f"There is no option {name!r}.")

    async def write(connection: Connection) -> None:
        store = await OptionStore.open(connection, address.site)
        values = await store.read()
        if name in values:
            after = {key: value for key, value in values.items() if key != name}
            _require_sense(name, after)
            await store.reset(name)
            await _record(connection, address, name, values, after)

    talk(address, write)
    sys.stdout.write(f"{address.site}: {name} is at its default\n")
    return 0


@app.command
def password(*, target: Target | None = None) -> int:
    """Set the shared password, read from the terminal or standard input.

    Examples:

        imageinvoker options password

        pass show deployment | imageinvoker options password
    """
    address = find(target)
    secret = read_password("New password")
    # Only here: who shows an option should not need the packages that hash passwords.
    from argon2 import PasswordHasher  # noqa: PLC0415

    known = PasswordHasher().hash(secret)

    async def write(connection: Connection) -> None:
        store = await OptionStore.open(connection, address.site)
        await store.write(options.PASSWORD, known.encode())
        await record(connection, address.site, "option_changed", option="password")

    talk(address, write)
    sys.stdout.write(f"{address.site}: the password is set\n")
    return 0


@app.command(name="import")
def import_(file: Path, *, target: Target | None = None, json: AsJson = False) -> int:
    """Take over the options file of an old installation (menu_options.ini).

    What is understood is in force at once; what is not is named, and then the exit status is 1.

    Example: imageinvoker options import menu_options.ini

    Parameters
    ----------
    file
        The old installation's file.
    json
        For programs: an object of the names and values that were taken over.
    """
    address = find(target)
    try:
        old = read_old_options(file.read_bytes())
    except (OSError, ValueError) as error:
        raise WrongUseError(f"{file} cannot be taken over: {error}") from error

    taken: dict[str, bytes] = {}
    complaints = list(old.not_understood)

    async def write(connection: Connection) -> None:
        store = await OptionStore.open(connection, address.site)
        values = await store.read()
        # The password first: a protection without one would let nobody in.
        for name, value in sorted(old.values.items(), key=lambda pair: pair[0] != options.PASSWORD):
            after = values | {name: value}
            try:
                _require_sense(name, after)
            except WrongUseError as error:
                complaints.append(f"{name} = {_plain(value)}: {error}")
                continue
            await store.write(name, value)
            await _record(connection, address, name, values, after)
            taken[name] = value
            values = after
        await _warn(connection, address, taken)

    talk(address, write)
    shown = {name: value for name, value in taken.items() if name != options.PASSWORD}
    if options.PASSWORD in taken:
        shown["password"] = b'"taken over"'
    _tell(shown, address, as_json=json)
    for complaint in complaints:
        sys.stderr.write(f"not taken over: {complaint}\n")
    return 1 if complaints else 0


async def _read(connection: Connection, address: Address) -> dict[str, bytes]:
    return await (await OptionStore.open(connection, address.site)).read()


def _require_sense(name: str, after: Mapping[str, bytes]) -> None:
    """Refuses a change of an option after which nobody at all could sign in."""
    if name not in {"protection", "domain"}:
        return
    becomes = options.assemble(after)[0]
    if becomes.protection == "hash" and options.PASSWORD not in after:
        raise WrongUseError(
            "There is no password yet, so nobody could sign in: imageinvoker options password"
        )
    if becomes.protection == "domain" and becomes.domain is None:
        if name == "domain":
            raise WrongUseError(
                "With protection domain nobody could sign in without a domain; set another "
                "protection first: imageinvoker options set protection hash"
            )
        raise WrongUseError(
            "There is no domain yet, so nobody could sign in: "
            "imageinvoker options set domain lab.example"
        )


async def _record(
    connection: Connection,
    address: Address,
    name: str,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
) -> None:
    """Keeps the event of an option that was changed; a password's is only that it was."""
    if name == options.PASSWORD:
        await record(connection, address.site, "option_changed", option="password")
        return
    was, value = (
        _plain(msgspec.json.encode(_rows(options.assemble(values)[0], with_texts=True)[name]))
        for values in (before, after)
    )
    await record(connection, address.site, "option_changed", option=name, value=value, was=was)


async def _warn(connection: Connection, address: Address, changed: Mapping[str, bytes]) -> None:
    """Says on standard error what else a change needs, or what it opens."""
    if changed.get(_CLEAR_TEXT) == b"true":
        sys.stderr.write(
            "Domain controllers with ldap:// are now asked without TLS: whoever listens on the "
            f"network reads the passwords. Undo it: imageinvoker options reset {_CLEAR_TEXT}\n"
        )
    protection = changed.get("protection")
    if protection == b'"server"' and not await _any(connection, subjects.ACCOUNTS, address):
        sys.stderr.write(
            "There is no account yet, so nobody can sign in. Add one: "
            "imageinvoker account add NAME\n"
        )
    if protection in {b'"server"', b'"domain"'} and not await _any(
        connection, subjects.ACCESS, address
    ):
        sys.stderr.write(
            "There are no access rules yet, so only administrators see anything. Add one: "
            "imageinvoker access allow group:NAME Deploy/Staff\n"
        )


async def _any(connection: Connection, bucket: str, address: Address) -> bool:
    """Whether a bucket holds anything of the site."""
    states = watch(connection.jetstream(), bucket, address.site)
    async with asyncio.timeout(_READ_TIMEOUT), contextlib.aclosing(states):
        return bool(await anext(states))


def _parsed(name: str, value: str) -> bytes:
    try:
        return options.parse(name, value)
    except OptionError as error:
        raise WrongUseError(str(error)) from error


def _tell(values: dict[str, bytes], address: Address, *, as_json: bool) -> None:
    """Says what has been set; ``values`` are JSON."""
    if as_json:
        decoded = {name: msgspec.json.decode(value) for name, value in values.items()}
        sys.stdout.write(msgspec.json.encode(decoded).decode() + "\n")
        return
    for name, value in values.items():
        sys.stdout.write(f"{address.site}: {name} = {_plain(value)}\n")


def _rows(current: options.Options, *, with_texts: bool) -> dict[str, object]:
    fields = msgspec.to_builtins(current)
    text = fields.pop("text")
    if with_texts:
        fields |= {options.TEXT_PREFIX + key: value for key, value in (TEXTS | text).items()}
    return dict(fields)


def _table(rows: dict[str, object], set_values: dict[str, bytes]) -> str:
    shown = {name: _plain(msgspec.json.encode(value)) for name, value in rows.items()}
    width = max(map(len, shown))
    value_width = min(32, max(map(len, shown.values())))
    lines = [
        f"{name:<{width}}  {'*' if name in set_values else ' '} {value:<{value_width}}  "
        f"{options.meaning(name)}".rstrip()
        for name, value in shown.items()
    ]
    return "\n".join(lines) + "\n\n* set; the others are at their defaults\n"


def _plain(value: bytes) -> str:
    decoded = msgspec.json.decode(value)
    if decoded is None or decoded == []:
        return "none"
    if isinstance(decoded, list):
        return ", ".join(map(str, decoded))
    return decoded if isinstance(decoded, str) else value.decode()
