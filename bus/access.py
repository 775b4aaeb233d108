"""Access rules: which technicians may deploy what. Pure functions.

A rule allows or denies a group or an account one job, a job folder with everything below it, or
everything. The rule nearest to a job wins: one on the job itself, then on its folder, on the folder
above, and so on up to everything. On the same level deny wins. Where no rule says anything, the
answer is no. Who is in the administrators' group may do everything.
"""

import hashlib
import re
from typing import Final, Literal

from msgspec import Struct

from bus.messages import decoder
from bus.technicians import folded

Effect = Literal["allow", "deny"]

EVERYTHING: Final = "all"
"""The target of a rule for the whole job tree."""

_WHO: Final = re.compile(r"(user|group):\s*(\S.*)\Z", re.DOTALL)
_WHAT: Final = re.compile(r"all\Z|(?:job|folder):(?:0|-?[1-9][0-9]{0,18})\Z")
_LONGEST: Final = 256


class Rule(Struct, frozen=True, kw_only=True):
    """One access rule, as the bucket ``imaging_access`` keeps it.

    ``who`` is ``user:<name>`` or ``group:<name>``, ``what`` is ``job:<id>``, ``folder:<id>`` or
    ``all``. There is one rule for each pair of them.
    """

    who: str
    what: str
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
