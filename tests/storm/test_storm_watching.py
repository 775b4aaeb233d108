"""What services' processes take while a storm goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from cli.fail import CommandError
from cli.storm.results import Usage
from cli.storm.watching import Watched, watched, watching
from services.health import Health
from services.measures import measure_process
from services.metrics import served
from tests.buses import free_port


@contextmanager
def telling(*, process: bool = True) -> Iterator[str]:
    """A copy of a service that tells of this process at the address."""
    registry = CollectorRegistry()
    if process:
        measure_process(registry, "lab", "menu")
    address = f"127.0.0.1:{free_port()}"
    with served(registry, address, Health()):
        yield f"http://{address}/metrics"


async def test_memory_and_processor_time_of_a_service_are_read_under_its_name() -> None:
    with telling() as url:
        (copy,) = await watched([url])
        async with watching([copy]):
            sum(number * number for number in range(3_000_000))
    found = copy.served()
    assert (found.name, found.url) == ("menu", url)
    assert found.resident_before > 10e6
    assert found.resident_max >= max(found.resident_before, found.resident_after)
    assert found.processor_seconds > 0
    assert len(found.usage) >= 2


async def test_an_address_that_tells_nothing_is_refused_by_name() -> None:
    with telling(process=False) as url, pytest.raises(CommandError, match="process_resident"):
        await watched([url])
    for url in (f"http://127.0.0.1:{free_port()}/metrics", "file:///etc/passwd", "nonsense"):
        with pytest.raises(CommandError, match=url):
            await watched([url])


async def test_a_service_that_ends_meanwhile_spoils_nothing() -> None:
    with telling() as url:
        (copy,) = await watched([url])
        async with asyncio.timeout(20):
            watch = watching([copy])
            await watch.__aenter__()
    await watch.__aexit__(None, None, None)
    assert len(copy.served().usage) >= 1


def test_a_copy_that_was_started_anew_has_used_no_less_than_nothing() -> None:
    copy = Watched("http://127.0.0.1/metrics")
    copy.usage = [Usage(0, 1, 10), Usage(1, 1, 12), Usage(2, 1, 0.5), Usage(3, 1, 1.5)]
    assert copy.served().processor_seconds == 3
