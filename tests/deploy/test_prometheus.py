"""Rules and scrape configuration, against a real Prometheus that watches a running site."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bus.machines import machine_key
from services.auth.metrics import CalloutMetrics
from tests.deploy.observed import (
    DEPLOY,
    MACHINES,
    PROMETHEUS,
    SITE,
    TECHNICIAN,
    Prometheus,
    watched,
)

__all__ = ["watched"]

COMPARISON: Final = re.compile(r"(?P<left>.+) (==|>|<) (?P<number>[0-9.]+)")
WHEN_UNWATCHED: Final = "ImageInvokerNothingWatched"
LABELS: Final = {
    "__name__", "job", "instance", "le", "site", "service", "version", "endpoint", "code",
    "database", "step", "protection", "outcome", "scope", "answer", "kind",
}  # fmt: skip
"""All that series may be told apart by: each has few values, whatever people do."""


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> str:
    """Runs promtool, which must find nothing wrong."""
    program = shutil.which("promtool")
    assert program, "promtool is not installed: apt install prometheus"
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(file: str) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / "rules" / file).read_text())["groups"]:
        yield from group["rules"]


def left_of(alert: dict[str, Any]) -> str:
    """What an alert compares with a number."""
    found = COMPARISON.fullmatch(alert["expr"].strip())
    assert found, f"{alert['alert']} compares nothing with a number"
    return found["left"]


def test_promtool_finds_nothing_wrong_with_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    for file in sorted((PROMETHEUS / "rules").glob("*.yml")):
        promtool("check", "rules", "--lint=all", "--lint-fatal", str(file))


def test_every_alert_fires_when_it_must_and_not_before() -> None:
    promtool("test", "rules", "alerts.yml", folder=PROMETHEUS / "tests")


def test_every_alert_is_tested_firing_and_silent() -> None:
    tested: dict[str, set[bool]] = {}
    for case in yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]:
        for look in case.get("alert_rule_test", ()):
            tested.setdefault(look["alertname"], set()).add("exp_alerts" in look)
    for alert in rules("alerts.yml"):
        # One that waits for nothing cannot be caught before it fires.
        wanted = {True, False} if "for" in alert else {True}
        assert tested.get(alert["alert"]) == wanted, alert["alert"]


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do() -> None:
    for alert in rules("alerts.yml"):
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description"}


def test_all_services_of_a_site_are_scraped(watched: Prometheus) -> None:
    found = watched.query(f'up{{job="imageinvoker", site="{SITE}"}}')
    assert {labels["service"] for labels, _ in found} == {"menu", "auth", "scheduler", "monitor"}
    assert {value for _, value in found} == {1.0}


@pytest.mark.parametrize("rule", [*rules("recording.yml")], ids=lambda rule: rule["record"])
def test_what_is_recorded_has_numbers(watched: Prometheus, rule: dict[str, Any]) -> None:
    watched.eventually(rule["expr"])
    watched.eventually(rule["record"])


@pytest.mark.parametrize("alert", [*rules("alerts.yml")], ids=lambda alert: alert["alert"])
def test_what_an_alert_looks_at_has_numbers(watched: Prometheus, alert: dict[str, Any]) -> None:
    if alert["alert"] == WHEN_UNWATCHED:
        assert watched.query(alert["expr"]) == []
    else:
        watched.eventually(left_of(alert))


def test_prometheus_itself_has_no_trouble_with_any_rule(watched: Prometheus) -> None:
    watched.eventually("site:imageinvoker_queue_requests:max")
    groups = watched.ask("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) == sum(1 for file in ("alerts.yml", "recording.yml") for _ in rules(file))
    assert {(rule["health"], rule.get("lastError", "")) for rule in found} == {("ok", "")}


def test_an_alert_begins_where_no_domain_controller_answers(watched: Prometheus) -> None:
    watched.eventually(
        f'ALERTS{{alertname="ImageInvokerDirectoryUnavailable", site="{SITE}"}} == 1'
    )


def test_what_people_did_is_counted(watched: Prometheus) -> None:
    def count(expression: str) -> float:
        return sum(watched.eventually(f"sum({expression}) > 0"))

    questions = 'imageinvoker_requests_total{code="%s", endpoint="%s"}'
    assert count(questions % ("ok", "welcome")) == len(MACHINES)
    assert count(questions % ("ok", "show")) == len(MACHINES)
    assert count(questions % ("bad_request", "show")) == 1
    assert count(questions % ("unknown_item", "schedule")) == 1
    assert count(questions % ("unknown_request", "status")) == 1
    assert count(questions % ("locked_out", "login")) == 1
    assert count('imageinvoker_logins_total{protection="server", outcome="locked_out"}') == 1
    assert count('imageinvoker_login_locks_total{scope="machine"}') == 1
    assert count('imageinvoker_directory_seconds_count{answer="unavailable"}') >= 1
    assert count("imageinvoker_password_hashes_total") >= 4
    for outcome, deployments in (
        ("scheduled", 4),
        ("finished", 3),
        ("failed", 1),
        ("rejected", 1),
    ):
        watched.eventually(
            f'imageinvoker_deployments_total{{outcome="{outcome}"}} == {deployments}'
        )
    watched.eventually('imageinvoker_mails_total{outcome="failed"} >= 1')
    watched.eventually('imageinvoker_mails_total{outcome="sent"} == 0')


def test_prometheus_sees_the_first_event_of_a_kind_rise(watched: Prometheus) -> None:
    for kind in ("request_rejected", "login_locked"):
        watched.eventually(f'increase(imageinvoker_events_total{{kind="{kind}"}}[1h]) > 0')


def test_the_monitor_times_both_of_its_databases(watched: Prometheus) -> None:
    found = watched.query('imageinvoker_database_seconds_count{step="statement"} > 0')
    assert {(labels["service"], labels["database"]) for labels, _ in found} == {
        ("menu", "express"),
        ("scheduler", "express"),
        ("monitor", "express"),
        ("monitor", "history"),
    }


def test_no_series_is_told_apart_by_a_machine_a_person_or_a_request(watched: Prometheus) -> None:
    series = watched.ask("series", **{"match[]": '{job="imageinvoker", __name__!~"ALERTS.*"}'})
    assert {label for each in series for label in each} <= LABELS
    values = {value for each in series for value in each.values()}
    assert not values & {TECHNICIAN, *map(machine_key, MACHINES)}


def test_the_documents_name_each_metric_that_there_is_and_no_other(watched: Prometheus) -> None:
    names = watched.ask("label/__name__/values", **{"match[]": '{__name__=~"imageinvoker_.+"}'})
    metrics = {re.sub("_(bucket|count|sum)$", "", name) for name in names}
    text = (DEPLOY.parent / "docs" / "deploying.md").read_text()
    table = text.partition("## What Prometheus learns")[2].partition("\n## ")[0]
    assert set(re.findall("`(imageinvoker_[a-z_]+)`", table)) == metrics | _of_the_callout()


def _of_the_callout() -> set[str]:
    """What the auth service tells besides, where the bus trusts nobody."""
    registry = CollectorRegistry()
    CalloutMetrics(registry, "main", lambda: 0)
    names = {sample.name for family in registry.collect() for sample in family.samples}
    return {re.sub("_(bucket|count|sum)$", "", name) for name in names if "_created" not in name}


def test_no_series_tells_when_a_counter_was_made(watched: Prometheus) -> None:
    assert watched.query('{__name__=~"imageinvoker_.+_created"}') == []
