"""The portal's texts, as an operator may have changed them, fit for any terminal."""

import re
from collections.abc import Mapping
from typing import Final

from bus.messages import ProblemBody
from bus.texts import TEXTS

OWN: Final[dict[str, str]] = {
    "network_no_card": "This computer has no network card that works. Plug in another, or ask an "
    "operator to add its driver to the boot medium. It is looked for again by itself.",
    "network_no_link": "There is no link on {message}. Plug in the network cable, or try another "
    "socket. It is tried again by itself.",
    "network_no_address": "The network gives {message} no address: no DHCP server answers. Try "
    "another socket, or ask an operator. It is tried again by itself.",
    "trouble_same": "Nothing tells this computer from others: no serial number, no UUID, no "
    "network card of its own. Ask an operator to set its serial number in the firmware.",
    "unknown": "On the kernel command line {names} means nothing. Is it spelt as in the manual?",
    "waited": "{seconds} s",
}
"""What the client says of itself, without any site, so that no site can change it."""

_FIELD = re.compile(r"\{(\w+)\}")


def plain(text: str) -> str:
    """The text on one line, without any character that could steer a terminal or hide."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def said(words: "Words", problem: ProblemBody) -> str:
    """A problem's message; of one that only somebody at the machine can mend, with the cure."""
    return words("trouble_same") if problem.code == "bad_machine" else plain(problem.message)


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
        return _fill(TEXTS.get(name) or OWN[name], fields)


def _fill(text: str, fields: Mapping[str, object]) -> str:
    return plain(_FIELD.sub(lambda match: str(fields[match[1]]), text))
