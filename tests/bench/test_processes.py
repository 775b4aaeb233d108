"""What processes take, as it is read."""

import os
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, ProcessCollector

from bench.harness import MeasureError
from bench.processes import MEGABYTE, counters, processor_time, taken_by_service
from services.health import Health
from services.metrics import served
from tests.buses import free_port


def test_a_process_says_of_itself_what_the_system_counts() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    address = f"127.0.0.1:{free_port()}"
    before = processor_time(os.getpid())
    with served(registry, address, Health()):
        taken = taken_by_service(f"http://{address}/metrics")
    after = processor_time(os.getpid())
    # Both count in hundredths of a second, but add them up in another way.
    assert before - 1e-6 <= taken.processor <= after + 1e-6
    assert after <= time.process_time() + 1
    assert taken.resident > MEGABYTE


def test_counters_are_those_of_the_labels_that_are_asked_for() -> None:
    registry = CollectorRegistry()
    tries = Counter("tries", "How many.", ["site"], registry=registry)
    tries.labels("north").inc(3)
    tries.labels("south").inc(4)
    address = f"127.0.0.1:{free_port()}"
    with served(registry, address, Health()):
        assert counters(f"http://{address}/metrics", site="south")["tries_total"] == 4


def test_a_service_that_does_not_tell_is_no_measure() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(MeasureError, match="does not answer"):
        taken_by_service(f"http://{address}/metrics")
    with (
        served(CollectorRegistry(), address, Health()),
        pytest.raises(MeasureError, match="does not tell 'process_cpu_seconds_total'"),
    ):
        taken_by_service(f"http://{address}/metrics")
