"""The operating system that the client runs on: the one module that asks which it is."""

import sys

if sys.platform == "win32":
    from client.windows import (
        ENVIRONMENT,
        Asking,
        cards,
        driver,
        machine,
        ready_console,
        restore_terminal,
        set_clock,
        terminal_state,
    )
else:
    from client.linux import (
        ENVIRONMENT,
        Asking,
        cards,
        driver,
        machine,
        ready_console,
        restore_terminal,
        set_clock,
        terminal_state,
    )

__all__ = (
    "ENVIRONMENT",
    "Asking",
    "cards",
    "driver",
    "machine",
    "ready_console",
    "restore_terminal",
    "set_clock",
    "terminal_state",
)
