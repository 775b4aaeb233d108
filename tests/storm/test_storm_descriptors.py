"""Each machine needs an open file, and a system allows only so many."""

import resource
from collections.abc import Iterator

import pytest

from cli.fail import CommandError
from cli.storm.descriptors import allow_connections


@pytest.fixture(autouse=True)
def limits() -> Iterator[tuple[int, int]]:
    """The limits of this process, which are put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_is_raised_as_far_as_needed(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    allow_connections(300)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, limits[1])


def test_a_limit_that_suffices_is_left_alone(limits: tuple[int, int]) -> None:
    allow_connections(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_a_hard_limit_that_does_not_suffice_is_told_with_the_cure(limits: tuple[int, int]) -> None:
    with pytest.raises(CommandError, match=f"--at-once {limits[1] - 100}"):
        allow_connections(limits[1])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
