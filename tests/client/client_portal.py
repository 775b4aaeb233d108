"""Drives the portal as a technician does: keys in, plain lines of text out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from client_site import MACHINE, until
from textual import events
from textual.pilot import Pilot
from textual.screen import Screen

from client.portal.app import Portal
from client.portal.style import SELECTED
from client.settings import Settings


class Technician:
    """Somebody in front of a portal."""

    def __init__(self, portal: Portal, pilot: Pilot[int]) -> None:
        self.portal = portal
        self._pilot = pilot

    def lines(self) -> list[str]:
        """What the screen shows, line by line."""
        strips = self.portal.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines())

    def selected(self) -> list[str]:
        """The texts that look selected."""
        strips = self.portal.screen._compositor.render_strips()
        return [
            segment.text.strip()
            for strip in strips
            for segment in strip
            if segment.style == SELECTED
        ]

    async def sees(self, *texts: str, seconds: float = 10) -> None:
        await until(
            lambda: all(text in self.text() for text in texts),
            lambda: f"{texts} not seen on:\n{self.text()}",
            seconds,
        )

    async def sees_no(self, text: str) -> None:
        await until(lambda: text not in self.text(), lambda: f"{text} still on:\n{self.text()}")

    async def presses(self, *keys: str) -> None:
        for key in keys:
            self.portal.post_message(events.Key(key, key if len(key) == 1 else None))
        await self._pilot.pause()

    async def types(self, text: str) -> None:
        await self.presses(*text)

    async def stands_at(self, screen: type[Screen[None]]) -> None:
        await until(lambda: isinstance(self.portal.screen, screen), self.text)

    async def enters(self) -> None:
        await self.presses("i")

    async def leaves_with(self, status: int, seconds: float = 10) -> None:
        await until(
            lambda: self.portal.return_value is not None,
            lambda: f"still on:\n{self.text()}",
            seconds,
        )
        assert self.portal.return_value == status


@asynccontextmanager
async def at_portal(
    server: str,
    site: str,
    *,
    seconds: int | None = None,
    size: tuple[int, int] = (80, 25),
) -> AsyncIterator[Technician]:
    """A technician in front of a machine that has just booted."""
    portal = Portal(Settings(server=server, site=site, timeout=seconds), server, MACHINE)
    async with portal.run_test(size=size) as pilot:
        yield Technician(portal, pilot)
