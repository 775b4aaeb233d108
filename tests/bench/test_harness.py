"""What the figures are made with: verdicts, medians, and what is printed of them."""

import json

import pytest

from bench.harness import (
    Figure,
    MeasureError,
    Reach,
    Rounds,
    Run,
    as_json,
    choose,
    make,
    microseconds,
    middle,
    milliseconds,
    one_figure,
    per_second,
    share,
    surroundings,
)
from bench.runs import runs


def run(name: str = "speed", value: float = 1.0, reach: Reach = Reach("<=", 2)) -> Run:
    return one_figure(name, f"how {name} is made", reach, lambda _say: value)


def several(values: dict[str, float], *names: str, trial: str = "") -> Run:
    """A run that makes these values of figures that are to be at least 1."""
    figures = (Figure(name, f"how {name} is made", Reach(">=", 1), trial) for name in names)
    return Run(tuple(figures), lambda _say: values)


def silent(_line: str) -> None:
    """Says nothing."""


def test_a_reach_holds_exactly_where_its_sign_says() -> None:
    assert Reach(">=", 0.7).holds(0.7)
    assert not Reach(">=", 0.7).holds(0.699)
    assert Reach("<=", 1.5).holds(1.5)
    assert not Reach("<=", 1.5).holds(1.501)
    assert Reach("<", 80).holds(79.999)
    assert not Reach("<", 80).holds(80)


def test_a_reach_reads_as_people_write_it() -> None:
    assert [str(Reach(">=", 0.7)), str(Reach("<=", 3)), str(Reach("<", 80.0))] == [
        ">= 0.7",
        "<= 3",
        "< 80",
    ]


def test_a_disturbed_round_does_not_move_the_figure() -> None:
    said: list[str] = []
    rounds = Rounds(said.append, "ours", "bare", milliseconds)
    for ours, bare in ((2.0, 1.0), (2.2, 1.1), (90.0, 1.0)):
        rounds.add(ours, bare)
    assert rounds.median() == pytest.approx(2.0)
    assert said[-1] == "ours / bare: median 2.000 (2.000 to 90.000, 3 rounds)"


def test_each_round_says_both_sides_and_their_ratio() -> None:
    said: list[str] = []
    Rounds(said.append, "show", "echo", per_second).add(24_000.0, 30_000.0)
    assert said == ["round  1   show 24,000/s   echo 30,000/s   ratio 0.800"]


def test_times_read_as_people_write_them() -> None:
    assert (milliseconds(0.0125), microseconds(0.0000136)) == ("12.5 ms", "13.6 µs")


def test_no_rounds_are_no_figure() -> None:
    with pytest.raises(MeasureError):
        middle(lambda _line: None, "nothing", [])


def test_a_share_is_a_value_that_was_measured() -> None:
    waits = [float(number) for number in range(100, 0, -1)]
    assert share(waits, 0.5) == 50
    assert share(waits, 0.99) == 99
    assert share([7.0], 0.99) == 7


def test_the_last_line_tells_value_reach_and_verdict_of_each_figure() -> None:
    made = make(
        [run("show_rate", 0.93, Reach(">=", 0.9)), run("menu_build", 1.6, Reach("<=", 1.5))],
        silent,
    )
    line = as_json(made)
    assert "\n" not in line
    assert json.loads(line) == {
        "show_rate": {"value": 0.93, "reach": ">= 0.9", "ok": True},
        "menu_build": {"value": 1.6, "reach": "<= 1.5", "ok": False},
    }


def test_the_verdict_is_of_the_value_that_is_printed() -> None:
    (made,) = make([run(value=2.0001)], silent)
    assert (made.value, made.ok) == (2.0, True)


def test_one_run_makes_several_figures_each_with_its_own_verdict() -> None:
    said: list[str] = []
    made = make([several({"rate": 0.5, "share": 2.0}, "rate", "share")], said.append)
    assert [(each.figure.name, each.ok) for each in made] == [("rate", False), ("share", True)]
    assert said == [
        "rate: how rate is made",
        "share: how share is made",
        "    rate = 0.5, to reach >= 1: FALLS SHORT",
        "    share = 2.0, to reach >= 1: ok",
    ]


def test_a_figure_that_its_run_leaves_out_falls_short_and_the_others_do_not() -> None:
    made = make([several({"share": 2.0}, "rate", "share")], silent)
    assert [(each.value, each.ok) for each in made] == [(None, False), (2.0, True)]


def test_a_reach_of_nothing_holds_for_nothing_alone() -> None:
    made = make([run("errors", 0, Reach("<=", 0)), run("lost", 1, Reach("<=", 0))], silent)
    assert [each.ok for each in made] == [True, False]


def test_a_trial_reaches_nothing_and_says_so_wherever_its_value_stands() -> None:
    said: list[str] = []
    made = make([several({"rate": 7.0}, "rate", trial="500 machines")], said.append)
    assert "A TRIAL (500 machines), which shows nothing" in said[-1]
    assert json.loads(as_json(made)) == {
        "rate": {"value": 7.0, "reach": ">= 1", "ok": False, "trial": "500 machines"}
    }


def test_a_figure_that_cannot_be_made_keeps_no_other_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(_say: object) -> float:
        raise MeasureError("PostgreSQL is not installed")

    def broken(_say: object) -> float:
        raise ZeroDivisionError

    said: list[str] = []
    made = make(
        [
            one_figure("one", "a part is missing", Reach("<", 1), missing),
            one_figure("two", "a bug", Reach("<", 1), broken),
            run("three"),
        ],
        said.append,
    )
    assert [(each.value, each.ok) for each in made] == [(None, False), (None, False), (1.0, True)]
    assert any("PostgreSQL is not installed" in line for line in said)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_figures_are_made_in_their_own_order_whatever_order_is_asked() -> None:
    runs = [run("a"), run("b"), run("c")]
    assert choose(runs, ["c", "a"]) == [runs[0], runs[2]]
    assert choose(runs, []) == runs


def test_a_run_is_made_once_whichever_and_however_many_of_its_figures_are_asked_for() -> None:
    runs = [run("a"), several({}, "b", "c")]
    assert choose(runs, ["c"]) == [runs[1]]
    assert choose(runs, ["c", "b"]) == [runs[1]]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="speeed"):
        choose([run("speed")], ["speeed"])


def test_no_two_figures_have_one_name() -> None:
    names = [figure.name for each in runs() for figure in each.figures]
    assert len(set(names)) == len(names)


def test_a_busy_machine_is_told_before_anything_is_measured() -> None:
    assert surroundings(0.2, 2) == "2 cores, load 0.2"
    assert "OTHER PROGRAMS" in surroundings(5.0, 2)
