"""What the figures are made with: verdicts, medians, and what is printed of them."""

import json

import pytest

from bench.harness import (
    Figure,
    MeasureError,
    Reach,
    Rounds,
    as_json,
    choose,
    make,
    middle,
    milliseconds,
    per_second,
    share,
    surroundings,
)


def figure(name: str = "speed", value: float = 1.0, reach: Reach = Reach("<=", 2)) -> Figure:
    return Figure(name, f"how {name} is made", reach, lambda _say: value)


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
        [figure("show_rate", 0.93, Reach(">=", 0.9)), figure("menu_build", 1.6, Reach("<=", 1.5))],
        lambda _line: None,
    )
    line = as_json(made)
    assert "\n" not in line
    assert json.loads(line) == {
        "show_rate": {"value": 0.93, "reach": ">= 0.9", "ok": True},
        "menu_build": {"value": 1.6, "reach": "<= 1.5", "ok": False},
    }


def test_the_verdict_is_of_the_value_that_is_printed() -> None:
    (made,) = make([figure(value=2.0001)], lambda _line: None)
    assert (made.value, made.ok) == (2.0, True)


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
            Figure("one", "a part is missing", Reach("<", 1), missing),
            Figure("two", "a bug", Reach("<", 1), broken),
            figure("three"),
        ],
        said.append,
    )
    assert [(each.value, each.ok) for each in made] == [(None, False), (None, False), (1.0, True)]
    assert any("PostgreSQL is not installed" in line for line in said)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_figures_are_made_in_their_own_order_whatever_order_is_asked() -> None:
    figures = [figure("a"), figure("b"), figure("c")]
    assert [each.name for each in choose(figures, ["c", "a"])] == ["a", "c"]
    assert choose(figures, []) == figures


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="speeed"):
        choose([figure("speed")], ["speeed"])


def test_a_busy_machine_is_told_before_anything_is_measured() -> None:
    assert surroundings(0.2, 2) == "2 cores, load 0.2"
    assert "OTHER PROGRAMS" in surroundings(5.0, 2)
