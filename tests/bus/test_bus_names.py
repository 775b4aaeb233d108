"""Computer names and the names suggested for unknown machines."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.machines import Identity
from bus.names import PATTERN, TOKENS, check_name, check_rule, name_rules, suggested_name
from bus.problems import Problem

texts = st.text(max_size=30)
identities = st.builds(
    Identity,
    uuid=st.none() | st.uuids().map(lambda number: number.hex),
    serial=st.none() | texts,
    asset_tag=st.none() | texts,
    macs=st.lists(st.from_regex(r"[0-9a-f]{12}", fullmatch=True), max_size=2).map(tuple),
)
rules = st.lists(
    st.one_of(
        st.sampled_from([f"%{token}%" for token in TOKENS]),
        st.text(alphabet=st.characters(exclude_characters="%"), max_size=10),
    ),
    min_size=1,
    max_size=4,
).map("".join)


def _plainly_allowed(name: str, max_length: int) -> bool:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
    inside = all(char in letters + "-" for char in name)
    return 1 <= len(name) <= max_length and inside and name[0] != "-" and name[-1] != "-"


@given(st.text(max_size=20) | st.text(alphabet="aZ09_-\n ", max_size=20), st.integers(1, 20))
@settings(max_examples=200)
def test_a_name_is_allowed_exactly_when_it_obeys_the_rules(name: str, max_length: int) -> None:
    if _plainly_allowed(name, max_length):
        assert check_name(name, max_length) == name
    else:
        with pytest.raises(Problem, match="bad_name"):
            check_name(name, max_length)


@pytest.mark.parametrize("name", ["7XK2P12", "0", "PC-0815", "a_b", "_"])
def test_names_may_begin_with_a_digit(name: str) -> None:
    assert check_name(name, 15) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a.b", "PC\n", "ä", "x" * 16])
def test_what_netbios_cannot_carry_is_no_name(name: str) -> None:
    with pytest.raises(Problem, match="bad_name"):
        check_name(name, 15)


def test_the_portal_is_told_the_same_rules() -> None:
    rules = name_rules(15)
    assert rules.max_length == 15
    assert "15 characters" in rules.hint
    assert re.match(rules.pattern, "7XK2P12")
    assert rules.pattern == PATTERN


@given(rules, identities, st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True), st.integers(1, 63))
@settings(max_examples=200)
def test_a_suggested_name_is_always_a_name_or_empty(
    rule: str, identity: Identity, site: str, max_length: int
) -> None:
    name = suggested_name(rule, identity, site, max_length)
    if name:
        assert check_name(name, max_length) == name


def test_what_is_too_long_loses_the_front_of_its_longest_token() -> None:
    machine = Identity(serial="ABCDEFGHIJ123456")
    assert suggested_name("PC-%SERIAL%", machine, "main", 15) == "PC-EFGHIJ123456"


def test_a_rule_that_asks_for_what_a_machine_lacks_gives_way() -> None:
    assert suggested_name("%ASSETTAG%", Identity(serial="7XK2P12"), "main", 15) == "7XK2P12"
    lonely = Identity(macs=("001b21aabbcc",))
    assert suggested_name("%SERIAL%", lonely, "main", 15) == "001B21AABBCC"
    assert suggested_name("%SERIAL%", Identity(), "main", 15) == ""


def test_a_rule_may_hold_the_site() -> None:
    machine = Identity(serial="7XK2P12")
    assert suggested_name("%SITE%-%SERIAL%", machine, "main", 15) == "main-7XK2P12"


@pytest.mark.parametrize("rule", ["%NOSUCH%", "%serial%", "50%", "%SERIAL", "", "  "])
def test_a_rule_with_an_unknown_token_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r"SERIAL|rule"):
        check_rule(rule)


@pytest.mark.parametrize("rule", ["%SERIAL%", "PC-%MAC%", "%SITE%%UUID%", "PC"])
def test_a_rule_of_known_tokens_is_kept(rule: str) -> None:
    assert check_rule(rule) == rule
