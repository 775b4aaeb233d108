"""The made-up machines of a storm, and the ids of their requests."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.machines import identity, machine_key, normal_uuid, swap_uuid
from bus.messages import RequestId
from bus.names import NETBIOS_LENGTH, check_name
from bus.problems import Problem
from cli.storm.machines import MOST, Fleet, RequestIds, number_of

SEEDS = st.integers(0, 2**40)
NUMBERS = st.integers(1, MOST)


@given(SEEDS, NUMBERS)
def test_a_machine_is_told_apart_by_each_of_its_keys(seed: int, number: int) -> None:
    known = identity(Fleet(seed, "STORM").machine(number))
    assert known.uuid
    assert known.serial
    assert len(known.macs) == 1
    assert check_name(Fleet(seed, "STORM").name(number), NETBIOS_LENGTH)


@given(SEEDS, st.sets(NUMBERS, min_size=2, max_size=30))
def test_no_two_machines_of_a_seed_share_anything(seed: int, numbers: set[int]) -> None:
    fleet = Fleet(seed, "STORM")
    found = [identity(fleet.machine(number)) for number in numbers]
    uuids = {uuid for each in found for uuid in (each.uuid, swap_uuid(each.uuid or ""))}
    assert len(uuids) == 2 * len(numbers)
    for values in (
        {each.serial for each in found},
        {each.macs for each in found},
        {fleet.name(number) for number in numbers},
        {machine_key(fleet.machine(number)) for number in numbers},
    ):
        assert len(values) == len(numbers)


@given(SEEDS, NUMBERS)
def test_the_same_seed_makes_the_same_machine_and_another_one_another(
    seed: int, number: int
) -> None:
    assert Fleet(seed, "A").machine(number) == Fleet(seed, "B").machine(number)
    assert Fleet(seed, "A").machine(number).uuid != Fleet(seed + 1, "A").machine(number).uuid


@settings(max_examples=50)
@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_the_requests_of_a_storm_are_one_range_in_the_order_of_their_machines(
    numbers: list[int],
) -> None:
    ids = RequestIds.new()
    made = [ids.of(number) for number in numbers]
    assert [number_of(each) for each in made] == numbers
    assert sorted(made) == [ids.of(number) for number in sorted(numbers)]
    for each in made:
        assert msgspec.convert(each, RequestId) == each
        assert normal_uuid(each)
        assert each.startswith(ids.pattern.removesuffix("%"))
        assert not RequestIds.new().of(1).startswith(ids.pattern.removesuffix("%"))


@pytest.mark.parametrize("prefix", ["TWELVELETTERS", "a b", "", "-X", "Ä"])
def test_a_prefix_that_gives_no_names_is_refused(prefix: str) -> None:
    if prefix == "":
        Fleet(1, prefix).check(MOST)
        return
    with pytest.raises(Problem) as caught:
        Fleet(1, prefix).check(MOST)
    assert caught.value.code == "bad_name"
