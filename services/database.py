"""Databases as a service watches them: how long they take, and what fails."""

from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from engine.protocol import Observer, Step
from services.measures import SECONDS

HISTORY: Final = "history"
"""What the database is called in which the monitor keeps history; others are called by engines."""


class DatabaseMetrics:
    """Times what a service asks of its databases, and counts what fails."""

    def __init__(self, registry: CollectorRegistry, site: str, service: str) -> None:
        self._who: Final = (site, service)
        self._seconds = Histogram(
            "imageinvoker_database_seconds",
            "Seconds that a database takes, to give a connection and to answer a statement.",
            ["site", "service", "database", "step"],
            registry=registry,
            buckets=SECONDS,
        )
        self._failures = Counter(
            "imageinvoker_database_failures",
            "Connections and statements that failed, or that nobody would wait for any longer.",
            ["site", "service", "database", "step"],
            registry=registry,
        )

    def observer(self, which: str) -> Observer:
        """Counts the steps of one of them; its series are there at 0 from now on."""
        steps: tuple[Step, ...] = get_args(Step)
        series = {
            step: (
                self._seconds.labels(*self._who, which, step),
                self._failures.labels(*self._who, which, step),
            )
            for step in steps
        }

        def observe(step: Step, took: float, well: bool) -> None:
            seconds, failures = series[step]
            seconds.observe(took)
            if not well:
                failures.inc()

        return observe
