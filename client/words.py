"""The portal's texts, as an operator may have changed them, fit for any terminal."""

import re
from collections.abc import Mapping

from bus.texts import TEXTS

_FIELD = re.compile(r"\{(\w+)\}")


def plain(text: str) -> str:
    """The text on one line, without any character that could steer a terminal or hide."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


class Words:
    """Says every text of the portal by its name."""

    def __init__(self, changed: Mapping[str, str] = {}) -> None:
        self._changed = changed

    def __call__(self, name: str, /, **fields: object) -> str:
        """The text called ``name`` with its fields filled in.

        A changed text that asks for a field it cannot have gives way to the usual one.
        """
        changed = self._changed.get(name)
        if changed is not None:
            try:
                return _fill(changed, fields)
            except KeyError:
                pass
        return _fill(TEXTS[name], fields)


def _fill(text: str, fields: Mapping[str, object]) -> str:
    return plain(_FIELD.sub(lambda match: str(fields[match[1]]), text))
