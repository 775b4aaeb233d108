"""The check of a computer name while it is typed. Pure functions."""

import re

from bus.messages import NameRules
from client.words import Words


def complaint(words: Words, name: str, rules: NameRules) -> str:
    """What is wrong with ``name``, in the words of the portal; nothing if it is a name.

    The server checks again, so rules this client cannot read are left to it.
    """
    if not name:
        return words("name_empty")
    if len(name) > rules.max_length:
        return words("name_too_long", max_length=rules.max_length)
    try:
        fits = re.fullmatch(rules.pattern, name) is not None
    except re.error:
        return ""
    return "" if fits else words("name_bad", hint=rules.hint)
