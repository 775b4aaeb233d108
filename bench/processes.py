"""What a process takes: processor time and memory, as the system counts them."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bench.harness import MeasureError

_TIMEOUT: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
MEGABYTE: Final = 1_000_000


@dataclass(frozen=True)
class Taken:
    """What a service's process has taken: seconds of processor time so far, and resident bytes."""

    processor: float
    resident: float


def taken_by_service(metrics: str) -> Taken:
    """What a service says of its own process at the address of its metrics.

    Raises:
        MeasureError: it does not tell.
    """
    told = counters(metrics)
    try:
        return Taken(told["process_cpu_seconds_total"], told["process_resident_memory_bytes"])
    except KeyError as error:
        raise MeasureError(f"{metrics} does not tell {error}") from error


def counters(metrics: str, **labels: str) -> dict[str, float]:
    """The values that a service tells with these labels, by their names.

    Raises:
        MeasureError: it does not answer.
    """
    return {
        sample.name: sample.value
        for sample in _samples(metrics)
        if labels.items() <= sample.labels.items()
    }


def total(metrics: str, name: str) -> float:
    """The sum of all values of one name that a service tells.

    Raises:
        MeasureError: it does not answer.
    """
    return sum(sample.value for sample in _samples(metrics) if sample.name == name)


def _samples(metrics: str) -> list[Sample]:
    try:
        with urllib.request.urlopen(metrics, timeout=_TIMEOUT) as answer:
            page = answer.read().decode()
    except (OSError, urllib.error.URLError) as error:
        raise MeasureError(f"{metrics} does not answer: {error}") from error
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process on this machine has taken so far.

    It is counted as the services count their own: user and system time of all threads (proc(5)).
    """
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS
