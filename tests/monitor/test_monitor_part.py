"""The work of the monitor goes on whatever fails, and whoever watches can see that it does not."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from structlog.testing import capture_logs

from express.connection import DatabaseUnavailable
from services.health import Health
from services.monitor.part import FailingError, Loop, Part
from tests.echo import until
from tests.site import eventually


class Work:
    """Steps that fail as long as there is a failure."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.tries = 0
        self.done = 0

    async def step(self) -> None:
        self.tries += 1
        await asyncio.sleep(0.001)
        if self.failure:
            raise self.failure
        self.done += 1


async def ailing(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except FailingError:
        return True
    return False


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (nats.errors.TimeoutError(), "nats: timeout"),
        (TimeoutError(), "TimeoutError"),
        (DatabaseUnavailable("no route"), "no route"),
        (OverflowError("date value out of range"), None),
    ],
)
async def test_whatever_fails_is_logged_and_done_again(failure: Exception, why: str | None) -> None:
    work = Work(failure)
    part = Part(Loop("the work", "main", work.step))
    with capture_logs() as lines:
        await part.start()
        await until(lambda: work.tries >= 3)
        work.failure = None
        await until(lambda: work.done >= 3)
    await part.stop()
    assert {line["event"] for line in lines} == {"work is held up"}
    assert {(line["work"], line.get("why")) for line in lines} == {("the work", why)}
    assert all(bool(line.get("exc_info")) == (why is None) for line in lines)


async def test_a_loop_that_keeps_failing_is_not_well_until_something_goes_well_again() -> None:
    work = Work(OSError("away"))
    loop = Loop("the work", "main", work.step, patience=0.3)
    assert await ailing(loop.check)
    loop.start()
    await until(lambda: work.tries == 1)
    assert not await ailing(loop.check)
    await eventually(lambda: ailing(loop.check), bool)
    work.failure = None
    await until(lambda: work.done > 0)
    assert not await ailing(loop.check)
    await loop.stop()


async def test_a_loop_that_has_ended_is_not_well_and_the_service_is_not_ready() -> None:
    work = Work()
    loop = Loop("the work", "main", work.step)
    health = Health()
    health.needs(loop.name, loop.check)
    health.serving = True
    async with health.answered():
        loop.start()
        await until(lambda: work.done > 0)
        assert await asyncio.to_thread(health.missing) == []
        # Nothing catches this one.
        work.failure = asyncio.CancelledError()
        assert loop._task
        await asyncio.wait({loop._task})
        assert await asyncio.to_thread(health.missing) == ["the work does not answer"]
    await loop.stop()
