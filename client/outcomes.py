"""What has become of a request, in words. Pure functions."""

from bus.messages import Outcome
from client.words import Words


def headline(words: Words, outcome: Outcome) -> str:
    """What was done, in one line."""
    computer = outcome.computer
    if computer is None:
        return words("scheduled", name="")
    if computer.created:
        return words("scheduled_new", name=computer.name)
    if computer.renamed_from:
        return words("scheduled_renamed", name=computer.name, renamed_from=computer.renamed_from)
    return words("scheduled", name=computer.name)
