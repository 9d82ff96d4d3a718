"""Waiting for a stream in this process."""

import asyncio
from time import monotonic

from app.streams.waiters import Waiters

LONG_SECONDS = 30.0


async def test_all_who_wait_for_a_stream_are_woken_and_nobody_else() -> None:
    waiters = Waiters()
    waiting = [asyncio.create_task(waiters.wait("a", LONG_SECONDS)) for _ in range(3)]
    other = asyncio.create_task(waiters.wait("b", LONG_SECONDS))
    await asyncio.sleep(0)
    assert set(waiters.stream_ids) == {"a", "b"}
    waiters.wake("a")
    waiters.wake("c")
    await asyncio.gather(*waiting)
    assert list(waiters.stream_ids) == ["b"]
    waiters.wake_all()
    await other
    assert not waiters.stream_ids


async def test_a_wait_ends_in_its_time_and_leaves_nothing_behind() -> None:
    waiters = Waiters()
    began = monotonic()
    await waiters.wait("a", 0.1)
    assert 0.05 < monotonic() - began < 3.0
    assert not waiters.stream_ids


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    waiters = Waiters()
    kept, gone = (asyncio.create_task(waiters.wait("a", LONG_SECONDS)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert list(waiters.stream_ids) == ["a"]
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)
    assert not waiters.stream_ids
