"""The portal's application: the first screen at once, everything else after it was seen."""

import asyncio
import contextlib
import signal
import time
import traceback

from rich.console import RenderableType
from rich.text import Text
from textual import events
from textual.app import App
from textual.screen import Screen
from textual.worker import Worker, WorkerError

from bus.messages import Machine
from bus.options import DEFAULTS
from client.lastresort import GRACE, LastResort
from client.lookups import leave_without_lookups
from client.portal.asking import Terminal
from client.portal.countdown import CountdownScreen
from client.portal.style import STYLE
from client.settings import Settings, shown
from client.status import TERMINATED
from client.system import system
from client.words import Words


class Portal(App[int], inherit_bindings=False):
    """Leaves with an exit status of the client.

    It has no keys of its own: what a screen's help line does not name does nothing.
    """

    CSS = STYLE
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        settings: Settings,
        server: str,
        machine: Machine | None = None,
        terminal: Terminal = Terminal(),
    ) -> None:
        super().__init__(driver_class=system.driver(terminal), ansi_color=True)
        self.settings = settings
        self.server = server
        self.machine = machine
        self._typed = terminal.typed
        self._last_resort: LastResort | None = None
        self._last_key = time.monotonic()
        self._first: CountdownScreen | None = None
        self._walking: Worker[None] | None = None

    @property
    def first(self) -> CountdownScreen:
        """The first screen; made once."""
        if self._first is None:
            words = Words()
            timeout = self.settings.timeout
            self._first = CountdownScreen(
                (words("title"), self.settings.site or ""),
                words,
                shown(self.server),
                DEFAULTS.timeout if timeout is None else timeout,
                self.settings.unknown,
            )
        return self._first

    @property
    def idle_for(self) -> float:
        """Seconds since the last key."""
        return time.monotonic() - self._last_key

    def get_default_screen(self) -> Screen[None]:
        """Told by Textual."""
        return self.first

    def on_ready(self) -> None:
        """Told by Textual, before the first screen is drawn."""
        leave_without_lookups()
        self.first.guard(self._last_resort)
        for key in self._typed:
            self.post_message(events.Key(key, key))
        with contextlib.suppress(NotImplementedError):  # Windows knows no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit, TERMINATED)
        self.first.call_after_refresh(self._set_out)

    def guarded_by(self, last_resort: LastResort) -> None:
        """Has the countdown and the leaving end in time, even on a terminal that takes nothing."""
        self._last_resort = last_resort

    def exit(
        self,
        result: int | None = None,
        return_code: int = 0,
        message: RenderableType | None = None,
    ) -> None:
        """Leaves; the process does not outlive it by much."""
        if self._last_resort is not None:
            self._last_resort.end_in(GRACE, return_code if result is None else result)
        super().exit(result, return_code, message)

    async def on_event(self, event: events.Event) -> None:
        """Told by Textual."""
        if isinstance(event, events.Key | events.Paste):
            self._last_key = time.monotonic()
        await super().on_event(event)

    def _fatal_error(self) -> None:
        # Textual would print every local variable, and a password may be among them.
        self.panic(Text(traceback.format_exc()))

    async def on_unmount(self) -> None:
        """Told by Textual when it shuts down; nothing of ours outlives it."""
        if self._walking is not None:
            self._walking.cancel()
            with contextlib.suppress(WorkerError):
                await self._walking.wait()

    def _set_out(self) -> None:
        self._walking = self.run_worker(self._walk())

    async def _walk(self) -> None:
        # The bus takes a third of the client's start; the technician reads meanwhile.
        from client.portal.way import Way  # noqa: PLC0415

        self.exit(await Way(self).walk())
