"""Access rules: which technicians may deploy what. Pure functions.

A rule allows or denies a group or an account one job, a job folder with everything below it, or
everything. The rule nearest to a job wins: one on the job itself, then on its folder, on the folder
above, and so on up to everything. On the same level deny wins. Where no rule says anything, the
answer is no. Who is in the administrators' group may do everything.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from bus.messages import decoder
from bus.technicians import Technician, folded

Effect = Literal["allow", "deny"]

EVERYTHING: Final = "all"
"""The target of a rule for the whole job tree."""

_WHO: Final = re.compile(r"(user|group):\s*(\S.*)\Z", re.DOTALL)
_WHAT: Final = re.compile(r"\A(?:all|(?:job|folder):(?:0|-?[1-9][0-9]{0,18}))\Z")
_LONGEST: Final = 256


class Rule(Struct, frozen=True, kw_only=True):
    """One access rule, as the bucket ``imaging_access`` keeps it.

    ``who`` is ``user:<name>`` or ``group:<name>``, ``what`` is ``job:<id>``, ``folder:<id>`` or
    ``all``. There is one rule for each pair of them. What is read and is none of these is refused:
    an unreadable rule may be the one that denies.
    """

    who: Annotated[str, Meta(pattern=r"\A(user|group):\s*\S")]
    what: Annotated[str, Meta(pattern=_WHAT.pattern)]
    effect: Effect


rule_decoder = decoder(Rule)


def make_rule(who: str, what: str, effect: Effect) -> Rule:
    """A rule from what an operator typed.

    Raises:
        ValueError: this is no technician or group, or no job, folder or ``all``; the text says so.
    """
    match = _WHO.match(who.strip())
    if not match or not who.isprintable() or len(who) > _LONGEST:
        raise ValueError(f"{who!r} is nobody: say user:NAME or group:NAME")
    if not _WHAT.match(what):
        raise ValueError(f"{what!r} is nothing to deploy: say job:ID, folder:ID or all")
    return Rule(who=f"{match[1]}:{match[2].strip()}", what=what, effect=effect)


def rule_key(rule: Rule) -> str:
    """The key of a rule in the bucket, without the site: one for each pair of who and what."""
    return hashlib.sha256(f"{folded(rule.who)}\0{rule.what}".encode()).hexdigest()[:32]


class Rights(Struct, frozen=True):
    """What somebody may deploy; equal for all to whom rules of the same effect apply.

    With ``everything`` there is nothing to ask. Else ``whole`` is whether a job may be deployed of
    which nothing nearer says anything, and ``folders`` and ``jobs`` are what is said of some: pairs
    of an id and whether it is allowed. Sets, for they remember their hash: rights are looked up.
    """

    everything: bool = False
    whole: bool = False
    folders: frozenset[tuple[int, bool]] = frozenset()
    jobs: frozenset[tuple[int, bool]] = frozenset()


ALL_RIGHTS: Final = Rights(everything=True)
"""The rights of administrators, and of everybody where nobody has to say who they are."""


class Decision(Struct, frozen=True):
    """Whether a job may be deployed, and why.

    ``rules`` are those that decide: of the nearest level of which any rule speaks, the denying ones
    if there are any, else the allowing ones. There are none where nothing is said, nor for an
    ``administrator``, who needs none.
    """

    permitted: bool
    rules: tuple[Rule, ...] = ()
    administrator: bool = False


class Judge:
    """Tells for one technician which rules decide; one that is None is known to nobody."""

    def __init__(
        self, rules: Iterable[Rule], technician: Technician | None, administrators: str | None
    ) -> None:
        """Takes all rules of the site, and the name of the administrators' group if it has one."""
        self._administrator = _is_administrator(technician, administrators)
        self._winning = _winning(rules, technician)

    def speaks_of(self, what: str) -> bool:
        """Whether any rule for this technician is one for ``what``."""
        return what in self._winning

    def decision(self, levels: Iterable[str]) -> Decision:
        """The decision on a job, told by its levels, the nearest first.

        These are the job itself, its folder, the folder above and so on (``job:7``, ``folder:3``,
        ``folder:1``), and ``all`` at the end. Levels of which no rule speaks may be left out.
        """
        if self._administrator:
            return Decision(permitted=True, administrator=True)
        rules = next((self._winning[level] for level in levels if level in self._winning), ())
        return Decision(permitted=bool(rules) and rules[0].effect == "allow", rules=rules)


def rights_of(
    rules: Iterable[Rule], technician: Technician | None, administrators: str | None
) -> Rights:
    """The rights that the rules of a site give to a technician.

    None is one who is not known, and has no rights at all. ``administrators`` is the name of their
    group, None if the site has none.
    """
    if _is_administrator(technician, administrators):
        return ALL_RIGHTS
    effects = {
        what: winners[0].effect == "allow" for what, winners in _winning(rules, technician).items()
    }
    return Rights(
        whole=effects.get(EVERYTHING, False),
        folders=_said("folder:", effects),
        jobs=_said("job:", effects),
    )


def jobs_in(rules: Iterable[Rule]) -> frozenset[int]:
    """The ids of the jobs that rules name; whoever applies rules must know where these jobs are."""
    return frozenset(id_ for id_, _ in _said("job:", {rule.what: True for rule in rules}))


def _said(kind: str, effects: Mapping[str, bool]) -> frozenset[tuple[int, bool]]:
    return frozenset(
        (int(what.removeprefix(kind)), allowed)
        for what, allowed in effects.items()
        if what.startswith(kind)
    )


def _is_administrator(technician: Technician | None, administrators: str | None) -> bool:
    group = folded(administrators or "")
    return bool(group) and technician is not None and group in map(folded, technician.groups)


def _winning(rules: Iterable[Rule], technician: Technician | None) -> dict[str, tuple[Rule, ...]]:
    """The rules that apply to a technician and win on their level, by what they are for."""
    if technician is None:
        return {}
    names = {("user", folded(technician.name))}
    names.update(("group", folded(group)) for group in technician.groups)
    applying: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        kind, _, name = rule.who.partition(":")
        if (kind, folded(name)) in names:
            applying[rule.what].append(rule)
    return {
        what: tuple(rule for rule in found if rule.effect == "deny") or tuple(found)
        for what, found in applying.items()
    }
