"""The dashboards: each query, against a real Prometheus that watches a running site."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

import pytest
import yaml

from tests.deploy.observed import DEPLOY, PROMETHEUS, SITE, Prometheus, watched

__all__ = ["watched"]

GRAFANA: Final = DEPLOY / "grafana"
BOARDS: Final = {
    path.stem: json.loads(path.read_text()) for path in (GRAFANA / "dashboards").glob("*.json")
}
COLUMNS: Final = 24
SHOWN: Final = {"$site": SITE, "$__rate_interval": "5m", "$__range": "1h"}
"""What Grafana puts in the place of its variables; the site was used once, minutes ago at most."""


def panels() -> Iterator[Any]:
    for board, model in BOARDS.items():
        for panel in model["panels"]:
            yield pytest.param(panel, id=f"{board}: {panel['title']}")


def queries() -> Iterator[Any]:
    for board, model in BOARDS.items():
        for panel in model["panels"]:
            for target in panel.get("targets", ()):
                name = f"{board}: {panel['title']}: {target['refId']}"
                yield pytest.param(_filled(target["expr"]), id=name)


def _filled(expression: str) -> str:
    for name, value in SHOWN.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("expression", [*queries()])
def test_every_query_of_every_dashboard_brings_numbers(
    watched: Prometheus, expression: str
) -> None:
    watched.eventually(expression)


def test_there_are_two_dashboards() -> None:
    assert {board["uid"] for board in BOARDS.values()} == {
        "imageinvoker-estate",
        "imageinvoker-site",
    }


def test_the_site_is_chosen_from_all_that_there_are(watched: Prometheus) -> None:
    (variable,) = BOARDS["site"]["templating"]["list"]
    assert variable["query"]["query"] == "label_values(imageinvoker_build_info, site)"
    found = watched.ask("label/site/values", **{"match[]": "imageinvoker_build_info"})
    assert found == [SITE]


def test_every_panel_asks_the_prometheus_that_is_provisioned() -> None:
    files = (GRAFANA / "provisioning" / "datasources").glob("*.yml")
    (source,) = (each for file in files for each in yaml.safe_load(file.read_text())["datasources"])
    wanted = {"type": source["type"], "uid": source["uid"]}
    asked = [
        asks["datasource"]
        for board in BOARDS.values()
        for panel in board["panels"]
        if panel["type"] != "row"
        for asks in (panel, *panel["targets"])
    ] + [variable["datasource"] for variable in BOARDS["site"]["templating"]["list"]]
    assert all(each == wanted for each in asked)
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]


def test_the_provisioned_folder_is_the_one_that_holds_the_dashboards() -> None:
    (file,) = (GRAFANA / "provisioning" / "dashboards").glob("*.yml")
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["options"]["path"].endswith("/dashboards")
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    mounted = {
        volume["target"]: volume["source"]
        for volume in compose["services"]["grafana"]["volumes"]
        if isinstance(volume, dict)
    }
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"


@pytest.mark.parametrize("board", [*BOARDS])
def test_panels_lie_side_by_side(board: str) -> None:
    found = BOARDS[board]["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    places = [panel["gridPos"] for panel in found]
    for place in places:
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


@pytest.mark.parametrize("panel", [*panels()])
def test_every_panel_has_a_title_and_says_what_its_numbers_are(panel: dict[str, Any]) -> None:
    assert panel["title"]
    if panel["type"] == "row":
        return
    assert panel["fieldConfig"]["defaults"]["unit"]
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))
    if panel["type"] == "timeseries":
        assert all(target["legendFormat"] for target in panel["targets"])


def test_one_leads_to_the_other() -> None:
    estate, site = json.dumps(BOARDS["estate"]), json.dumps(BOARDS["site"])
    assert "/d/imageinvoker-site?var-site=" in estate
    assert "/d/imageinvoker-estate" in site
