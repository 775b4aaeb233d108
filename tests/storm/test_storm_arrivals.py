"""When the machines of a storm arrive."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cli.storm.arrivals import arrivals

COUNTS = st.integers(1, 300)
SECONDS = st.just(0.0) | st.floats(0.001, 10_000)
SEEDS = st.integers(0, 2**40)


@given(COUNTS, SECONDS, SEEDS)
def test_each_machine_arrives_in_a_slot_of_its_own_in_order(
    machines: int, within: float, seed: int
) -> None:
    times = list(arrivals(machines, within, seed))
    assert len(times) == machines
    assert all(earlier <= later for earlier, later in pairwise(times))
    for number, time in enumerate(times):
        slack = 1e-9 * within
        assert (
            number * within / machines - slack <= time <= (number + 1) * within / machines + slack
        )
        assert 0 <= time <= within


@given(COUNTS, SEEDS)
def test_the_same_seed_makes_the_same_times(machines: int, seed: int) -> None:
    assert list(arrivals(machines, 60, seed)) == list(arrivals(machines, 60, seed))


def test_another_seed_makes_other_times() -> None:
    assert list(arrivals(20, 60, 1)) != list(arrivals(20, 60, 2))
