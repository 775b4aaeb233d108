"""The scheduler: turns accepted requests into scheduled jobs, exactly once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import contract
from bus.sessions import Verifier
from express.database import Database
from express.layout_cache import LayoutCache
from services.running import Program, Site
from services.scheduler.carrier import Carrier
from services.scheduler.intake import Intake


def program(dsn: str) -> Program:
    """The scheduler of the deployment server behind ``dsn``, an ODBC connection string."""

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        asking, carrying = Database(dsn), Database(dsn)
        layouts = LayoutCache()
        verifier = Verifier(site.connection, site.name)
        intake = Intake(site, asking, layouts, verifier)
        carrier = Carrier(site, carrying, layouts)
        service = site.service("scheduler", "Schedules what technicians pick")
        service.serve(contract.SCHEDULE, intake.schedule)
        service.serve(contract.STATUS, intake.status)
        try:
            await verifier.start()
            await intake.start()
            await carrier.start()
            await service.start()
            yield
            await service.leave()
        finally:
            # Questions that wait for an outcome need the carrier until they are answered.
            await carrier.stop()
            await verifier.stop()
            await asking.close()
            await carrying.close()

    return serving
