"""The report of a storm: one page that stands alone."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from bus.messages import encode
from cli.storm.machines import RequestIds
from cli.storm.reckoning import Verdict
from cli.storm.report import page, write
from cli.storm.results import (
    Asked,
    Generator,
    Place,
    Probed,
    Result,
    Served,
    Usage,
    moments_of,
    times_of,
    told,
)
from cli.storm.tally import STEPS, Tally


@pytest.fixture
def result() -> Result:
    """Of a storm in which one machine of fifty failed."""
    tally = Tally()
    for number in range(50):
        at = number / 5
        tally.arrive(at, 0.001, held=False)
        for place, step in enumerate(STEPS, 1):
            tally.time(step, 0.001 * place * (1 + number % 7), at + 0.5)
        tally.finish(at + 0.5, "scheduled" if number else "rejected", "name_taken")
    verdict = Verdict(with_database=True, lost=1, findings=("STORM00003 lacks jobs <11>",))
    return Result(
        place=Place(
            command="imageinvoker storm --machines 50 --item '<b>'",
            server="nats://127.0.0.1:4222",
            site="lab",
            protection="hash",
            started_at=datetime(2026, 11, 2, 8, tzinfo=UTC),
            version="1.0",
            python="3.11.7",
            system="Linux",
            cores=2,
        ),
        asked=Asked(
            machines=50,
            within=10,
            at_once=2000,
            give_up=600,
            seed=7,
            prefix="STORM",
            known=False,
            item_id="job:1",
            item_title="Exam & more",
            at_rest=7,
            requests_like=RequestIds.new().pattern,
        ),
        ended="finished",
        seconds=tally.last_end,
        arrived=50,
        scheduled=49,
        rejected=1,
        failed=0,
        not_arrived=0,
        throughput=4.9,
        errors=1,
        errors_by_code=dict(tally.errors),
        retries=3,
        retries_by_code={"overloaded": 3},
        held_back=2,
        longest_hold=0.4,
        lost=1,
        doubled=0,
        reckoning=verdict,
        steps=times_of(tally, {"menu": 0.004}),
        generator=Generator(
            processor_seconds=0.1, processor_per_journey=0.002, latest=0.01, resident=5e7
        ),
        probe=Probed(count=9, unseen=1, p50=0.2, max=0.9),
        services=(
            Served(
                name="menu",
                url="http://127.0.0.1:1/metrics",
                resident_before=5e7,
                resident_after=6e7,
                resident_max=7e7,
                processor_seconds=1.5,
                usage=tuple(Usage(float(at), 5e7 + at * 1e6, at * 0.1) for at in range(10)),
            ),
        ),
        window=float(tally.width),
        moments=moments_of(tally),
    )


class Links(HTMLParser):
    """Everything that a page would fetch or refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}
        ]


def test_the_page_stands_alone(result: Result) -> None:
    links = Links()
    links.feed(page(result))
    assert all(link.startswith("#") for link in links.found), links.found
    assert not {"script", "link", "img", "iframe"} & set(links.tags)
    assert "@import" not in page(result)
    assert not re.search(r"url\((?!#)", page(result))


def test_every_plot_is_well_formed_and_takes_the_colour_of_the_page(result: Result) -> None:
    plots = re.findall(r"<svg.*?</svg>", page(result), re.DOTALL)
    assert len(plots) == 3
    ids: list[str] = []
    for plot in plots:
        root = ElementTree.fromstring(plot)
        ids += [each.attrib["id"] for each in root.iter() if "id" in each.attrib]
        assert "currentColor" in plot
        assert "#010203" not in plot
    assert len(ids) == len(set(ids))
    for step in STEPS:
        assert f"{step}, ms" in plots[1]


def test_the_page_tells_what_is_wrong_and_escapes_what_others_wrote(result: Result) -> None:
    text = page(result)
    assert "Not all is well: 1 errors, 1 lost, 0 doubled." in text
    assert "STORM00003 lacks jobs &lt;11&gt;" in text
    assert "--item &#x27;&lt;b&gt;&#x27;" in text
    assert "Exam &amp; more" in text
    assert "2026-11-02 08:00:00 UTC" in text


def test_a_report_is_written_whole(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "storm.html")
    assert (tmp_path / "storm.html").read_text() == page(result)
    assert [each.name for each in tmp_path.iterdir()] == ["storm.html"]


def test_the_text_tells_every_figure_and_how_to_find_what_was_made(result: Result) -> None:
    text = told(result)
    assert "50 of 50 machines arrived within 10 s at site lab; 49 were scheduled" in text
    assert "errors 1, lost 1, doubled 0; asked again 3 times." in text
    assert "error    name_taken: 1" in text
    assert "retry    overloaded: 3" in text
    assert "2 machines were held back" in text
    assert "--known --seed 7" in text
    assert result.asked.requests_like in text
    for step in STEPS:
        assert re.search(rf"^{step} .* ms", text, re.MULTILINE)


def test_the_json_holds_the_figures_by_name(result: Result) -> None:
    read = msgspec.json.decode(encode(result))
    assert (read["lost"], read["doubled"], read["errors"]) == (1, 0, 1)
    assert read["steps"]["menu"]["p99_to_rest"] == pytest.approx(
        read["steps"]["menu"]["p99"] / 0.004
    )
    assert msgspec.json.decode(encode(result), type=Result) == result


def test_a_storm_is_well_only_if_nothing_is_wrong(result: Result) -> None:
    well = msgspec.structs.replace(result, errors=0, lost=0, reckoning=Verdict(with_database=True))
    assert well.well
    assert "Every machine got its jobs exactly once." in page(well)
    unread = Verdict(with_database=False, unread="gone")
    left = Probed(count=0, unseen=0, p50=0, max=0, left=17)
    for change in (
        {"errors": 1}, {"ended": "gave_up"}, {"reckoning": unread}, {"probe": left},
    ):  # fmt: skip
        assert not msgspec.structs.replace(well, **change).well, change
