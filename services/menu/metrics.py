"""What Prometheus learns of the menus."""

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.menu.tally import Tally


class MenuMetrics(Collector):
    """Reads the keeper's tally whenever Prometheus asks, so that a menu costs nothing more."""

    def __init__(self, tally: Tally, site: str) -> None:
        self._tally = tally
        self._site = site

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The tally as it is now."""
        tally = self._tally
        counted = {
            "menu_cache_hits": ("Answers for which nothing had to be read or built.", tally.ready),
            "menu_cache_misses": ("Answers that had to wait for a menu.", tally.waited),
            "menu_stale_answers": (
                "Answers out of date, since the deployment server could not be asked in time.",
                tally.stale,
            ),
            "menu_builds": ("Menus built.", tally.builds),
            "menu_checks": (
                "Questions to the database whether the job tree has changed.",
                tally.checks,
            ),
            "menu_readings": ("Readings of the job tree that were begun.", tally.readings),
            "menu_shared_readings": (
                "Job trees that another copy of the service had read.",
                tally.shared,
            ),
            "menu_failed_readings": (
                "Times that the database could not be asked or read.",
                tally.failed_readings,
            ),
        }
        for name, (text, value) in counted.items():
            counter = CounterMetricFamily(f"imageinvoker_{name}", text, labels=["site"])
            counter.add_metric([self._site], value)
            yield counter
        age = GaugeMetricFamily(
            "imageinvoker_menu_age_seconds",
            "Seconds since the menu shown last was known to be up to date; no number if never.",
            labels=["site"],
        )
        age.add_metric([self._site], tally.age if math.isfinite(tally.age) else math.nan)
        yield age
