"""Subjects and machine keys."""

import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import subjects
from bus.machines import (
    Identity,
    identity,
    machine_key,
    normal_mac,
    normal_text,
    normal_uuid,
    swap_uuid,
)
from bus.messages import Machine
from bus.problems import Problem

UUID = "4c4c4544-0042-3510-8052-b4c04f4d3132"
KEY = "4c4c4544004235108052b4c04f4d3132"

junk = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.text(alphabet="0123456789abcdefABCDEF-:{}. \t\0", max_size=40),
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Zs", "Nd"]), max_size=40),
)
machines = st.builds(
    Machine,
    uuid=junk,
    serial=junk,
    asset_tag=junk,
    macs=st.lists(junk.filter(lambda text: text is not None), max_size=4).map(tuple),
)


def test_every_subject_ends_with_the_machine_that_speaks() -> None:
    assert subjects.endpoint("london", "menu", "show", "mac0") == "imaging.london.menu.show.mac0"
    assert subjects.endpoint("london", "menu", "show") == "imaging.london.menu.show.*"
    assert subjects.request("london", "mac0") == "imaging.london.request.mac0"
    assert subjects.rejected("london", "mac0") == "imaging.london.rejected.mac0"
    for subject in (
        subjects.endpoint("london", "menu", "show", KEY),
        subjects.request("london", KEY),
        subjects.rejected("london", KEY),
    ):
        assert subjects.machine_of(subject) == KEY


def test_a_site_has_its_own_keys_in_a_bucket() -> None:
    assert subjects.site_key("london", "timeout") == "london.timeout"
    assert subjects.site_key("london") == "london.>"
    assert subjects.carrier("london") == "scheduler-london"


@pytest.mark.parametrize("site", ["main", "a", "0", "new-york-2", "x" * 32])
def test_a_site_is_a_token_of_lower_case_letters_digits_and_hyphens(site: str) -> None:
    assert subjects.valid_site(site)


@pytest.mark.parametrize(
    "site", ["", "Main", "a.b", "a b", "*", ">", "x" * 33, "main\n", "ä", "a_b"]
)
def test_what_could_break_a_subject_is_no_site(site: str) -> None:
    assert not subjects.valid_site(site)


@given(machines)
@settings(max_examples=200)
def test_any_junk_yields_one_plain_token_or_bad_machine(machine: Machine) -> None:
    found = identity(machine)
    assert len(set(found.macs)) == len(found.macs)
    if found.uuid or found.serial or found.macs:
        key = machine_key(machine)
        assert re.fullmatch(r"[0-9a-f]{32}|sn[0-9a-f]{16}|mac[0-9a-f]{12}", key)
    else:
        with pytest.raises(Problem, match="bad_machine"):
            machine_key(machine)


@given(st.uuids(), st.booleans(), st.booleans(), st.sampled_from(["{}", "{%s}", " %s\t"]))
def test_a_uuid_means_the_same_machine_however_it_is_written(
    number: uuid.UUID, upper: bool, dashes: bool, around: str
) -> None:
    written = str(number) if dashes else number.hex
    written = written.upper() if upper else written
    written = around.replace("{}", "%s") % written
    assert normal_uuid(written) == normal_uuid(str(number))


def test_the_uuid_is_the_key_of_a_machine_that_has_a_real_one() -> None:
    assert machine_key(Machine(uuid=UUID.upper(), serial="7XK2P12")) == KEY


def test_without_a_uuid_the_serial_number_is_the_key_and_then_the_first_real_address() -> None:
    serial = Machine(uuid="00000000-0000-0000-0000-000000000000", serial=" 7XK2P12 ")
    assert machine_key(serial) == "sn725a1da16efd422c"
    address = Machine(serial="None", macs=("00:00:00:00:00:00", "junk", "00-1B-21-AA-BB-CC"))
    assert machine_key(address) == "mac001b21aabbcc"


@pytest.mark.parametrize(
    "placeholder",
    [
        "",
        "junk",
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "20202020-2020-2020-2020-202020202020",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90AB-CDDEEFAABBCC",
        UUID[:-1],
        UUID + "0",
        UUID + "\nx",
    ],
)
def test_a_placeholder_uuid_identifies_nothing(placeholder: str) -> None:
    assert normal_uuid(placeholder) is None
    with pytest.raises(Problem, match="bad_machine"):
        machine_key(Machine(uuid=placeholder))


def test_the_byte_order_of_a_uuid_can_be_turned_round_and_back() -> None:
    assert swap_uuid(KEY) == "44454c4c420010358052b4c04f4d3132"
    assert swap_uuid(swap_uuid(KEY)) == KEY


@pytest.mark.parametrize(
    "placeholder",
    ["To Be Filled By O.E.M.", "to be filled by o.e.m", "None", "Default string", "00000000", "x",
     "System Serial Number", "0123456789", "....", " ", "N/A", "XXXX XXXX", "a\x1bb"],
)  # fmt: skip
def test_a_placeholder_text_identifies_nothing(placeholder: str) -> None:
    assert normal_text(placeholder) is None


def test_a_serial_number_loses_only_what_stands_around_it() -> None:
    assert normal_text(" 7XK2 p12.\0") == "7XK2 p12"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("00:1B:21:aa:bb:cc", "001b21aabbcc"),
        ("00-1b-21-AA-BB-CC", "001b21aabbcc"),
        ("001b.21aa.bbcc", "001b21aabbcc"),
        (" 001B21AABBCC ", "001b21aabbcc"),
        ("00:00:00:00:00:00", None),
        ("ff:ff:ff:ff:ff:ff", None),
        ("01:00:5e:00:00:fb", None),
        ("00:1b:21:aa:bb", None),
        ("00:1b:21:aa:bb:cc:dd", None),
        ("", None),
        (None, None),
    ],
)
def test_a_hardware_address_is_twelve_digits_and_no_group(
    written: str | None, address: str | None
) -> None:
    assert normal_mac(written) == address


def test_shared_addresses_and_repeated_ones_identify_nothing_more() -> None:
    machine = Machine(macs=("00:1b:21:aa:bb:cc", "001B21AABBCC", "00:1b:21:aa:bb:dd", "junk"))
    assert identity(machine).macs == ("001b21aabbcc", "001b21aabbdd")
    assert identity(machine, frozenset({"001b21aabbcc"})).macs == ("001b21aabbdd",)


def test_an_identity_of_nothing_is_false() -> None:
    assert not identity(Machine(uuid="junk", serial="None", macs=("junk",)))
    assert Identity(asset_tag="A1")
