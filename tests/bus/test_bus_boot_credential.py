"""Boot credentials: what is good, what is refused and why, and what their holder can tell."""

import base64
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.boot_credential import (
    CLOCK_SKEW,
    LONGEST,
    BootCredential,
    CredentialRefused,
    read,
    valid_image,
    why_refused,
)
from bus.boot_signing import BootVerifier, issue
from bus.nkeys import KeyPair

NOW = 1_800_000_000
DAY = 86_400
KEY = KeyPair.generate("account")
GOOD = BootCredential(estate="north", image="win11", issued=NOW, expires=NOW + 90 * DAY)
VERIFIER = BootVerifier("north", KEY.public)


def reason(token: str, now: float = NOW) -> str:
    """Why it is refused; empty for a good one."""
    try:
        VERIFIER.verify(token, now)
    except CredentialRefused as error:
        refused = error
    else:
        return ""
    assert len(token) < 20 or token not in str(refused)
    return refused.reason


def test_what_was_issued_is_good_until_it_expires() -> None:
    token = issue(KEY, GOOD)
    assert VERIFIER.verify(token, NOW) == GOOD == read(token)
    assert len(token) < 300
    assert reason(token, NOW + 90 * DAY - 1) == ""
    assert reason(token, NOW + 90 * DAY) == "expired"


def test_a_clock_that_is_a_little_off_does_not_matter_and_one_that_is_an_hour_off_does() -> None:
    token = issue(KEY, GOOD)
    assert reason(token, NOW - CLOCK_SKEW) == ""
    assert reason(token, NOW - 3600) == "not_yet_valid"


def test_another_estates_credential_is_refused_as_such() -> None:
    other = KeyPair.generate("account")
    south = BootCredential(estate="south", image="win11", issued=NOW, expires=NOW + DAY)
    assert reason(issue(other, south)) == "other_estate"


def test_who_signs_with_another_key_comes_nowhere() -> None:
    assert reason(issue(KeyPair.generate("account"), GOOD)) == "forged"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "iib1",
        "iib1..",
        "iib1.e30.AAAA",
        "iib2.e30.AAAA",
        "\0",
        "ä.ö.ü",
        "iib1." + "A" * LONGEST + ".AAAA",
    ],
)
def test_what_is_no_credential_at_all_is_malformed(token: str) -> None:
    assert reason(token) == "malformed"


def test_what_is_nested_too_deeply_is_malformed() -> None:
    nested = base64.urlsafe_b64encode(b'{"x":' + b"[" * 700).decode().rstrip("=")

    def at_depth(depth: int) -> str:
        return at_depth(depth - 1) if depth else reason(f"iib1.{nested}.AA")

    assert at_depth(300) == "malformed"


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_no_text_that_somebody_made_up_is_let_in(text: str) -> None:
    assert reason(text) == reason(f"iib1.{text}") == "malformed"


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=127))
@settings(max_examples=200)
def test_no_change_of_a_single_character_leaves_it_good(place: int, code: int) -> None:
    token = issue(KEY, GOOD)
    at = place % len(token)
    changed = token[:at] + chr(code) + token[at + 1 :]
    assert changed == token or reason(changed) in {"malformed", "forged", "other_estate"}


def test_there_is_one_way_to_write_a_credential() -> None:
    token = issue(KEY, GOOD)
    for other in (f"{token}=", f"{token}==", f"{token}\n", f" {token}", token.replace(".", "=.")):
        assert reason(other) == "malformed"


def test_its_holder_can_tell_without_any_key_what_is_wrong_with_it() -> None:
    token = issue(KEY, GOOD)
    assert why_refused(f"{token}\n", NOW + 100 * DAY) == "expired"
    assert why_refused(token, NOW - 3600) == "not_yet_valid"
    assert why_refused("nonsense", NOW) == "malformed"
    assert why_refused(token, NOW) is None


@pytest.mark.parametrize("image", ["", "Win11", "win 11", "win.11", "-win", "a" * 65, "win11\n"])
def test_an_image_has_an_id_that_fits_into_a_bucket(image: str) -> None:
    assert not valid_image(image)
    with pytest.raises(ValueError, match="image"):
        issue(KEY, BootCredential(estate="north", image=image, issued=NOW, expires=NOW + DAY))


def test_reading_one_needs_no_package_of_cryptography() -> None:
    program = "import bus.boot_credential, sys; print('cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
