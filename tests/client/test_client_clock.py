"""A boot image's clock follows the server's."""

import time
from datetime import UTC, datetime

import pytest

from client import clock
from client.settings import Settings, resolve


def test_only_a_boot_images_clock_is_the_clients_to_set() -> None:
    assert clock.follower(Settings()) is None
    booted = resolve(environment={}, kernel="imageinvoker.clock=server")
    assert clock.follower(booted) is clock.follow
    assert not resolve(environment={}, kernel="imageinvoker.clock=keep").sets_clock


def test_a_clock_that_is_right_is_left_alone_and_a_wrong_one_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float] = []
    # The clock of the computer that tests run on is not theirs to set.
    monkeypatch.setattr(time, "clock_settime", lambda _which, moment: told.append(moment))
    clock.follow(datetime.now(UTC))
    assert told == []
    clock.follow(datetime(2041, 1, 1, tzinfo=UTC))
    assert told == [datetime(2041, 1, 1, tzinfo=UTC).timestamp()]
