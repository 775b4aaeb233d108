"""What `docs/scaling.md` reckons with: the pure parts of its measuring."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.harness import MeasureError
from bench.scale_bus import BusCounts, Traffic, counted, kind_of, overheard, pid_of
from bench.scale_copies import system_of
from bench.scale_journey import a_journey
from bench.scale_load import Travelled
from bench.scale_report import journey_table, placed, sites_picture, sites_table, table
from bench.scale_sites import Cost, Estate, constancy
from bus import subjects
from bus.connection import connect
from tests.buses import BusServer


def counts(sites: int, consumers: int = 15) -> BusCounts:
    return BusCounts(
        messages_in=0,
        messages_out=0,
        connections=4 * sites,
        subscriptions=160 * sites,
        consumers=consumers * sites,
        most_consumers=4 * sites,
        streams={"IMAGING_EVENTS": 0},
    )


def estate(sites: int, a_site: float = 0.005) -> Estate:
    cost = Cost(services=a_site * sites, bus=0.001 * sites, messages=20.0 * sites, seconds=20.0)
    loaded = Cost(services=0.02 * sites, bus=0.002 * sites, messages=30.0 * sites, seconds=20.0)
    return Estate(
        sites=sites,
        started=1.0,
        at_rest=cost,
        loaded=loaded,
        travelled=Travelled(journeys=2 * sites, scheduled=2 * sites, p50=0.1, p99=0.2),
        resident=5e6 * sites,
        resident_bus=1e6 * sites,
        counts=counts(sites),
    )


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        (subjects.endpoint("campus", "menu", "welcome", "aa"), "menu welcome"),
        (subjects.event("campus", "aa", "menu_shown"), "event menu_shown"),
        (subjects.request("campus", "aa"), "request"),
        (subjects.rejected("campus", "aa"), "rejected"),
        (subjects.menu_checked("campus"), "between copies"),
        ("$KV.imaging_live.campus.aa", "bucket imaging_live"),
        ("$JS.API.CONSUMER.MSG.NEXT.IMAGING_EVENTS.x1", "JetStream CONSUMER MSG"),
        ("$JS.API.DIRECT.GET.IMAGING_REQUESTS", "JetStream DIRECT GET"),
        ("$JS.ACK.IMAGING_REQUESTS.scheduler-campus.1.2.3.4.5", "acknowledgements"),
        ("_INBOX_aa.x.1", "answers and deliveries"),
        ("$SRV.PING", "$SRV"),
    ],
)
def test_a_kind_holds_no_site_no_machine_and_no_id(subject: str, kind: str) -> None:
    assert kind_of(subject) == kind


def test_cost_per_site_is_constant_where_all_of_it_grows_with_the_sites() -> None:
    assert constancy(estate(200), estate(25)) == pytest.approx(1.0)


def test_whatever_grows_most_decides_whether_cost_per_site_is_constant() -> None:
    dear = msgspec.structs.replace(estate(200), counts=counts(200, consumers=45))
    assert constancy(dear, estate(25)) == pytest.approx(3.0)
    assert constancy(estate(200, 0.011), estate(25)) == pytest.approx(2.0)


def test_a_journey_costs_what_is_taken_beside_the_rest() -> None:
    found = estate(25)
    assert found.messages_of_journey == pytest.approx((30 - 20) * 20 / 2)
    assert found.processor_of_journey == pytest.approx((0.022 - 0.006) * 20 / 2)


def test_what_a_site_takes_at_rest_is_no_cost_of_a_journey() -> None:
    loaded, at_rest = Traffic(), Traffic()
    loaded.messages.update({"menu show": 10, "JetStream CONSUMER MSG": 50})
    loaded.bytes.update({"menu show": 900, "JetStream CONSUMER MSG": 500})
    at_rest.messages.update({"JetStream CONSUMER MSG": 60})
    at_rest.bytes.update({"JetStream CONSUMER MSG": 600})
    after = msgspec.structs.replace(counts(1), streams={"IMAGING_EVENTS": 5000, "KV_x": 10})
    found = a_journey(loaded, at_rest, counts(1), after, 10)
    assert found.messages == {"menu show": 1.0}
    assert found.bytes == {"menu show": 90.0}
    assert found.kept == {"IMAGING_EVENTS": 500.0, "KV_x": 1.0}
    assert "| menu show | 1.0 | 90 |" in journey_table(found)


def test_the_counts_of_a_server_are_read_from_its_pages() -> None:
    streams = [
        {"name": "A", "state": {"bytes": 7, "consumer_count": 3}},
        {"name": "B", "state": {"bytes": 0, "consumer_count": 9}},
    ]
    server = {"in_msgs": 1, "out_msgs": 2, "connections": 3, "subscriptions": 4}
    found = counted(server, {"consumers": 12, "account_details": [{"stream_detail": streams}]})
    assert (found.streams, found.consumers, found.most_consumers) == ({"A": 7, "B": 0}, 12, 9)
    with pytest.raises(MeasureError, match="in_msgs"):
        counted({}, {"consumers": 0})


def test_waiting_for_a_disk_is_idle_and_flushes_of_all_disks_count() -> None:
    stat = "cpu  10 0 5 70 15 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    disk = " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 42 17\n"
    part = " 254 1 vda1 1 2 3 4 5 6 7 8 9 10 11\n"
    found = system_of(stat, disk + part + disk)
    assert (found.idle, found.all, found.flushes) == (85.0, 100.0, 84)


def test_measures_take_the_place_of_those_before_and_nothing_else() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb <!-- y -->\n"
    assert placed(text, "x", r"new \1") == "a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb <!-- y -->\n"
    with pytest.raises(ValueError, match="no place for y"):
        placed(text, "y", "new")


def test_a_table_has_a_head_and_numbers_at_the_right() -> None:
    assert table([["sites", "1"], ["MB", "2"]]) == "| sites | 1 |\n|---|--:|\n| MB | 2 |"


def test_the_report_of_sites_shows_costs_of_one_site_and_is_the_same_each_time() -> None:
    estates = [estate(25), estate(200)]
    told = sites_table(estates)
    assert "| at rest: services, ms of processor a second and site | 5.00 | 5.00 |" in told
    assert "| consumers of the stream with most | 100 | 800 |" in told
    picture = sites_picture(estates)
    assert picture.startswith("<?xml")
    assert picture == sites_picture(estates)


@pytest.fixture
def own_bus(tmp_path: Path) -> Iterator[BusServer]:
    bus = BusServer(tmp_path)
    bus.start()
    yield bus
    bus.stop()


async def test_a_listener_hears_what_others_publish(own_bus: BusServer) -> None:
    other = await connect(own_bus.url, "other")
    try:
        async with overheard(own_bus.url) as traffic:
            await other.publish("imaging.campus.menu.show.aa", b"12345", headers={"a": "bc"})
            await other.flush()
    finally:
        await other.close()
    assert traffic.messages["menu show"] == 1
    assert traffic.bytes["menu show"] == len("imaging.campus.menu.show.aa") + 5 + 7


def test_a_server_is_found_by_its_settings(own_bus: BusServer, tmp_path: Path) -> None:
    found = pid_of(tmp_path / "nats.conf")
    assert "nats-server" in Path(f"/proc/{found}/cmdline").read_text()
    with pytest.raises(MeasureError):
        pid_of(tmp_path / "other.conf")
