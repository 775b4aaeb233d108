"""The portal's application: the first screen at once, everything else after it was seen."""

import time

from textual import events
from textual.app import App
from textual.screen import Screen

from bus.messages import Machine
from bus.options import DEFAULTS
from client.portal.countdown import CountdownScreen
from client.portal.style import STYLE
from client.settings import Settings
from client.words import Words


class Portal(App[int], inherit_bindings=False):
    """Leaves with an exit status of the client.

    It has no keys of its own: what a screen's help line does not name does nothing.
    """

    CSS = STYLE
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, settings: Settings, server: str, machine: Machine | None = None) -> None:
        super().__init__(ansi_color=True)
        self.settings = settings
        self.server = server
        self.machine = machine
        self._last_key = time.monotonic()
        self._first: CountdownScreen | None = None

    @property
    def first(self) -> CountdownScreen:
        """The first screen; made once."""
        if self._first is None:
            words = Words()
            timeout = self.settings.timeout
            self._first = CountdownScreen(
                (words("title"), self.settings.site),
                words,
                self.server,
                DEFAULTS.timeout if timeout is None else timeout,
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
        """Told by Textual, once the first screen has been drawn."""
        self.run_worker(self._walk())

    async def on_event(self, event: events.Event) -> None:
        """Told by Textual."""
        if isinstance(event, events.Key | events.Paste):
            self._last_key = time.monotonic()
        await super().on_event(event)

    async def _walk(self) -> None:
        # The bus takes a third of the client's start; the technician reads meanwhile.
        from client.portal.way import Way  # noqa: PLC0415

        self.exit(await Way(self).walk())
