"""The pure parts of the entrance: whose turn it is, and which connections there may be."""

from collections import Counter, deque

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bus.machines import machine_key, valid_key
from bus.messages import Machine
from bus.problems import Problem
from services.auth.presences import Bounds, Found, Line, Presences
from services.auth.refusals import place_of
from services.auth.turns import Turns


def test_a_crowd_at_one_address_does_not_hold_up_another() -> None:
    turns: Turns[str] = Turns(100, 50)
    for number in range(40):
        turns.put("crowd", f"crowd {number}")
    turns.put("alone", "alone 0")
    assert [turns.take() for _ in range(3)] == ["crowd 0", "alone 0", "crowd 1"]


def test_where_all_is_full_the_longest_line_makes_room() -> None:
    turns: Turns[str] = Turns(4, 3)
    for number in range(3):
        assert turns.put("crowd", f"crowd {number}") is None
    assert turns.put("crowd", "too many") == "too many"
    assert turns.put("alone", "alone 0") is None
    assert turns.put("other", "other 0") == "crowd 2"
    assert turns.put("crowd", "crowd 3") == "crowd 3"
    assert len(turns) == 4
    with pytest.raises(KeyError):
        Turns[str](1, 1).take()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
@settings(max_examples=200)
def test_each_is_served_in_its_addresses_order_and_all_addresses_in_turn(
    steps: list[tuple[str, bool]],
) -> None:
    turns: Turns[tuple[str, int]] = Turns(1000, 1000)
    lines: dict[str, deque[int]] = {}
    order: deque[str] = deque()
    for number, (address, put) in enumerate(steps):
        if put or not order:
            turns.put(address, (address, number))
            if address not in order:
                order.append(address)
            lines.setdefault(address, deque()).append(number)
        else:
            first = order.popleft()
            assert turns.take() == (first, lines[first].popleft())
            if lines[first]:
                order.append(first)
    assert len(turns) == sum(map(len, lines.values()))


LINES = st.builds(Line, st.just("S"), st.integers(0, 12))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["admitted", "came", "went", "late", "counted"]),
            st.integers(0, 12),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
@settings(max_examples=200)
def test_what_is_counted_is_what_a_plain_list_of_all_lines_says(
    steps: list[tuple[str, int, int]],
) -> None:
    """Each line belongs to one machine, and its image is known once somebody has told."""
    presences = Presences(Bounds(of_machine=2, of_image=3))
    here: dict[Line, str] = {}
    awaited: dict[Line, float] = {}
    images: dict[Line, str] = {}
    for now, (what, number, image) in enumerate(steps):
        line, machine = Line("S", number), f"m{number % 3}"
        match what:
            case "admitted":
                presences.admitted(line, machine, f"i{image}", "10.0.0.1", now)
                if line not in here:
                    awaited.setdefault(line, now)
                images.setdefault(line, f"i{image}")
            case "came":
                surplus = presences.came(line, machine, "10.0.0.1", now)
                awaited.pop(line, None)
                here.setdefault(line, machine)
                others = [each for each in here if here[each] == machine]
                assert len(surplus) == max(0, len(others) - 2)
                assert set(surplus) <= set(others)
            case "went":
                presences.went(line)
                for known in (here, awaited, images):
                    known.pop(line, None)
            case "late":
                presences.forget_awaited(now)
                for each in [each for each, since in awaited.items() if now - since >= 10]:
                    del awaited[each], images[each]
            case "counted":
                presences.begin_count()
                presences.counted([Found(line, machine, "10.0.0.1", now)], now + 1)
                for each in [each for each in here if each != line]:
                    del here[each]
                    images.pop(each, None)
                awaited.pop(line, None)
                here.setdefault(line, machine)
        assert len(presences) == len(here)
        of_image = Counter(images.values())
        waiting = Counter(f"m{each.number % 3}" for each in awaited)
        for which in range(3):
            room = of_image[f"i{which}"] < 3 and waiting[f"m{which}"] < 2
            assert presences.has_room(f"m{which}", f"i{which}") == room


def test_a_connection_of_an_unknown_image_ends_if_it_is_older_than_a_revocation() -> None:
    presences = Presences()
    old, new, known, leaked = (Line("S", number) for number in range(4))
    for line, since in ((old, 10.0), (new, 30.0), (known, 10.0), (leaked, 10.0)):
        presences.came(line, "m", "10.0.0.1", since)
    presences.admitted(known, "m", "good", "10.0.0.1", 10.0)
    presences.admitted(leaked, "m", "bad", "10.0.0.1", 10.0)
    assert presences.revoked({}) == []
    assert presences.revoked({"bad": 20.0}) == [old, leaked]


def test_who_goes_while_it_is_counted_is_not_there_afterwards() -> None:
    presences = Presences()
    line = Line("S", 1)
    presences.begin_count()
    presences.went(line)
    assert presences.counted([Found(line, "m", "10.0.0.1", 1.0)], 2.0) == []
    assert len(presences) == 0


def test_the_address_of_a_machine_is_the_one_it_came_from_last() -> None:
    presences = Presences()
    assert presences.address_of("m") is None
    presences.admitted(Line("S", 1), "m", "i", "10.0.0.1", 1.0)
    presences.came(Line("S", 2), "m", "10.0.0.2", 2.0)
    presences.went(Line("S", 2))
    assert presences.address_of("m") == "10.0.0.2"


def test_of_an_ipv6_address_the_network_counts() -> None:
    assert place_of("10.1.2.3") == "10.1.2.3"
    assert place_of("2001:db8:1:2:3::4") == place_of("2001:db8:1:2::9%eth0") == "2001:db8:1:2::/64"
    assert place_of("somewhere") == "somewhere"


@given(
    st.builds(
        Machine,
        uuid=st.one_of(st.none(), st.uuids().map(str)),
        serial=st.one_of(st.none(), st.text(max_size=20)),
        macs=st.lists(st.binary(min_size=6, max_size=6).map(bytes.hex), max_size=2).map(tuple),
    )
)
@settings(max_examples=200)
def test_every_machines_key_is_a_valid_key(machine: Machine) -> None:
    try:
        key = machine_key(machine)
    except Problem:
        reject()
    assert valid_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "", ">", "*", "a.b", "0" * 32, "f" * 32, "03000200040005000006000700080009",
        "4C4C4544004235108052B4C04F4D3132", "sn", "sn12", "snXYZ", "sn" + "g" * 16, "mac",
        "mac525400", "mac01005e000001", "mac52:54:00:12:34:56", "system", "-",
        "4c4c4544004235108052b4c04f4d3132\n", "mac525400123456 ",
    ],
)  # fmt: skip
def test_nothing_else_is_a_machines_key(text: str) -> None:
    assert not valid_key(text)
