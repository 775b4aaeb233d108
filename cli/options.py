"""`imageinvoker options`: what an operator decides for a site, in force at once."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from cyclopts import App, Parameter

from bus import options, subjects
from bus.buckets import watch
from bus.connection import Connection
from bus.option_store import OptionStore, read_layers
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


@Parameter(name="*")
@dataclass(frozen=True)
class Whose:
    """Whose options are meant, at the hub of an estate.

    Parameters
    ----------
    estate
        Those of all sites: a site that has set an option itself goes by its own.
    enforced
        Those of all sites, whatever a site has set itself.
    """

    estate: Annotated[bool, Parameter(negative="")] = False
    enforced: Annotated[bool, Parameter(negative="")] = False

    @property
    def layer(self) -> str | None:
        """The layer of the estate's options that is meant, if one is."""
        if self.enforced:
            return options.ENFORCED
        return options.DEFAULT if self.estate else None


class Place(NamedTuple):
    """Where options are changed: the store, and the site of whom it is told."""

    store: OptionStore
    site: str
    estate: Mapping[str, bytes]
    """What the estate has set besides."""

    async def read(self) -> dict[str, bytes]:
        """What is set there."""
        return await self.store.read()

    def in_force(self, own: Mapping[str, bytes]) -> dict[str, bytes]:
        """What holds there with these."""
        return options.in_force(own, self.estate)


async def _place(connection: Connection, address: Address, whose: Whose | None) -> Place:
    layer = whose.layer if whose else None
    _, estate = await read_layers(connection, address.site)
    if layer is None:
        return Place(await OptionStore.open(connection, address.site), address.site, estate)
    others = {key: value for key, value in estate.items() if not key.startswith(f"{layer}.")}
    return Place(await OptionStore.of_estate(connection, layer), subjects.ESTATE, others)


_CLEAR_TEXT: Final = "send_domain_passwords_in_clear_text"
_READ_TIMEOUT: Final = 5.0


@app.command
def show(
    name: str | None = None,
    *,
    target: Target | None = None,
    whose: Whose | None = None,
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
    own, estate = talk(address, lambda connection: _read(connection, address, whose))
    current, complaints = options.assemble(options.in_force(own, estate))
    rows = _rows(current, with_texts=texts or (name or "").startswith(options.TEXT_PREFIX))
    if name is not None:
        rows = {key: value for key, value in rows.items() if key == name}
        if not rows:
            raise WrongUseError(f"There is no option {name!r}.")
    if json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
    else:
        sys.stdout.write(_table(rows, own, estate, whose.layer if whose else None))
    for complaint in complaints:
        sys.stderr.write(f"cannot be used and is at its default: {complaint}\n")
    return 1 if complaints else 0


@app.command(name="set")
def set_(
    name: str,
    value: str,
    *,
    target: Target | None = None,
    whose: Whose | None = None,
    json: AsJson = False,
) -> int:
    """Change one option.

    Examples:

        imageinvoker options set timeout 0

        imageinvoker options set root_folder Deploy/Staff

        imageinvoker options set text.countdown "Press i to deploy"

        imageinvoker options set domain lab.example

        imageinvoker options set protection domain --enforced --server tls://hub:4222

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

    async def write(connection: Connection) -> str:
        place = await _place(connection, address, whose)
        values = await place.read()
        after = values | {name: parsed}
        _require_sense(name, place.in_force(after))
        await place.store.write(name, parsed)
        await _record(connection, place, name, values, after)
        await _warn(connection, place, {name: parsed})
        return place.site

    site = talk(address, write)
    _tell({name: parsed}, site, as_json=json)
    return 0


@app.command
def reset(name: str, *, target: Target | None = None, whose: Whose | None = None) -> int:
    """Put one option back to its default.

    Example: imageinvoker options reset text.countdown
    """
    address = find(target)
    if name not in options.names():
        raise WrongUseError(f"There is no option {name!r}.")

    async def write(connection: Connection) -> Place:
        place = await _place(connection, address, whose)
        values = await place.read()
        if name in values:
            after = {key: value for key, value in values.items() if key != name}
            _require_sense(name, place.in_force(after))
            await place.store.reset(name)
            await _record(connection, place, name, values, after)
        return place

    place = talk(address, write)
    now = "what the estate says" if name in place.in_force({}) else "at its default"
    sys.stdout.write(f"{place.site}: {name} is {now}\n")
    return 0


@app.command
def password(*, target: Target | None = None, whose: Whose | None = None) -> int:
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

    async def write(connection: Connection) -> str:
        place = await _place(connection, address, whose)
        await place.store.write(options.PASSWORD, known.encode())
        await record(connection, place.site, "option_changed", option="password")
        return place.site

    site = talk(address, write)
    sys.stdout.write(f"{site}: the password is set\n")
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
        place = await _place(connection, address, None)
        values = await place.read()
        # The password first: a protection without one would let nobody in.
        for name, value in sorted(old.values.items(), key=lambda pair: pair[0] != options.PASSWORD):
            after = values | {name: value}
            try:
                _require_sense(name, place.in_force(after))
            except WrongUseError as error:
                complaints.append(f"{name} = {_plain(value)}: {error}")
                continue
            await place.store.write(name, value)
            await _record(connection, place, name, values, after)
            taken[name] = value
            values = after
        await _warn(connection, place, taken)

    talk(address, write)
    shown = {name: value for name, value in taken.items() if name != options.PASSWORD}
    if options.PASSWORD in taken:
        shown["password"] = b'"taken over"'
    _tell(shown, address.site, as_json=json)
    for complaint in complaints:
        sys.stderr.write(f"not taken over: {complaint}\n")
    return 1 if complaints else 0


async def _read(
    connection: Connection, address: Address, whose: Whose | None
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What is set there, and by the estate around it."""
    if whose and whose.layer:
        return await (await OptionStore.of_estate(connection, whose.layer)).read(), {}
    return await read_layers(connection, address.site)


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
    place: Place,
    name: str,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
) -> None:
    """Keeps the event of an option that was changed; a password's is only that it was."""
    if name == options.PASSWORD:
        await record(connection, place.site, "option_changed", option="password")
        return
    was, value = (
        _plain(msgspec.json.encode(_rows(options.assemble(values)[0], with_texts=True)[name]))
        for values in map(place.in_force, (before, after))
    )
    await record(connection, place.site, "option_changed", option=name, value=value, was=was)


