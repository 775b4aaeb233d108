"""The exit statuses of the boot client."""

from typing import Final

DONE: Final = 0
"""Scheduled, or passed by: the boot goes on."""
WRONG_USE: Final = 2
REFUSED: Final = 3
NO_SERVER: Final = 4
TERMINATED: Final = 143
"""What a shell tells of a process ended by SIGTERM."""
