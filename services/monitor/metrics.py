"""What Prometheus learns of sites' deployments, events and mails.

The numbers of deployments and events are those of the history database, so that a monitor that
starts again goes on where the one before it stopped. Only the copy that holds the history tells
them, and no longer than it is known to hold it: sums over copies are right.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.events import Kind
from services.monitor.history import Totals

MailOutcome = Literal["sent", "failed"]
"""What comes of a mail: the mail server takes it, or it is tried again."""

# There at 0 from the start: Prometheus does not see a counter rise that begins at 1.
_NO_EVENTS: Final[Mapping[str, int]] = dict.fromkeys(get_args(Kind), 0)


class _Shown(Struct, frozen=True):
    totals: Totals | None = None
    lag: int | None = None
    until: float = 0.0


class SiteFigures:
    """What is shown of one site: the totals of its last batch, replaced as a whole."""

    def __init__(self) -> None:
        self._shown = _Shown()

    def show(self, totals: Totals, lag: int, until: float) -> None:
        """These are the totals now, and so many events are not applied yet.

        From ``until`` on, by the monotonic clock, another copy may show them.
        """
        self._shown = _Shown(totals, lag, until)

    def lags(self, lag: int) -> None:
        """So many events are not applied yet."""
        self._shown = replace(self._shown, lag=lag)

    def hide(self) -> None:
        """Another copy tells them."""
        self._shown = _Shown()

    def now(self) -> _Shown:
        """What is shown now; read from other threads too."""
        return self._shown


class HistoryMetrics(Collector):
    """The figures of one site, or of many."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sites: dict[str, SiteFigures] = {}
        registry.register(self)

    def of(self, site: str) -> SiteFigures:
        """The figures of a site, shown from now on."""
        return self._sites.setdefault(site, SiteFigures())

    def forget(self, site: str) -> None:
        """Shows a site no longer."""
        self._sites.pop(site, None)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, in another thread."""
        deployments = CounterMetricFamily(
            "imageinvoker_deployments",
            "Deployments, by how far they came: one that finished was scheduled and accepted too.",
            labels=["site", "outcome"],
        )
        events = CounterMetricFamily(
            "imageinvoker_events", "Events of the site, by kind.", labels=["site", "kind"]
        )
        lag = GaugeMetricFamily(
            "imageinvoker_monitor_lag_events",
            "Events that the history does not hold yet.",
            labels=["site"],
        )
        for site, figures in dict(self._sites).items():
            shown = figures.now()
            if shown.totals and time.monotonic() < shown.until:
                for outcome, total in shown.totals.deployments.items():
                    deployments.add_metric([site, outcome], total)
                for kind, total in {**_NO_EVENTS, **shown.totals.events}.items():
                    events.add_metric([site, kind], total)
            if shown.lag is not None:
                lag.add_metric([site], shown.lag)
        yield from (deployments, events, lag)


class MailMetrics:
    """Counts how often a mail was handed in."""

    def __init__(self, registry: CollectorRegistry, site: str) -> None:
        mails = Counter(
            "imageinvoker_mails",
            "Tries to hand a mail in to the mail server, by what came of them.",
            ["site", "outcome"],
            registry=registry,
        )
        outcomes: tuple[MailOutcome, ...] = get_args(MailOutcome)
        self._mails: Final = {outcome: mails.labels(site, outcome) for outcome in outcomes}

    def ended(self, outcome: MailOutcome) -> None:
        """One try has ended."""
        self._mails[outcome].inc()
