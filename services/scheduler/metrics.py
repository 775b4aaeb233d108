"""What Prometheus learns of the requests that wait in the stream."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from prometheus_client import CollectorRegistry, Gauge

from bus import subjects
from bus.connection import Connection
from bus.waiting import end

EVERY: Final = 5.0
"""Seconds between two looks at the stream."""
_PATIENCE: Final = 2.0


class QueueMetrics:
    """Looks at the site's requests every few seconds; each copy of the scheduler sees the same."""

    def __init__(self, registry: CollectorRegistry, connection: Connection, site: str) -> None:
        self._stream = connection.jetstream()
        self._site = site
        self._requests = Gauge(
            "imageinvoker_queue_requests",
            "Accepted requests that are still to be carried out; no number if unknown.",
            ["site"],
            registry=registry,
        ).labels(site)
        self._oldest = Gauge(
            "imageinvoker_queue_oldest_seconds",
            "Age of the oldest of them, 0 if there is none; no number if unknown.",
            ["site"],
            registry=registry,
        ).labels(site)
        self._set(math.nan, math.nan)
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("scheduler").bind(site=site)

    def start(self) -> None:
        """Begins to look; the scheduler's consumer is there already."""
        self._task = asyncio.create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """Looks no longer."""
        if self._task:
            await end(self._task)

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    self._set(await self._waiting(), await self._age())
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._log.debug("requests cannot be counted", error=type(error).__name__)
                self._set(math.nan, math.nan)
            await asyncio.sleep(EVERY)

    async def _waiting(self) -> int:
        info = await self._stream.consumer_info(subjects.REQUESTS, subjects.carrier(self._site))
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _age(self) -> float:
        try:
            first = await self._stream.get_msg(
                subjects.REQUESTS, 1, subject=subjects.request(self._site), next=True, direct=True
            )
        except nats.js.errors.NotFoundError:
            return 0.0
        now = datetime.now(UTC)
        # The bus has a clock of its own.
        return max(0.0, (now - (first.time or now)).total_seconds())

    def _set(self, requests: float, oldest: float) -> None:
        self._requests.set(requests)
        self._oldest.set(oldest)
