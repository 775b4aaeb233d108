"""What the services' processes take while a storm goes on, as their metrics tell it."""

import asyncio
import re
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bus.waiting import end
from cli.fail import CommandError
from cli.storm.results import Served, Usage

_RESIDENT: Final = re.compile(r"^process_resident_memory_bytes ([0-9.eE+-]+)", re.MULTILINE)
_PROCESSOR: Final = re.compile(r"^process_cpu_seconds_total ([0-9.eE+-]+)", re.MULTILINE)
_SERVICE: Final = re.compile(r'^imageinvoker_build_info\{[^}]*service="([^"]*)"', re.MULTILINE)
_PATIENCE: Final = 2.0
_EVERY: Final = 1.0
"""Seconds between two looks."""
_MOST_LOOKS: Final = 1000
"""Looks that are kept; beyond, every second one is forgotten."""
_LARGEST: Final = 4_000_000
"""Most bytes that are read of a page."""


class Watched:
    """A copy of a service, and what it took when it was looked at."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = url
        self.usage: list[Usage] = []
        self._highest = 0.0

    async def look(self, since: float) -> None:
        """Looks at it now; ``since`` is when the storm began, by the monotonic clock.

        Raises:
            OSError, ValueError: it does not tell.
        """
        page = await asyncio.to_thread(_page, self.url)
        resident, processor = _RESIDENT.search(page), _PROCESSOR.search(page)
        if not resident or not processor:
            raise ValueError("no process_resident_memory_bytes or process_cpu_seconds_total")
        service = _SERVICE.search(page)
        self.name = service[1] if service else self.url
        at = time.monotonic() - since
        self.usage.append(Usage(at, float(resident[1]), float(processor[1])))
        self._highest = max(self._highest, self.usage[-1].resident)
        if len(self.usage) > _MOST_LOOKS:
            del self.usage[1:-1:2]

    def forget(self) -> None:
        """Begins anew."""
        self.usage.clear()
        self._highest = 0.0

    def served(self) -> Served:
        """All of it."""
        first, last = self.usage[0], self.usage[-1]
        return Served(
            name=self.name,
            url=self.url,
            resident_before=first.resident,
            resident_after=last.resident,
            resident_max=self._highest,
            # A copy that was started anew counts from nothing again.
            processor_seconds=sum(
                max(0.0, later.processor - former.processor)
                for former, later in zip(self.usage, self.usage[1:], strict=False)
            ),
            usage=tuple(self.usage),
        )


async def watched(urls: Sequence[str]) -> list[Watched]:
    """The copies of services that tell at these addresses what they take.

    Raises:
        CommandError: one does not answer, or tells nothing of its process.
    """
    copies = [Watched(url) for url in urls]
    for copy in copies:
        try:
            await copy.look(time.monotonic())
        except (OSError, ValueError) as error:
            raise CommandError(f"--metrics {copy.url} tells nothing: {error}") from error
    return copies


@asynccontextmanager
async def watching(copies: Sequence[Watched]) -> AsyncIterator[None]:
    """Looks at the copies now, each second, and at the end."""
    began = time.monotonic()
    for copy in copies:
        copy.forget()
    await _look(copies, began)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await _look(copies, began)

    looking = asyncio.create_task(go_on())
    try:
        yield
    finally:
        await end(looking)
        await _look(copies, began)


async def _look(copies: Sequence[Watched], began: float) -> None:
    # Who is too busy to answer once, or is started anew, is looked at the next time.
    await asyncio.gather(*(copy.look(began) for copy in copies), return_exceptions=True)


def _page(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("say http://HOST:PORT/metrics")
    with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 (looked at above)
        content: bytes = answer.read(_LARGEST)
        return content.decode("utf-8", "replace")
