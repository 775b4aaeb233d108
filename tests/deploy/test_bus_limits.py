"""A bus of many sites: what `deploy/nats` allows, and what `doctor` says of any other."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats.js.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from bus import subjects
from bus.buckets import prepare
from bus.connection import connect
from cli.doctor import doctor
from cli.target import Target
from tests.buses import BusServer, free_port

DEPLOYED = Path(__file__).parents[2] / "deploy/nats/nats.conf"
STREAM = f"KV_{subjects.OPTIONS}"
DEFAULT = 1_000
"""Consumers of a stream that NATS allows unless told otherwise."""


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[BusServer]:
    """The bus with the configuration that is deployed, but for addresses and folder."""
    server = BusServer(tmp_path)
    text = DEPLOYED.read_text(encoding="utf-8")
    for old, new in (
        ("0.0.0.0:4222", f"127.0.0.1:{server.port}"),
        ("127.0.0.1:8222", f"127.0.0.1:{free_port()}"),
        ("/data", str(tmp_path / "store")),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "nats.conf").write_text(text, encoding="utf-8")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[BusServer]:
    """A bus whose configuration says nothing of consumers."""
    server = BusServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def watch(server: BusServer, count: int) -> int:
    """Makes so many consumers of the bucket of options, as services do; how many there are then."""
    connection = await connect(server.url, "tester")
    try:
        stream = connection.jetstream()
        await prepare(stream)
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=60.0
        )
        making = [stream.add_consumer(STREAM, config) for _ in range(count)]
        for made in await asyncio.gather(*making, return_exceptions=True):
            assert not isinstance(made, Exception) or isinstance(made, nats.js.errors.APIError)
        return (await stream.stream_info(STREAM)).state.consumer_count
    finally:
        await connection.close()


def told(server: BusServer, output: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    """What the doctor says of consumers: how bad it is, the text and the cure."""
    doctor(target=Target(server=server.url, site="campus"), only=("bus",), json=True)
    found = [each["finding"] for each in json.loads(output.readouterr().out)]
    (finding,) = [each for each in found if "consumers" in each["text"]]
    return finding["state"], finding["text"], finding["cure"]


def test_the_deployed_bus_has_room_for_more_sites_than_nats_allows_by_itself(
    deployed: BusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(watch(deployed, DEFAULT + 100)) == DEFAULT + 100
    state, text, cure = told(deployed, capsys)
    assert (state, cure) == ("ok", "")
    assert f"{STREAM} has {DEFAULT + 100} consumers" in text


def test_the_doctor_finds_a_bus_well_that_has_room_for_many_sites_more(
    plain: BusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(watch(plain, 790)) == 790
    assert told(plain, capsys)[0] == "ok"


def test_the_doctor_warns_of_a_bus_that_has_room_for_few_sites_more(
    plain: BusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(watch(plain, 800)) == 800
    state, text, cure = told(plain, capsys)
    assert state == "warn"
    assert f"room for {DEFAULT}" in text
    assert "default_max_consumers" in cure


def test_nats_allows_a_thousand_consumers_of_a_stream_unless_told_otherwise(
    plain: BusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(watch(plain, DEFAULT + 100)) == DEFAULT
    assert told(plain, capsys)[0] == "warn"
