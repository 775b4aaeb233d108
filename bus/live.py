"""What each machine is doing now, as it stands in the bucket ``imaging_live``.

The monitor writes an entry a machine; whoever shows machines reads them. What is two days old is
gone.
"""

from typing import Literal

from msgspec import Struct

from bus.messages import ComputerRef, Time, decoder

Stage = Literal[
    "portal_opened",
    "signed_in",
    "menu_shown",
    "accepted",
    "scheduled",
    "rejected",
    "running",
    "finished",
    "failed",
]


class Live(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a machine is on its way, and since when.

    ``title`` is what ``item`` was called in the menu when it was picked. ``jobs_done`` of its
    ``jobs`` have ended; ``problem`` says what went wrong: a problem's code, a failed job, or how a
    deployment ended that never came to its end. ``stream`` and ``sequence`` say where the last
    event stands that made the entry: when the stream was made, and its number there.
    """

    machine: str
    stage: Stage
    since: Time
    item: str | None = None
    title: str | None = None
    technician: str | None = None
    computer: ComputerRef | None = None
    request: str | None = None
    jobs_done: int | None = None
    jobs: int | None = None
    problem: str | None = None
    stream: str = ""
    sequence: int = 0

    @property
    def place(self) -> tuple[str, int]:
        """Of two entries of a machine the one with the greater place is the later.

        No clock of a service decides it; a stream that was made anew follows the one before.
        """
        return self.stream, self.sequence


live_decoder = decoder(Live)
