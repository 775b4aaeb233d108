"""What every service counts: its questions and itself."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bus import contract
from bus.__about__ import __version__

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The bounds of every histogram of times."""
_BOUNDS: Final = tuple(map(floatToGoString, (*SECONDS, inf)))
WELL: Final = "ok"
"""Stands where the code of a problem would, when there is none."""


def measure_process(registry: CollectorRegistry, site: str, service: str) -> None:
    """Tells which version runs, and what the operating system knows of the process."""
    ProcessCollector(registry=registry)
    Gauge(
        "imageinvoker_build_info",
        "1; the labels say which version runs.",
        ["site", "service", "version"],
        registry=registry,
    ).labels(site, service, __version__).set(1)


class _Answers:
    """What one endpoint has answered so far."""

    def __init__(self, codes: Iterable[str]) -> None:
        # There at 0 from the start: Prometheus does not see a counter rise that begins at 1.
        self.by_code = dict.fromkeys((WELL, *codes), 0)
        self.seconds = 0.0
        self.by_bound = [0] * (len(SECONDS) + 1)


class RequestMetrics(Collector):
    """Counts a service's questions, by endpoint and by the code of the answer.

    It keeps plain numbers, and makes metrics of them when Prometheus asks: to count must cost next
    to nothing. Only the event loop's thread counts, so it needs no lock.
    """

    def __init__(self, site: str, service: str) -> None:
        self._who: Final = [site, service]
        self._answers: Final = {
            endpoint.verb: _Answers(endpoint.problems)
            for endpoint in contract.ENDPOINTS
            if endpoint.service == service
        }

    def observe(self, endpoint: str, code: str | None, seconds: float) -> None:
        """One question has been answered."""
        answers = self._answers.get(endpoint)
        if answers is None:
            answers = self._answers[endpoint] = _Answers(())
        code = code or WELL
        answers.by_code[code] = answers.by_code.get(code, 0) + 1
        # Who is turned away is so at once, which would make a service seem quick that is not.
        if code != "overloaded":
            answers.seconds += seconds
            answers.by_bound[bisect_left(SECONDS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now; called in other threads."""
        requests = CounterMetricFamily(
            "imageinvoker_requests",
            "Questions that were answered, by the code of the problem, or ok.",
            labels=["site", "service", "endpoint", "code"],
        )
        seconds = HistogramMetricFamily(
            "imageinvoker_request_seconds",
            "Seconds from a question to its answer, of all that were not turned away.",
            labels=["site", "service", "endpoint"],
        )
        for endpoint, answers in dict(self._answers).items():
            who = [*self._who, endpoint]
            for code, count in dict(answers.by_code).items():
                requests.add_metric([*who, code], count)
            seconds.add_metric(
                who,
                list(zip(_BOUNDS, accumulate(answers.by_bound), strict=True)),
                answers.seconds,
            )
        yield requests
        yield seconds
