"""Ending tasks, even those that forget a cancellation."""

import asyncio

from bus.waiting import end


async def test_a_task_that_forgets_a_cancellation_is_ended_all_the_same() -> None:
    forgotten: list[bool] = []

    async def forgetful() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if len(forgotten) == 2:
                    raise
                forgotten.append(True)

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()
    assert len(forgotten) == 2


async def test_a_task_that_failed_is_left_as_it_is() -> None:
    async def fails() -> None:
        raise ValueError("failed")

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    await end(task)
    assert isinstance(task.exception(), ValueError)
