"""What figures a storm gives."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from bench.harness import Made
from bench.storm import MACHINES, run, values
from cli.storm.reckoning import Verdict
from cli.storm.results import Asked, Generator, Place, Probed, Result, Served, Times, Usage
from cli.storm.tally import Step


def times(p99: float, at_rest: float | None) -> Times:
    ratio = p99 / at_rest if at_rest else None
    return Times(
        count=9, p50=p99 / 4, p95=p99 / 2, p99=p99, max=p99, at_rest=at_rest, p99_to_rest=ratio
    )


def served(name: str, *resident: float) -> Served:
    return Served(
        name=name,
        url="",
        resident_before=resident[0],
        resident_after=resident[-1],
        resident_max=max(resident),
        processor_seconds=1,
        usage=tuple(Usage(float(at), size, 0.1 * at) for at, size in enumerate(resident)),
    )


ABSENT = {"storm_p99", "storm_p99_seconds", "storm_memory_mb", "storm_memory_growth"}
STEPS: dict[Step, Times] = {
    "connect": times(0.030, 0.002),
    "menu": times(0.016, 0.001),
    "outcome": times(0.300, 0.100),
    "journey": times(9.0, 0.1),
}


@pytest.fixture
def result() -> Result:
    """Of a storm in which every machine got its jobs exactly once."""
    return Result(
        place=Place(
            command="imageinvoker storm",
            server="nats://127.0.0.1:4222",
            site="campus",
            protection="hash",
            started_at=datetime(2026, 11, 2, 8, tzinfo=UTC),
            version="1.0",
            python="3.11",
            system="Linux",
            cores=2,
        ),
        asked=Asked(
            machines=9,
            within=1,
            at_once=9,
            give_up=60,
            seed=1,
            prefix="STORM",
            known=False,
            item_id="folder:900",
            item_title="Ten steps",
            at_rest=7,
            requests_like="%",
        ),
        ended="finished",
        seconds=1.5,
        arrived=9,
        scheduled=9,
        rejected=0,
        failed=0,
        not_arrived=0,
        throughput=6.0,
        errors=0,
        errors_by_code={},
        retries=0,
        retries_by_code={},
        held_back=0,
        longest_hold=0.0,
        lost=0,
        doubled=0,
        reckoning=Verdict(with_database=True),
        steps=STEPS,
        generator=Generator(
            processor_seconds=1, processor_per_journey=0.1, latest=0.0, resident=60e6
        ),
        probe=Probed(count=5, unseen=0, p50=0.3, max=0.7),
        services=(
            served("menu", 50e6, 70e6, 60e6, 70e6, 66e6),
            served("scheduler", 50e6, 90e6, 80e6, 80e6, 80e6),
        ),
        window=1.0,
        moments=(),
    )


def test_the_figures_are_those_of_the_worst_step_and_the_largest_service(result: Result) -> None:
    assert values(result) == pytest.approx(
        {
            "storm_errors": 0,
            "storm_lost": 0,
            "storm_doubled": 0,
            "storm_wrong": 0,
            "storm_p99": 16,
            "storm_p99_seconds": 0.3,
            "storm_memory_mb": 90,
            "storm_memory_growth": 1.1,
            "storm_menu_change": 0.7,
        }
    )


def test_machines_that_never_arrived_are_errors_as_well(result: Result) -> None:
    cut_short = msgspec.structs.replace(result, errors=2, not_arrived=3)
    assert values(cut_short)["storm_errors"] == 5


def test_what_else_the_reckoning_finds_wrong_is_a_figure(result: Result) -> None:
    verdict = Verdict(with_database=True, unasked=1, disordered=2, contradicted=4)
    assert values(msgspec.structs.replace(result, reckoning=verdict))["storm_wrong"] == 7


@pytest.mark.parametrize(
    "probe",
    [None, Probed(count=0, unseen=0, p50=0, max=0), Probed(count=4, unseen=1, p50=0, max=0)],
)
def test_a_change_that_was_never_seen_is_no_time(result: Result, probe: Probed | None) -> None:
    assert "storm_menu_change" not in values(msgspec.structs.replace(result, probe=probe))


def test_a_storm_without_journeys_has_no_times(result: Result) -> None:
    made = values(msgspec.structs.replace(result, steps={}, services=()))
    assert set(made) & ABSENT == set()


def test_every_value_is_one_of_the_figures_of_the_run(result: Result) -> None:
    assert set(values(result)) == {figure.name for figure in run().figures}


def test_a_storm_of_another_size_is_a_trial_that_tells_its_size() -> None:
    assert not any(figure.trial for figure in run(MACHINES, Path("storm.html")).figures)
    figures = run(500).figures
    assert {figure.trial for figure in figures} == {"500 machines within 3 s"}
    assert "500 machines within 3 s" in figures[0].about
    assert not any(Made(figure, 0.0).ok for figure in figures)
