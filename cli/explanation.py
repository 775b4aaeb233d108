"""Access rules and what they come to, as programs and people get them. Pure."""

from collections.abc import Sequence

from msgspec import Struct

from bus.access import EVERYTHING, Effect, Rule
from bus.events import one_line
from cli.deployable import Deployable
from engine.rights import Explained
from engine.tree import JobTree


class Named(Struct, frozen=True, kw_only=True):
    """A rule as programs get it; ``name`` is what it is for, None where that is not known."""

    who: str
    what: str
    effect: Effect
    name: str | None


class Because(Struct, frozen=True, kw_only=True):
    """Why a menu item is shown or not.

    ``job`` is the first job of the item that is forbidden. There are no ``rules`` where none speaks
    of it, nor for an ``administrator``.
    """

    id: str
    title: str
    folder: str
    permitted: bool
    administrator: bool
    rules: tuple[Named, ...]
    job: str | None


class Explanation(Struct, frozen=True, kw_only=True):
    """What a technician may deploy, and why; ``known`` says whether the site has seen them."""

    user: str
    protection: str
    known: bool
    groups: tuple[str, ...]
    items: tuple[Because, ...]


def named(rule: Rule, names: Deployable | None) -> Named:
    """A rule with the name of what it is for, if names could be read."""
    name = names.name(rule.what) if names else None
    return Named(who=rule.who, what=rule.what, effect=rule.effect, name=name)


def because(explained: Explained, tree: JobTree, names: Deployable) -> Because:
    """Why an item of a tree is shown or not, with names."""
    item, decision, job = explained
    return Because(
        id=item.id,
        title=item.title,
        folder=tree.path(item.folder_id),
        permitted=decision.permitted,
        administrator=decision.administrator,
        rules=tuple(named(rule, names) for rule in decision.rules),
        job=names.job_name(job) if job else None,
    )


def text(explanation: Explanation) -> str:
    """An explanation as people read it, a line for each item."""
    groups = ", ".join(map(one_line, explanation.groups)) or "none"
    head = f"{one_line(explanation.user)} ({explanation.protection}), groups: {groups}\n\n"
    rows = [
        (
            "yes" if item.permitted else "no",
            item.title,
            item.folder,
            _reason(item),
        )
        for item in explanation.items
    ]
    if not rows:
        return head + "There are no menu items.\n"
    return head + table([("MAY", "ITEM", "FOLDER", "BECAUSE"), *rows])


def _reason(item: Because) -> str:
    if item.administrator:
        return "administrators may deploy everything"
    said = "; ".join(
        f"{rule.effect} {rule.who} {rule.what}"
        + (f" ({rule.name})" if rule.name and rule.what != EVERYTHING else "")
        for rule in item.rules
    )
    reason = said or "no rule"
    # Of a job that is an item by itself the item has said enough.
    if item.job and not item.id.startswith("job:"):
        return f"{reason}, for its job {item.job}"
    return reason


def unknown(explanation: Explanation) -> str:
    """A sentence for somebody whom the site does not know."""
    name = one_line(explanation.user)
    if explanation.protection == "server":
        return (
            f"There is no account {name!r} at this site, so nobody can sign in by this name; "
            f"this is what would be. Add it: imageinvoker account add NAME\n"
        )
    return (
        f"{name!r} has never signed in here, so their groups are not known; --group names some.\n"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first row their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines) + "\n"
