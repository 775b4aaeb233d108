"""The scheduler: turns accepted requests into scheduled jobs, exactly once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import contract
from bus.events import EventLog
from express.connection import is_sqlite
from express.database import Database
from express.layout_cache import LayoutCache
from services.admission import Admission
from services.database import DatabaseMetrics, sign_of_life
from services.running import Program, Site
from services.scheduler.carrier import TURNS, Carrier
from services.scheduler.intake import Intake
from services.scheduler.metrics import QueueMetrics


def program(dsn: str) -> Program:
    """The scheduler of the deployment server behind ``dsn``, an ODBC connection string."""

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "scheduler")
        asking, carrying = (Database(dsn, observe=measured.observer("express")) for _ in range(2))
        site.health.needs("the database", lambda: sign_of_life(asking))
        queue = QueueMetrics(site.registry, site.connection, site.name)
        layouts = LayoutCache()
        events = EventLog(site.connection, site.name)
        admission = Admission(site.connection, site.name, site.options, events)
        intake = Intake(site, asking, layouts, admission, events)
        # SQLite has one writer: whoever is not it would only be in the way.
        turns = 1 if is_sqlite(dsn) else TURNS
        carrier = Carrier(site, carrying, layouts, admission, events, turns)
        service = site.service("scheduler", "Schedules what technicians pick")
        service.serve(contract.SCHEDULE, intake.schedule)
        service.serve(contract.STATUS, intake.status)
        try:
            await admission.start()
            await intake.start()
            await carrier.start()
            queue.start()
            await service.start()
            yield
            await service.leave()
        finally:
            await queue.stop()
            # Questions that wait for an outcome need the carrier until they are answered.
            await carrier.stop()
            await intake.stop()
            await admission.stop()
            await asking.close()
            await carrying.close()

    return serving
