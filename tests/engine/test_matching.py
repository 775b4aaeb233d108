"""Which computer a machine is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.machines import Identity, identity, swap_uuid
from bus.messages import Machine
from bus.problems import Problem
from engine.matching import Candidate, match

pytestmark = pytest.mark.express

UUIDS = [f"{n:08x}aaaa4bbb8cccddddeeee{n:04x}" for n in (0x11223344, 0x55667788)]
UUIDS.append(swap_uuid(UUIDS[0]))
SERIALS = ["sn-one", "SN-ONE", "sn-two"]
TAGS = ["tag-1", "TAG-1", "tag-2"]
MACS = ["0011223344" + tail for tail in ("01", "02", "03", "04")]

identities = st.builds(
    Identity,
    uuid=st.none() | st.sampled_from(UUIDS),
    serial=st.none() | st.sampled_from(SERIALS),
    asset_tag=st.none() | st.sampled_from(TAGS),
    macs=st.lists(st.sampled_from(MACS), unique=True, max_size=3).map(tuple),
)


@st.composite
def estates(draw: st.DrawFn) -> list[Candidate]:
    found = draw(st.lists(identities, max_size=5))
    return [Candidate(id=n, name=f"PC-{n}", identity=i) for n, i in enumerate(found)]


def result(machine: Identity, candidates: list[Candidate]) -> object:
    try:
        found = match(machine, candidates)
    except Problem as problem:
        return (problem.code, [ref.id for ref in problem.details.computers or ()])
    return found.id if found else None


def reference(machine: Identity, candidates: list[Candidate]) -> object:
    """The rules, one after the other, as slowly and plainly as they can be said."""
    levels: dict[int, list[int]] = {}
    for candidate in candidates:
        theirs = candidate.identity
        agree = [0, 0, 0, 0]
        have = [False, False, False]
        if machine.uuid is not None and theirs.uuid is not None:
            have[0] = True
            if theirs.uuid == machine.uuid or theirs.uuid == swap_uuid(machine.uuid):
                agree[0] = 1
        if machine.serial is not None and theirs.serial is not None:
            have[1] = True
            agree[1] = int(machine.serial.upper() == theirs.serial.upper())
        if machine.asset_tag is not None and theirs.asset_tag is not None:
            have[2] = True
            agree[2] = int(machine.asset_tag.upper() == theirs.asset_tag.upper())
        for mac in machine.macs:
            holders = [c for c in candidates if mac in c.identity.macs]
            if holders == [candidate]:
                agree[3] = 1
        decisive = have.index(True) if True in have else 3
        if agree[decisive]:
            levels[candidate.id] = agree
    best = [n for n, level in levels.items() if level == max(levels.values())]
    if len(best) > 1:
        return ("ambiguous_machine", sorted(best))
    return best[0] if best else None


@settings(max_examples=200)
@given(identities, estates())
def test_the_rules_hold(machine: Identity, candidates: list[Candidate]) -> None:
    assert result(machine, candidates) == reference(machine, candidates)


@settings(max_examples=100)
@given(identities, estates(), st.randoms(use_true_random=False))
def test_the_order_of_computers_does_not_matter(
    machine: Identity, candidates: list[Candidate], rng: random.Random
) -> None:
    shuffled = candidates.copy()
    rng.shuffle(shuffled)
    assert result(machine, shuffled) == result(machine, candidates)


@settings(max_examples=100)
@given(identities, estates())
def test_byte_order_and_letter_case_do_not_matter(
    machine: Identity, candidates: list[Candidate]
) -> None:
    other = Identity(
        uuid=machine.uuid and swap_uuid(machine.uuid),
        serial=machine.serial and machine.serial.swapcase(),
        asset_tag=machine.asset_tag and machine.asset_tag.swapcase(),
        macs=tuple(reversed(machine.macs)),
    )
    assert result(other, candidates) == result(machine, candidates)


@settings(max_examples=100)
@given(
    st.sampled_from([None, "", "03000200-0400-0500-0006-000700080009", "F" * 32, "0" * 32]),
    st.sampled_from([None, "", "None", "Default string", "To be filled by O.E.M.", "0000000"]),
    st.lists(st.sampled_from(["00:00:00:00:00:00", "FF-FF-FF-FF-FF-FF", "x", ""])).map(tuple),
    estates(),
)
def test_junk_adds_nothing(
    uuid: str | None, text: str | None, macs: tuple[str, ...], candidates: list[Candidate]
) -> None:
    plain = identity(Machine(macs=("00:11:22:33:44:01",)))
    junk = identity(
        Machine(uuid=uuid, serial=text, asset_tag=text, macs=(*macs, "00-11-22-33-44-01"))
    )
    assert result(junk, candidates) == result(plain, candidates)


@settings(max_examples=100)
@given(identities, estates())
def test_computers_that_share_nothing_change_nothing(
    machine: Identity, candidates: list[Candidate]
) -> None:
    stranger = Candidate(
        id=99, name="STRANGER", identity=Identity(uuid="9" * 31 + "8", macs=("aabbccddeeff",))
    )
    assert result(machine, [*candidates, stranger]) == result(machine, candidates)


def test_an_adapter_that_moves_between_machines_confuses_nothing() -> None:
    adapter = "0011223344aa"
    first = Candidate(id=1, name="A", identity=Identity(uuid=UUIDS[0], macs=(adapter,)))
    second = Candidate(id=2, name="B", identity=Identity(serial="sn-two", macs=(adapter,)))
    machines = [
        Identity(uuid=UUIDS[0], macs=(adapter,)),
        Identity(serial="SN-TWO", macs=(adapter,)),
        Identity(uuid=UUIDS[1], macs=(adapter,)),
    ]
    assert [result(machine, [first, second]) for machine in machines] == [1, 2, None]


def test_a_stronger_key_wins_over_all_weaker_ones_together() -> None:
    by_uuid = Candidate(id=1, name="A", identity=Identity(uuid=UUIDS[0]))
    by_rest = Candidate(
        id=2, name="B", identity=Identity(serial="sn-one", asset_tag="tag-1", macs=(MACS[0],))
    )
    machine = Identity(uuid=UUIDS[0], serial="sn-one", asset_tag="tag-1", macs=(MACS[0],))
    assert result(machine, [by_uuid, by_rest]) == 1


def test_a_tie_names_the_computers() -> None:
    twins = [Candidate(id=n, name=f"TWIN-{n}", identity=Identity(serial="x1")) for n in (7, 3)]
    with pytest.raises(Problem) as caught:
        match(Identity(serial="X1"), twins)
    assert caught.value.code == "ambiguous_machine"
    refs = caught.value.details.computers
    assert refs is not None
    assert [(ref.id, ref.name) for ref in refs] == [(3, "TWIN-3"), (7, "TWIN-7")]
