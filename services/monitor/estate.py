"""The monitor at the hub: history, metrics and live view of all sites of the estate.

It goes by the registry of sites, and has the hub's stream collect the events of exactly these. To
follow the jobs of a deployment and to tell by mail is done at each site.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from bus import hub, subjects
from bus.buckets import Mirror
from bus.connection import Connection
from bus.sites import entries
from bus.waiting import all_of
from express.database import Database
from services.database import HISTORY, DatabaseMetrics
from services.monitor.follower import Follower
from services.monitor.forgetting import Forgetting
from services.monitor.history import History
from services.monitor.listening import Listening
from services.monitor.live import KEPT, LiveView
from services.monitor.metrics import HistoryMetrics
from services.monitor.part import Loop, Part
from services.running import Program, Site

_GATHERED: Final = 2.0
"""Seconds in which the events of a site are taken together: of fifty sites at once, each lot costs
more than what is in it."""


def program(history_dsn: str, replicas: int = 1) -> Program:
    """The monitor of an estate, which keeps history at ``history_dsn``, an ODBC connection string.

    The hub keeps ``replicas`` of its stream, on as many servers.
    """

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "monitor")
        kept = Database(history_dsn, create=True, observe=measured.observer(HISTORY))
        site.health.needs("the history", kept.sign_of_life)
        sites = Sites(site.connection, kept, HistoryMetrics(site.registry), replicas)
        forgetting = Forgetting(site.connection, kept, lambda: site.options.current)
        service = site.service("monitor", "Keeps history, metrics and a live view of all sites")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(kept.close)
            stack.push_async_callback(sites.stop)
            await sites.start()
            site.health.needs("the sites", sites.check)
            stack.push_async_callback(forgetting.stop)
            await forgetting.start()
            for loop in forgetting.loops:
                site.health.needs(loop.name, loop.check)
            await service.start()
            yield
            await service.leave()

    return serving


class Sites(Part):
    """The sites of the estate, each followed for as long as it is in the registry."""

    def __init__(
        self, connection: Connection, kept: Database, metrics: HistoryMetrics, replicas: int
    ) -> None:
        self._loop = Loop("the registry of sites", subjects.ESTATE, self._renew)
        super().__init__(self._loop)
        self._connection = connection
        self._kept = kept
        self._metrics = metrics
        self._replicas = replicas
        self._wanted: frozenset[str] = frozenset()
        self._collected: frozenset[str] | None = None
        self._followed: dict[str, tuple[Part, ...]] = {}
        self._changed = asyncio.Event()
        self._registry = Mirror(connection, subjects.SITES, subjects.ESTATE, self._read)

    async def start(self) -> None:
        """Returns when the registry has been read."""
        await self._registry.start()
        await super().start()

    async def stop(self) -> None:
        """Follows none any more."""
        await super().stop()
        await self._registry.stop()
        await all_of(self._leave(site) for site in tuple(self._followed))

    async def check(self) -> None:
        """Raises what is wrong, as `Loop.check`."""
        loops = [loop for parts in self._followed.values() for part in parts for loop in part.loops]
        for loop in (self._loop, *loops):
            await loop.check()

    def _read(self, values: Mapping[str, bytes]) -> None:
        self._wanted = frozenset(entry.name for entry in entries(values))
        self._changed.set()

    async def _renew(self) -> None:
        """Waits for a change, and does what follows from it; done again if a part of it fails."""
        await self._changed.wait()
        wanted = self._wanted
        if wanted != self._collected:
            stream = self._connection.jetstream()
            await hub.prepare(stream, wanted, self._replicas)
            self._collected = wanted
        for site in sorted(self._followed.keys() - wanted):
            await self._leave(site)
        for site in sorted(wanted - self._followed.keys()):
            await self._follow(site)
        if self._wanted == wanted:
            self._changed.clear()

    async def _follow(self, site: str) -> None:
        live = LiveView(self._connection, site)
        parts: tuple[Part, ...] = (
            live,
            Listening(
                self._connection,
                site,
                live,
                since=datetime.now(UTC) - timedelta(seconds=KEPT),
                gathered=_GATHERED,
            ),
            Follower(
                self._connection,
                site,
                History(self._kept, site),
                self._metrics.of(site),
                gathered=_GATHERED,
            ),
        )
        self._followed[site] = parts
        for part in parts:
            await part.start()

    async def _leave(self, site: str) -> None:
        for part in reversed(self._followed[site]):
            await part.stop()
        # Only now: whoever breaks this off is to stop all of them.
        del self._followed[site]
        self._metrics.forget(site)
