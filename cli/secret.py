"""Passwords reach a command from the terminal or standard input, never as an argument."""

import getpass
import sys
from typing import Final

from cli.fail import WrongUseError

_LONGEST: Final = 1024


def read_password(prompt: str, *, shortest: int = 1) -> str:
    """A new password: asked for twice and not shown at a terminal, else a line of standard input.

    ``prompt`` is what a person is asked for, such as ``New password``; ``shortest`` is in
    characters.

    Raises:
        WrongUseError: the two differ, or it is too short, too long or not text. The text does not
            hold it.
    """
    secret = _from_terminal(prompt) if sys.stdin.isatty() else _from_input()
    if not shortest <= len(secret) <= _LONGEST:
        raise WrongUseError(
            f"A password has {shortest} to {_LONGEST} characters; nothing was changed."
        )
    if "\0" in secret:
        raise WrongUseError("A password holds no NUL character; nothing was changed.")
    return secret


def _from_terminal(prompt: str) -> str:
    try:
        secret = getpass.getpass(f"{prompt}: ")
        again = getpass.getpass("Once more: ")
    except EOFError:
        raise WrongUseError("No password was typed; nothing was changed.") from None
    if secret != again:
        raise WrongUseError("The two passwords differ; nothing was changed.")
    return secret


def _from_input() -> str:
    try:
        secret = sys.stdin.readline().rstrip("\r\n")
        secret.encode()  # in some locales Python lets bytes through that are no text
    except UnicodeError:
        # Not chained: the error holds what was read.
        raise WrongUseError("A password on standard input is UTF-8; nothing was changed.") from None
    return secret
