"""Waiting with a limit, beside cancellations."""

from __future__ import annotations

import asyncio

import pytest

from kvzmq.observing.waiting import ends_within

LONG_S = 60.0


def test_it_says_whether_the_work_ended_in_time() -> None:
    async def main() -> None:
        assert await ends_within(asyncio.sleep(0), LONG_S)
        assert not await ends_within(asyncio.Event().wait(), 0.001)
        assert not await ends_within(asyncio.Event().wait(), 0.0)

    asyncio.run(main())


def test_it_raises_what_the_work_raises() -> None:
    async def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(ends_within(fail(), LONG_S))


def test_work_that_takes_longer_is_cancelled() -> None:
    async def main() -> bool:
        task = asyncio.ensure_future(asyncio.Event().wait())
        await ends_within(task, 0.001)
        await asyncio.wait({task}, timeout=LONG_S)
        return task.cancelled()

    assert asyncio.run(main())


@pytest.mark.parametrize("first", ["the work", "the cancellation"])
def test_a_cancellation_is_not_lost_when_the_work_ends_in_the_same_turn(first: str) -> None:
    """With `asyncio.wait_for` it was, before Python 3.12: `kvzmq top` went on without a picture, for ever."""

    async def main() -> bool:
        work, end, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def again_and_again() -> None:
            while not over.is_set():
                await ends_within(work.wait(), LONG_S)
                work.clear()

        task, ended = asyncio.ensure_future(again_and_again()), asyncio.ensure_future(end.wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for event in (work, end) if first == "the work" else (end, work):
            event.set()
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        for _ in range(10):  # turns of the loop, not a time: the machine may stand still for any
            await asyncio.sleep(0)
        over.set()  # a task that has lost its cancellation ends by the next one
        return task.cancelled()

    assert asyncio.run(main())
