"""How a command ends when it cannot do what it was asked: one sentence, and a status that tells."""

from typing import Final

DONE: Final = 0
WRONG: Final = 1
"""Something was found to be wrong, as by ``doctor``."""
WRONG_USE: Final = 2
REFUSED: Final = 3
NO_SERVER: Final = 4


class CommandError(Exception):
    """The command cannot be carried out; the text names the cause and the cure."""

    status = WRONG


class WrongUseError(CommandError):
    """The command was told something that makes no sense."""

    status = WRONG_USE


class NoServerError(CommandError):
    """Nobody answers."""

    status = NO_SERVER
