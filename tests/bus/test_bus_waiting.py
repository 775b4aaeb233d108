"""Waiting that can be called off."""

import asyncio

import pytest

from bus.waiting import end, unless


async def test_work_that_is_done_in_time_was_done() -> None:
    assert await unless(asyncio.Event(), asyncio.sleep(0))


async def test_work_is_called_off_when_told_and_cleans_up_first() -> None:
    told = asyncio.Event()
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            told.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    assert not await unless(told, work())
    assert cleaned.is_set()


async def test_an_error_of_the_work_is_the_callers() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unless(asyncio.Event(), work())


async def test_cancelled_itself_it_leaves_no_work_behind() -> None:
    begun = asyncio.Event()
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    waiting = asyncio.create_task(unless(asyncio.Event(), work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cleaned.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_task_that_loses_a_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.waiting._AGAIN", 0.01)
    lost = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 2)
    assert lost.is_set()
    assert task.cancelled()
    await end(task)
