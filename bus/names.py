"""The rules for computer names, and the names suggested for unknown machines. Pure functions."""

import re
from typing import Final

from bus.machines import Identity
from bus.messages import NameRules
from bus.problems import Problem

NETBIOS_LENGTH: Final = 15
"""Longest NetBIOS computer name in characters (Microsoft, "Naming conventions in AD")."""

PATTERN: Final = "^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$"
HINT: Final = "Letters, digits, hyphens and underscores; no hyphen at either end"

_NAME = re.compile(PATTERN.removesuffix("$") + r"\Z")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]+")
_TOKEN = re.compile(r"%([A-Z]+)%")

TOKENS: Final = ("SERIAL", "ASSETTAG", "MAC", "UUID", "SITE")
"""What a naming rule may hold in percent signs."""


def name_rules(max_length: int) -> NameRules:
    """The rules as the portal shows them and checks them while the technician types."""
    return NameRules(
        max_length=max_length, pattern=PATTERN, hint=f"{HINT}; at most {max_length} characters"
    )


def check_name(name: str, max_length: int) -> str:
    """The name, if it is one.

    Raises:
        Problem: ``bad_name``, saying which rule is broken.
    """
    if not name:
        raise Problem("bad_name", "A computer name is needed.")
    if len(name) > max_length:
        raise Problem("bad_name", f"A computer name has at most {max_length} characters.")
    if not _NAME.match(name):
        raise Problem("bad_name", f"{HINT}.")
    return name


def check_rule(rule: str) -> str:
    """The naming rule, if every token in it is known.

    Raises:
        ValueError: names the tokens that are not.
    """
    unknown = sorted(set(_TOKEN.findall(rule)) - set(TOKENS))
    if unknown:
        known = ", ".join(f"%{token}%" for token in TOKENS)
        raise ValueError(f"%{unknown[0]}% is not known; a naming rule may hold {known}")
    if "%" in _TOKEN.sub("", rule) or not rule.strip():
        raise ValueError("a naming rule is text with tokens such as %SERIAL%")
    return rule


def suggested_name(rule: str, identity: Identity, site: str, max_length: int) -> str:
    """The name for an unknown machine: by the rule, else its serial number, else an address.

    A rule that asks for something this machine does not have does not apply. What is too long loses
    characters from the front of its longest token, since serial numbers differ at their ends.
    """
    values = {
        "SERIAL": _clean(identity.serial or ""),
        "ASSETTAG": _clean(identity.asset_tag or ""),
        "MAC": identity.macs[0].upper() if identity.macs else "",
        "UUID": (identity.uuid or "").upper(),
        "SITE": _clean(site),
    }
    for attempt in (rule, "%SERIAL%", "%MAC%", "%UUID%", "%ASSETTAG%"):
        if all(values[token] for token in _TOKEN.findall(attempt)):
            name = _fill(attempt, values, max_length)
            if name:
                return name
    return ""


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", text).strip("-")


def _fill(rule: str, values: dict[str, str], max_length: int) -> str:
    parts = _TOKEN.split(rule)
    parts[0::2] = [_FORBIDDEN.sub("-", literal) for literal in parts[0::2]]
    parts[1::2] = [values[token] for token in parts[1::2]]
    excess = sum(map(len, parts)) - max_length
    if excess > 0 and len(parts) > 1:
        longest = max(range(1, len(parts), 2), key=lambda index: len(parts[index]))
        parts[longest] = parts[longest][excess:]
    return "".join(parts)[:max_length].strip("-")
