"""The example in deploy/nats is what the code says."""

from pathlib import Path

import pytest

from estate.example import example

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nats" / "estate"


@pytest.mark.parametrize("name", example())
def test_the_example_is_what_the_code_makes(name: str) -> None:
    assert (EXAMPLE / name).read_text() == example()[name], (
        ".venv/bin/python -m estate.example deploy/nats/estate"
    )


def test_nothing_else_is_in_the_example_and_no_key_of_anybody() -> None:
    assert {each.name for each in EXAMPLE.iterdir()} == set(example())
    text = "".join(example().values())
    assert "eyJ" not in text
    assert "SU" + "A" not in text
