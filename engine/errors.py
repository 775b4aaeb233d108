"""What an engine says when it cannot do what it was asked; all else it says by a `Problem`."""

from bus.problems import Problem


class EngineUnavailable(Problem):
    """The deployment server did not answer in time, or not at all; ``reason`` is for the log.

    It is the problem ``deployment_server_unavailable``: the same may be asked again later. What was
    to be written may then be there or not.
    """

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__("deployment_server_unavailable", message)
        self.reason = reason


class Conflict(Exception):
    """Something else was in the way or must be first: this may be repeated in a moment.

    Nothing of it was written.
    """


class NoMarkError(Exception):
    """The deployment server cannot tell whether its jobs have changed; the text says why."""