async def _warn(connection: Connection, place: Place, changed: Mapping[str, bytes]) -> None:
    """Says on standard error what else a change needs, what it opens, or that it is of no use."""
    for name in changed:
        if f"{options.ENFORCED}.{name}" in place.estate:
            sys.stderr.write(
                f"{name} is enforced by the estate, so what is said here does not count; see "
                "there: imageinvoker options show --enforced --server HUB\n"
            )
    if changed.get(_CLEAR_TEXT) == b"true":
        sys.stderr.write(
            "Domain controllers with ldap:// are now asked without TLS: whoever listens on the "
            f"network reads the passwords. Undo it: imageinvoker options reset {_CLEAR_TEXT}\n"
        )
    protection = None if place.site == subjects.ESTATE else changed.get("protection")
    if protection == b'"server"' and not await _any(connection, subjects.ACCOUNTS, place):
        sys.stderr.write(
            "There is no account yet, so nobody can sign in. Add one: "
            "imageinvoker account add NAME\n"
        )
    if protection in {b'"server"', b'"domain"'} and not await _any(
        connection, subjects.ACCESS, place
    ):
        sys.stderr.write(
            "There are no access rules yet, so only administrators see anything. Add one: "
            "imageinvoker access allow group:NAME Deploy/Staff\n"
        )


async def _any(connection: Connection, bucket: str, place: Place) -> bool:
    """Whether a bucket holds anything of the site."""
    states = watch(connection.jetstream(), bucket, place.site)
    async with asyncio.timeout(_READ_TIMEOUT), contextlib.aclosing(states):
        return bool(await anext(states))


def _parsed(name: str, value: str) -> bytes:
    try:
        return options.parse(name, value)
    except OptionError as error:
        raise WrongUseError(str(error)) from error


def _tell(values: dict[str, bytes], site: str, *, as_json: bool) -> None:
    """Says what has been set; ``values`` are JSON."""
    if as_json:
        decoded = {name: msgspec.json.decode(value) for name, value in values.items()}
        sys.stdout.write(msgspec.json.encode(decoded).decode() + "\n")
        return
    for name, value in values.items():
        sys.stdout.write(f"{site}: {name} = {_plain(value)}\n")


def _rows(current: options.Options, *, with_texts: bool) -> dict[str, object]:
    fields = msgspec.to_builtins(current)
    text = fields.pop("text")
    if with_texts:
        fields |= {options.TEXT_PREFIX + key: value for key, value in (TEXTS | text).items()}
    return dict(fields)


def _table(
    rows: dict[str, object],
    own: Mapping[str, bytes],
    estate: Mapping[str, bytes],
    layer: str | None,
) -> str:
    shown = {name: _plain(msgspec.json.encode(value)) for name, value in rows.items()}
    width = max(map(len, shown))
    value_width = min(32, max(map(len, shown.values())))
    lines = [
        f"{name:<{width}}  {_mark(name, own, estate)} {value:<{value_width}}  "
        f"{options.meaning(name)}".rstrip()
        for name, value in shown.items()
    ]
    return "\n".join(lines) + f"\n\n{_legend(layer, among_others=bool(estate))}\n"


def _legend(layer: str | None, *, among_others: bool) -> str:
    if layer == options.ENFORCED:
        return "* set for all sites, whatever they say; nothing is said here of the others"
    if layer:
        return "* set for all sites that say nothing; nothing is said here of the others"
    of_estate = "e the estate's, since nothing is set here; ! enforced by the estate; "
    return f"* set; {of_estate if among_others else ''}the others are at their defaults"


def _mark(name: str, own: Mapping[str, bytes], estate: Mapping[str, bytes]) -> str:
    """Who has set an option, as one character."""
    if f"{options.ENFORCED}.{name}" in estate:
        return "!"
    if name in own:
        return "*"
    return "e" if f"{options.DEFAULT}.{name}" in estate else " "


def _plain(value: bytes) -> str:
    decoded = msgspec.json.decode(value)
    if decoded is None or decoded == []:
        return "none"
    if isinstance(decoded, list):
        return ", ".join(map(str, decoded))
    return decoded if isinstance(decoded, str) else value.decode()
