"""The scheduler: turns accepted requests into scheduled jobs, exactly once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import contract
from bus.events import EventLog
from engine.finding import find
from services.admission import Admission
from services.database import DatabaseMetrics
from services.running import Program, Site
from services.scheduler.carrier import Carrier
from services.scheduler.intake import Intake
from services.scheduler.metrics import QueueMetrics


def program(address: str) -> Program:
    """The scheduler of a deployment server; its engine may stand before the address.

    Raises:
        EngineError: there is no such engine.
    """
    found = find(address)

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "scheduler")
        engine = found.open(site.name, measured.observer(found.name))
        site.health.needs("the deployment server", engine.sign_of_life)
        queue = QueueMetrics(site.registry, site.connection, site.name)
        events = EventLog(site.connection, site.name)
        admission = Admission(site.connection, site.name, site.options, events)
        intake = Intake(site, engine, admission, events)
        carrier = Carrier(site, engine, admission, events)
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
            await admission.stop()
            await engine.close()

    return serving
