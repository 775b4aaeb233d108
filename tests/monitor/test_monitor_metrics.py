"""What the monitor counts is there at 0 before it rises, so that Prometheus sees the first rise."""

import math
import time
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest

from bus.events import Kind
from express.connection import sqlite_dsn
from express.database import Database
from services.database import DatabaseMetrics
from services.monitor.deployments import Counts
from services.monitor.history import History, Totals
from services.monitor.metrics import HistoryMetrics, MailMetrics
from tests.watched import Seen, counted


def seen(registry: CollectorRegistry) -> Seen:
    return counted(generate_latest(registry).decode())


def by_label(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """The values of a metric that has one label beside the site."""
    return {key[1]: value for key, value in seen(registry).items() if key[0] == name}


async def test_of_an_empty_history_every_kind_of_event_and_every_outcome_is_there_at_0(
    tmp_path: Path,
) -> None:
    registry = CollectorRegistry()
    metrics = HistoryMetrics(registry).of("main")
    database = Database(sqlite_dsn(tmp_path / "history.db"), create=True)
    history = History(database, "main")
    await history.prepare()
    metrics.show(await history.totals(), 0, math.inf)
    await database.close()
    assert by_label(registry, "imageinvoker_events_total") == dict.fromkeys(get_args(Kind), 0)
    assert by_label(registry, "imageinvoker_deployments_total") == dict.fromkeys(Counts._fields, 0)


def test_a_kind_of_event_that_another_version_has_counted_is_shown_beside_ours() -> None:
    registry = CollectorRegistry()
    metrics = HistoryMetrics(registry).of("main")
    metrics.show(Totals({"menu_shown": 7, "of_tomorrow": 3}, {}), 0, math.inf)
    known = dict.fromkeys(get_args(Kind), 0)
    assert by_label(registry, "imageinvoker_events_total") == {
        **known,
        "menu_shown": 7,
        "of_tomorrow": 3,
    }


def test_while_the_history_is_not_known_or_another_copys_there_are_no_totals() -> None:
    registry = CollectorRegistry()
    metrics = HistoryMetrics(registry).of("main")
    assert seen(registry) == {}
    metrics.lags(5)
    assert seen(registry) == {("imageinvoker_monitor_lag_events",): 5}
    metrics.show(Totals({}, {}), 0, math.inf)
    metrics.hide()
    assert seen(registry) == {}


def test_totals_that_another_copy_may_show_by_now_are_shown_no_longer() -> None:
    registry = CollectorRegistry()
    metrics = HistoryMetrics(registry).of("main")
    metrics.show(Totals({"menu_shown": 7}, {}), 3, time.monotonic())
    assert seen(registry) == {("imageinvoker_monitor_lag_events",): 3}


def test_mails_are_counted_from_0_by_what_came_of_them() -> None:
    registry = CollectorRegistry()
    metrics = MailMetrics(registry, "main")
    assert by_label(registry, "imageinvoker_mails_total") == {"sent": 0, "failed": 0}
    metrics.ended("failed")
    assert by_label(registry, "imageinvoker_mails_total") == {"sent": 0, "failed": 1}


async def test_each_database_of_a_service_is_timed_by_itself(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    measured = DatabaseMetrics(registry, "main", "monitor")
    express, history = measured.observer("express"), measured.observer("history")
    database = Database(sqlite_dsn(tmp_path / "history.db"), create=True, observe=history)
    await database.sign_of_life()
    await database.close()
    found = seen(registry)
    count, failures = "imageinvoker_database_seconds_count", "imageinvoker_database_failures_total"
    for step in ("connection", "statement"):
        assert found[count, "history", "monitor", step] >= 1
        assert found[count, "express", "monitor", step] == 0
        assert found[failures, "history", "monitor", step] == 0
    express("statement", 0.5, False)
    assert seen(registry)[failures, "express", "monitor", "statement"] == 1
