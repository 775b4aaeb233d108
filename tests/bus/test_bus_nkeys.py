"""NATS keys: their text says what they are for, and no wrong text is taken for one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.nkeys import KeyPair, KeyTextError, Kind, kind_of, verified

KINDS: tuple[Kind, ...] = ("operator", "account", "user", "server")
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""A pair from the documentation of NATS ("NKeys")."""


def test_a_seed_that_others_made_is_read_as_they_do() -> None:
    pair = KeyPair.from_seed(SEED)
    assert (pair.kind, pair.seed, pair.public) == ("user", SEED, PUBLIC)


@pytest.mark.parametrize(("kind", "letter"), [*zip(KINDS, "OAUN", strict=True)])
def test_the_first_letters_say_what_a_key_is_for(kind: Kind, letter: str) -> None:
    pair = KeyPair.generate(kind)
    assert pair.public[0] == letter
    assert pair.seed[:2] == f"S{letter}"
    assert (len(pair.public), len(pair.seed)) == (56, 58)
    assert kind_of(pair.public) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_pair_again(kind: Kind) -> None:
    pair = KeyPair.generate(kind)
    again = KeyPair.from_seed(pair.seed)
    assert (again.kind, again.public, again.seed) == (kind, pair.public, pair.seed)


def test_no_two_pairs_are_the_same() -> None:
    assert len({KeyPair.generate("user").public for _ in range(50)}) == 50


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_only_the_owner_of_a_key_signs_for_it(data: bytes) -> None:
    one, other = KeyPair.generate("user"), KeyPair.generate("user")
    signature = one.sign(data)
    assert verified(one.public, signature, data)
    assert not verified(other.public, signature, data)
    assert not verified(one.public, signature, data + b"x")
    assert not verified(one.public, b"", data)


@given(st.integers(0, 57), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
@settings(max_examples=200)
def test_a_text_with_a_wrong_letter_is_no_key_and_is_not_repeated(place: int, letter: str) -> None:
    pair = KeyPair.from_seed(SEED)
    for right, read in ((pair.seed, KeyPair.from_seed), (pair.public, kind_of)):
        wrong = right[:place] + letter + right[place + 1 :]
        if wrong == right or place >= len(right):
            continue
        with pytest.raises(KeyTextError) as caught:
            read(wrong)
        assert wrong not in str(caught.value)


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_no_text_is_too_strange_to_be_refused(text: str) -> None:
    for read in (KeyPair.from_seed, kind_of):
        with pytest.raises(KeyTextError):
            read(text)


def test_a_public_key_is_no_seed_and_a_seed_no_public_key() -> None:
    pair = KeyPair.generate("account")
    with pytest.raises(KeyTextError):
        KeyPair.from_seed(pair.public)
    with pytest.raises(KeyTextError):
        kind_of(pair.seed)
    with pytest.raises(KeyTextError):
        verified(pair.seed, b"", b"")


def test_nothing_shows_the_seed_unasked() -> None:
    pair = KeyPair.generate("user")
    assert pair.seed not in repr(pair) + str(vars(pair))
