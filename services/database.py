"""The deployment server's database as a service watches it: its times and its sign of life."""

from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from express.database import Database, Step
from services.measures import SECONDS


class DatabaseMetrics:
    """Times what is asked of the database, and counts what fails; `observe` is for `Database`."""

    def __init__(self, registry: CollectorRegistry, site: str, service: str) -> None:
        seconds = Histogram(
            "imageinvoker_database_seconds",
            "Seconds that the database takes, to give a connection and to answer a statement.",
            ["site", "service", "step"],
            registry=registry,
            buckets=SECONDS,
        )
        failures = Counter(
            "imageinvoker_database_failures",
            "Connections and statements that failed, or that nobody would wait for any longer.",
            ["site", "service", "step"],
            registry=registry,
        )
        steps: tuple[Step, ...] = get_args(Step)
        self._seconds: Final = {step: seconds.labels(site, service, step) for step in steps}
        self._failures: Final = {step: failures.labels(site, service, step) for step in steps}

    def observe(self, step: Step, seconds: float, well: bool) -> None:
        """One step has ended."""
        self._seconds[step].observe(seconds)
        if not well:
            self._failures[step].inc()


async def sign_of_life(database: Database) -> None:
    """Asks the database for something that it always has.

    Raises:
        Exception: it does not answer.
    """
    await database.transact(lambda transaction: transaction.fetch("SELECT 1"))
