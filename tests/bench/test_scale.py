"""What `docs/scaling.md` reckons with: the pure parts of its measuring."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.harness import MeasureError, Reach
from bench.scale_bus import BusCounts, Traffic, counted, kind_of, overheard, pid_of
from bench.scale_copies import system_of
from bench.scale_journey import a_journey
from bench.scale_load import Travelled
from bench.scale_memory import Remembered
from bench.scale_out import DOCUMENT
from bench.scale_reckoning import (
    CONSUMERS_SET,
    EVENTS_DAYS,
    LIVE_DAYS,
    REJECTED_DAYS,
    REMEMBERED,
    STORE_SET,
    TRIES_DAYS,
    reckoned,
    rows,
)
from bench.scale_report import journey_table, placed, sites_picture, sites_table, table
from bench.scale_sites import Cost, Estate, growth
from bus import subjects
from bus.buckets import prepare
from bus.connection import connect
from tests.buses import BusServer


def counts(sites: int, consumers: int = 15) -> BusCounts:
    return BusCounts(
        messages_in=0,
        messages_out=0,
        connections=4 * sites,
        subscriptions=160 * sites,
        consumers={"KV_imaging_options": 4 * sites, "IMAGING_EVENTS": (consumers - 4) * sites},
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
    found = growth(estate(200), estate(10))
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


def test_each_cost_of_a_site_that_grows_is_told() -> None:
    dear = msgspec.structs.replace(estate(200), counts=counts(200, consumers=45))
    assert growth(dear, estate(10))["consumers"] == pytest.approx(3.0)
    assert growth(estate(200, 0.011), estate(10))["processor at rest"] == pytest.approx(2.0)
    slow = msgspec.structs.replace(
        estate(200), travelled=Travelled(journeys=400, scheduled=400, p50=9.0, p99=9.0)
    )
    assert max(growth(slow, estate(10)).values()) == pytest.approx(1.0)


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
    told = journey_table(found, Remembered(event=300.0, subject=200.0), 0.00013)
    assert "| menu show | 1.0 | 90 |" in told
    assert "| a subject more of `IMAGING_EVENTS` | 200 |" in told
    assert "| an fsync | 0.13 |" in told


def test_the_counts_of_a_server_are_read_from_its_pages() -> None:
    streams = [
        {"name": "A", "state": {"bytes": 7, "consumer_count": 3}},
        {"name": "B", "state": {"bytes": 0, "consumer_count": 9}},
    ]
    server = {"in_msgs": 1, "out_msgs": 2, "connections": 3, "subscriptions": 4}
    found = counted(server, {"account_details": [{"stream_detail": streams}]})
    assert (found.streams, found.consumers) == ({"A": 7, "B": 0}, {"A": 3, "B": 9})
    with pytest.raises(MeasureError, match="in_msgs"):
        counted({}, {})


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
    estates = [estate(10), estate(200)]
    told = sites_table(estates, Reach("<=", 1.2))
    assert "| at rest: services, ms of processor a second and site | 5.00 | 5.00 |" in told
    assert "| consumers a site of `KV_imaging_options` | 4.0 | 4.0 |" in told
    assert "`sites_cost` = 1.000, to reach <= 1.2: reached" in told
    picture = sites_picture(estates)
    assert picture.startswith("<?xml")
    assert picture == sites_picture(estates)


def test_the_report_of_sites_names_the_cost_that_is_not_constant() -> None:
    dear = msgspec.structs.replace(estate(200), resident=100e6 * 200)
    told = sites_table([estate(10), dear], Reach("<=", 1.2))
    assert "to reach <= 1.2: **not reached**" in told
    assert "here the memory" in told


def test_what_is_read_from_a_page_is_the_numbers_of_its_tables() -> None:
    page = "9\n<!-- x -->\ntext\n| a | 1 | 2 |\n|---|--:|--:|\n| `b` | 1,234.5 | - |\n"
    page += "| idle | 7 % | 1, 2, 3 |\n<!-- /x -->\n| c | 1 |\n"
    assert rows(page, "x") == {"a": [1.0, 2.0], "`b`": [1234.5], "idle": [7.0]}
    with pytest.raises(ValueError, match="no place for y"):
        rows(page, "y")


def test_the_page_reckons_with_what_its_own_tables_say() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert placed(page, "reckoning", reckoned(page)) == page


def test_what_is_reckoned_follows_what_is_measured() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    (size,) = rows(page, "journey")["IMAGING_EVENTS"]
    twice = page.replace(f"| IMAGING_EVENTS | {size:.0f} |", f"| IMAGING_EVENTS | {2 * size:.0f} |")
    assert twice != page
    assert reckoned(twice) != reckoned(page)
    without = page.replace("| a subject more of `IMAGING_EVENTS` |", "| something else |")
    with pytest.raises(ValueError, match="a subject more"):
        reckoned(without)


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


async def test_the_page_reckons_with_the_limits_and_ages_that_are_set(own_bus: BusServer) -> None:
    connection = await connect(own_bus.url, "other")
    try:
        stream = connection.jetstream()
        await prepare(stream)
        infos = {each.config.name: each.config for each in await stream.streams_info()}
    finally:
        await connection.close()
    ages = {
        subjects.EVENTS: EVENTS_DAYS,
        subjects.REJECTED: REJECTED_DAYS,
        f"KV_{subjects.LIVE}": LIVE_DAYS,
        f"KV_{subjects.TRIES}": TRIES_DAYS,
    }
    for name, days in ages.items():
        assert infos[name].max_age == days * 86_400
    assert infos[subjects.EVENTS].duplicate_window == REMEMBERED
    settings = (Path(__file__).parents[2] / "deploy/nats/nats.conf").read_text(encoding="utf-8")
    assert f"default_max_consumers: {CONSUMERS_SET}\n" in settings
    assert f"max_file_store: {STORE_SET / 1e9:.0f}GB\n" in settings
