"""`imageinvoker access`: who may deploy what, and why."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import nats.js.errors
from cyclopts import App, Parameter

from bus import subjects
from bus.access import EVERYTHING, Effect, Judge, Rule, make_rule
from bus.access_store import AccessStore, KeptRules
from bus.connection import Connection
from bus.messages import encode
from bus.option_store import read_layers
from bus.options import Options, assemble, in_force
from bus.technicians import Technician, folded, technician_decoder, technician_key
from cli.changes import record
from cli.deployable import (
    Deployable,
    NoDatabaseError,
    Source,
    asked,
    find_folder,
    read_names,
    told_target,
)
from cli.explanation import Explanation, Named, because, named, table, text, unknown
from cli.fail import DONE, WRONG, WrongUseError
from cli.running import talk
from cli.target import Address, Target, find
from engine.menu_rows import Wanted
from engine.protocol import JobTrees
from engine.rights import explain as explain_items
from engine.tree import JobTree, natural_key

app = App(
    name="access",
    help="Say who may deploy what (protection `server` or `domain`). The rule nearest to a job "
    "wins: on the job, on its folder, on the folder above, on all; on one level deny wins; nothing "
    "said means no. Every change is in force at once.",
)

AsJson = Annotated[bool, Parameter(negative="")]

_SAID: Final = {"allow": "may deploy", "deny": "may not deploy"}


@app.command(name="list")
def list_(
    *, target: Target | None = None, database_file: Path | None = None, json: AsJson = False
) -> int:
    """Show the access rules.

    Parameters
    ----------
    database_file
        A file with the address of the deployment server, such as its database's ODBC connection
        string, which knows the names of folders and jobs. Else IMAGEINVOKER_DATABASE, else the
        embedded site's.
    json
        For programs: a list of rules.
    """
    address = find(target)
    source = Source(database_file, address.server, address.site)

    async def look(connection: Connection) -> tuple[KeptRules, Deployable | None]:
        kept = await (await AccessStore.open(connection, address.site)).read()
        options = await _options(connection, address)
        return kept, await _names(source, options, kept.rules)

    kept, names = talk(address, look)
    rows = [named(rule, names) for rule in sorted(kept.rules, key=_order)]
    if json:
        sys.stdout.write(encode(rows).decode() + "\n")
    elif rows:
        gone = "" if names is None else "does not exist any more"
        cells = [(row.who, row.effect, row.what, row.name or gone) for row in rows]
        sys.stdout.write(table([("WHO", "EFFECT", "WHAT", "NAME"), *cells]))
    elif not kept.unreadable:
        sys.stderr.write(
            "There are no access rules: with protection server or domain only administrators see "
            "anything.\n"
        )
    _complain(kept, address)
    return WRONG if kept.unreadable else DONE


@app.command
def allow(
    *who_and_what: str,
    target: Target | None = None,
    database_file: Path | None = None,
    json: AsJson = False,
) -> int:
    """Let somebody deploy something; a rule that denied the same is replaced.

    Examples:

        imageinvoker access allow group:Helpdesk Deploy/Staff

        imageinvoker access allow user:alice user:bob job:2000190

        imageinvoker access allow "group:Domain Admins" all

    Parameters
    ----------
    who_and_what
        Who, as user:NAME or group:NAME, one or several; then what: job:ID, folder:ID, the path of a
        folder (Deploy/Staff), which stands for all below it, or all.
    database_file
        A file with the address of the deployment server, such as its database's ODBC connection
        string, where the path or id is looked up. Else IMAGEINVOKER_DATABASE, else the embedded
        site's.
    json
        For programs: a list of the rules.
    """
    return _set(who_and_what, "allow", find(target), database_file, as_json=json)


@app.command
def deny(
    *who_and_what: str,
    target: Target | None = None,
    database_file: Path | None = None,
    json: AsJson = False,
) -> int:
    """Keep somebody from deploying something; a rule that allowed the same is replaced.

    Example: imageinvoker access deny group:Students "Deploy/Building Blocks"

    Parameters
    ----------
    who_and_what
        Who, as user:NAME or group:NAME, one or several; then what: job:ID, folder:ID, the path of a
        folder (Deploy/Staff), which stands for all below it, or all.
    database_file
        A file with the address of the deployment server, such as its database's ODBC connection
        string, where the path or id is looked up. Else IMAGEINVOKER_DATABASE, else the embedded
        site's.
    json
        For programs: a list of the rules.
    """
    return _set(who_and_what, "deny", find(target), database_file, as_json=json)


@app.command
def remove(
    *who_and_what: str, target: Target | None = None, database_file: Path | None = None
) -> int:
    """Remove a rule, whether it allows or denies.

    Example: imageinvoker access remove group:Helpdesk folder:2

    Parameters
    ----------
    who_and_what
        Who, as user:NAME or group:NAME, one or several; then what, as the list of rules shows it,
        or the path of a folder.
    database_file
        A file with the address of the deployment server, such as its database's ODBC connection
        string, where a path is looked up. Else IMAGEINVOKER_DATABASE, else the embedded site's.
    """
    who, told = _who_and_what(who_and_what, "remove")
    address = find(target)
    source = Source(database_file, address.server, address.site)

    async def change(connection: Connection) -> list[tuple[Rule, bool]]:
        what = told_target(told)
        if what is None:
            options = await _options(connection, address)
            what = await asked(source, lambda engine: find_folder(engine, options.tag, told))
        store = await AccessStore.open(connection, address.site)
        done = []
        for each in who:
            rule = make_rule(each, what, "deny")
            there = await store.remove(rule.who, rule.what)
            if there:
                await _record(connection, address, rule, "removed")
            done.append((rule, there))
        return done

    done = talk(address, change)
    for rule, there in done:
        if there:
            sys.stdout.write(f"{address.site}: the rule of {rule.who} on {rule.what} is removed\n")
        else:
            sys.stderr.write(f"There is no rule of {rule.who} on {rule.what}.\n")
    return DONE if all(there for _, there in done) else WRONG


@app.command
def explain(
    user: str,
    /,
    *,
    group: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    protection: Literal["server", "domain"] | None = None,
    target: Target | None = None,
    database_file: Path | None = None,
    json: AsJson = False,
) -> int:
    """Show for each menu item whether a technician may deploy it, and which rule decides.

    Examples:

        imageinvoker access explain alice

        imageinvoker access explain bob --protection domain --group Helpdesk

    Parameters
    ----------
    user
        The name of an account, whether anybody has signed in with it or not.
    group
        A group to take the technician for a member of; may be given several times. Needed for
        accounts of a domain that have never signed in here.
    protection
        Whether it is an account of the site (server) or of the domain. Else as the site has it.
    database_file
        A file with the address of the deployment server, such as its database's ODBC connection
        string. Else IMAGEINVOKER_DATABASE, else the embedded site's.
    json
        For programs: an object with an entry for each item.
    """
    if not user.strip() or not user.isprintable():
        raise WrongUseError("Whose rights? Say the name of an account.")
    address = find(target)
    source = Source(database_file, address.server, address.site)

    async def look(connection: Connection) -> tuple[Explanation, KeptRules]:
        options = await _options(connection, address)
        directory = protection or ("domain" if options.protection == "domain" else "server")
        if options.protection in {"none", "hash"}:
            sys.stderr.write(
                f"The protection is {options.protection}, so access rules do not count yet; this "
                f"is what they say for protection {directory}.\n"
            )
        known = await _technician(connection, address, directory, user)
        kept = await (await AccessStore.open(connection, address.site)).read()
        seen = known or Technician(name=user)
        technician = Technician(name=seen.name, groups=(*seen.groups, *group))

        rows = await asked(source, lambda trees: trees.menu_rows(Wanted(options.tag, whole=True)))
        names = Deployable(JobTree((), rows.folders, options.tag, None), rows.jobs)
        tree = JobTree(rows.jobs, rows.folders, options.tag, options.root_folder)
        judge = Judge(kept.in_force, technician, options.administrators)
        items = sorted(explain_items(tree, judge), key=lambda each: natural_key(each.item.title))
        explanation = Explanation(
            user=technician.name,
            protection=directory,
            known=known is not None,
            groups=technician.groups,
            items=tuple(because(each, tree, names) for each in items),
        )
        return explanation, kept

    explanation, kept = talk(address, look)
    if json:
        sys.stdout.write(encode(explanation).decode() + "\n")
    else:
        sys.stdout.write(text(explanation))
    if not explanation.known:
        sys.stderr.write(unknown(explanation))
    _complain(kept, address)
    return DONE


def _set(
    words: Sequence[str],
    effect: Effect,
    address: Address,
    database_file: Path | None,
    *,
    as_json: bool,
) -> int:
    source = Source(database_file, address.server, address.site)
    who, told = _who_and_what(words, effect)

    async def change(connection: Connection) -> list[Named]:
        options = await _options(connection, address)
        what, names = await _existing(told, options, source)
        store = await AccessStore.open(connection, address.site)
        done = []
        for each in who:
            rule = make_rule(each, what, effect)
            if await store.find(rule.who, rule.what) != rule:
                await store.write(rule)
                await _record(connection, address, rule, effect)
            done.append(named(rule, names))
        return done

    done = talk(address, change)
    if as_json:
        sys.stdout.write(encode(done).decode() + "\n")
        return DONE
    for rule in done:
        name = f" ({rule.name})" if rule.name and rule.what != EVERYTHING else ""
        sys.stdout.write(f"{address.site}: {rule.who} {_SAID[effect]} {rule.what}{name}\n")
    return DONE


def _who_and_what(words: Sequence[str], command: str) -> tuple[list[str], str]:
    """Whom a command is about, and the last word, which says what.

    Raises:
        WrongUseError: there are too few words, or somebody is nobody.
    """
    *who, what = words or ("",)
    if not who:
        raise WrongUseError(
            f"Say who and what: imageinvoker access {command} group:Helpdesk Deploy/Staff"
        )
    try:
        return [make_rule(each, EVERYTHING, "allow").who for each in who], what
    except ValueError as error:
        raise WrongUseError(f"{error}.") from error


async def _existing(told: str, options: Options, source: Source) -> tuple[str, Deployable | None]:
    """The target that is meant, with its name if it could be looked up.

    Raises:
        WrongUseError: there is no such thing.
        NoDatabaseError: it is a path, and there is no database to look it up.
    """
    what = told_target(told)

    async def read(trees: JobTrees) -> tuple[str, Deployable]:
        found = await find_folder(trees, options.tag, told) if what is None else what
        return found, await read_names(trees, options.tag, (found,))

    try:
        found, names = await asked(source, read)
    except NoDatabaseError as error:
        if what is None:
            raise
        if what != EVERYTHING:
            sys.stderr.write(f"{what} is taken as it is, without a look at the database: {error}\n")
        return what, None
    if names.name(found) is None:
        raise WrongUseError(f"There is no {found} in the deployment server's database.")
    return found, names


async def _names(source: Source, options: Options, rules: Sequence[Rule]) -> Deployable | None:
    try:
        wanted = [rule.what for rule in rules]
        return await asked(source, lambda trees: read_names(trees, options.tag, wanted))
    except NoDatabaseError as error:
        sys.stderr.write(f"Names of folders and jobs are not shown: {error}\n")
        return None


async def _options(connection: Connection, address: Address) -> Options:
    return assemble(in_force(*await read_layers(connection, address.site)))[0]


async def _record(connection: Connection, address: Address, rule: Rule, effect: str) -> None:
    await record(
        connection, address.site, "access_changed", who=rule.who, what=rule.what, effect=effect
    )


async def _technician(
    connection: Connection, address: Address, directory: Literal["server", "domain"], user: str
) -> Technician | None:
    """What the site knows of an account, also if it is written with its domain or realm."""
    bucket = await connection.jetstream().key_value(subjects.TECHNICIANS)
    for name in dict.fromkeys((user, user.rpartition("\\")[2].partition("@")[0])):
        try:
            key = subjects.site_key(address.site, technician_key(directory, name))
            return technician_decoder.decode((await bucket.get(key)).value or b"")
        except (nats.js.errors.KeyNotFoundError, ValueError):
            continue
    return None


def _order(rule: Rule) -> tuple[str, str]:
    return folded(rule.who), natural_key(rule.what)


def _complain(kept: KeptRules, address: Address) -> None:
    for key in kept.unreadable:
        sys.stderr.write(
            f"A rule cannot be read, and so nobody but administrators may deploy anything; "
            f"remove it: nats kv del {subjects.ACCESS} {subjects.site_key(address.site, key)}\n"
        )
