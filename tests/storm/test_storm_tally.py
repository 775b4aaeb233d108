"""What is counted in a storm, against plain lists of everything."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.storm.tally import ERROR, MOST_WINDOWS, Histogram, Step, Tally

TIMES = st.floats(1e-6, 5000)
SHARES = st.floats(0.001, 1)


def nearest_rank(times: list[float], share: float) -> float:
    return sorted(times)[max(1, math.ceil(share * len(times))) - 1]


def histogram(times: list[float]) -> Histogram:
    filled = Histogram()
    for time in times:
        filled.add(time)
    return filled


@given(st.lists(TIMES, min_size=1, max_size=200), SHARES)
def test_a_percentile_is_the_true_one_within_the_stated_error(
    times: list[float], share: float
) -> None:
    filled = histogram(times)
    assert filled.percentile(share) == pytest.approx(nearest_rank(times, share), rel=ERROR * 1.0001)
    assert filled.percentile(1) <= filled.max == max(times)
    assert filled.count == len(times)


@given(st.lists(TIMES, max_size=100), st.lists(TIMES, max_size=100), SHARES)
def test_two_histograms_together_are_the_one_of_all_times(
    one: list[float], other: list[float], share: float
) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    assert merged.percentile(share) == histogram(one + other).percentile(share)
    assert (merged.count, merged.max) == (len(one + other), max(one + other, default=0.0))


def test_no_times_have_no_percentile() -> None:
    assert Histogram().percentile(0.99) == 0


def test_memory_is_bounded_however_many_times_come() -> None:
    filled = histogram([1e-6 * 1.001**power for power in range(23_000)])
    assert len(filled._buckets) < 1200


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 20_000),
            st.sampled_from(["arrived", "scheduled", "rejected", "failed"]),
            st.sampled_from(["overloaded", "gave_up"]),
        ),
        max_size=60,
    )
)
def test_the_course_of_a_storm_is_what_happened_in_each_window(
    happened: list[tuple[float, str, str]],
) -> None:
    tally = Tally()
    step: Step = "menu"
    for at, what, code in happened:
        if what == "arrived":
            tally.arrive(at, 0.25, held=code == "overloaded")
        elif what in {"scheduled", "rejected", "failed"}:
            tally.time(step, 0.5, at)
            tally.finish(at, what, code)  # type: ignore[arg-type] (one of the three)
    assert len(tally.windows) <= MOST_WINDOWS
    counted: Counter[tuple[int, str]] = Counter()
    for at, what, _ in happened:
        if what in {"rejected", "failed"}:
            what = "failed"  # noqa: PLW2901 (a window tells them not apart)
        counted[int(at // tally.width), what] += 1
    for place, window in enumerate(tally.windows):
        found = (window.arrived, window.finished, window.failed)
        assert found == tuple(counted[place, what] for what in ("arrived", "scheduled", "failed"))
        times = window.steps[step].count if step in window.steps else 0
        assert times == window.finished + window.failed
    kinds = Counter(what for _, what, _ in happened)
    assert (tally.arrived, tally.scheduled, tally.rejected, tally.failed) == tuple(
        kinds[each] for each in ("arrived", "scheduled", "rejected", "failed")
    )
    assert tally.errors == Counter(
        code for _, what, code in happened if what in {"rejected", "failed"}
    )
    held = sum(what == "arrived" and code == "overloaded" for _, what, code in happened)
    assert tally.held_back == held
    assert tally.longest_hold == (0.25 if held else 0)
    assert tally.ended == kinds.total() - kinds["arrived"]
