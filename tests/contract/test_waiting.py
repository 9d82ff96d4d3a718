"""Waiting for news: it ends when there may be some, and at the latest when its time is over."""

import asyncio
from time import monotonic

from app.streams.log import START, Cursor
from tests.contract.logs import Log
from tests.contract.streams import begin, numbered, put, words

# Far above what a wake takes, far below the time that the waits are given.
SOON_SECONDS = 3.0
LONG_SECONDS = 30.0


async def test_a_wait_ends_when_an_event_comes(log: Log) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 1))
    waiting = asyncio.create_task(log.wait(stream_id, Cursor(0, 1), LONG_SECONDS))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    began = monotonic()
    await put(log, stream_id, 2, words(2, 1))
    await waiting
    assert monotonic() - began < SOON_SECONDS
    assert await log.read(stream_id, Cursor(0, 1), 10) == numbered(2, words(2, 1))


async def test_a_wait_for_what_is_there_already_ends_at_once(log: Log) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 5))
    began = monotonic()
    for after in (START, Cursor(0, 4)):
        await log.wait(stream_id, after, LONG_SECONDS)
    assert monotonic() - began < SOON_SECONDS


async def test_a_wait_without_news_ends_in_its_time(log: Log) -> None:
    stream_id = await begin(log)
    began = monotonic()
    await log.wait(stream_id, START, 0.4)
    assert 0.3 < monotonic() - began < SOON_SECONDS


async def test_all_who_wait_are_woken(log: Log) -> None:
    stream_id, other = await begin(log), await begin(log)
    waiting = [asyncio.create_task(log.wait(stream_id, START, LONG_SECONDS)) for _ in range(50)]
    elsewhere = asyncio.create_task(log.wait(other, START, LONG_SECONDS))
    await asyncio.sleep(0.1)
    await put(log, stream_id, 1, words(1, 1))
    async with asyncio.timeout(SOON_SECONDS):
        await asyncio.gather(*waiting)
    elsewhere.cancel()
    await asyncio.gather(elsewhere, return_exceptions=True)


async def test_a_worker_is_woken_by_whoever_asks_it_to_cancel_and_told_also_if_it_looked_away(log: Log) -> None:
    mine, theirs = await begin(log, "w1"), await begin(log, "w2")
    began = monotonic()
    await log.wait_for_cancels("w1", 0.3)
    assert 0.2 < monotonic() - began < SOON_SECONDS
    waiting = asyncio.create_task(log.wait_for_cancels("w1", LONG_SECONDS))
    await asyncio.sleep(0.1)
    await log.request_cancel(theirs)
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await log.request_cancel(mine)
    async with asyncio.timeout(SOON_SECONDS):
        await waiting
    assert await log.cancel_requests("w1") == [mine]
    await log.request_cancel(mine)
    await asyncio.sleep(0.2)
    async with asyncio.timeout(SOON_SECONDS):
        await log.wait_for_cancels("w1", LONG_SECONDS)


async def test_a_cancelled_wait_leaves_the_others_waiting(log: Log) -> None:
    stream_id = await begin(log)
    kept = asyncio.create_task(log.wait(stream_id, START, LONG_SECONDS))
    for _ in range(20):
        gone = asyncio.create_task(log.wait(stream_id, START, LONG_SECONDS))
        await asyncio.sleep(0.005)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    assert not kept.done()
    await put(log, stream_id, 1, words(1, 1))
    async with asyncio.timeout(SOON_SECONDS):
        await kept


async def test_a_follower_that_only_reads_and_waits_gets_every_event_once(log: Log) -> None:
    stream_id = await begin(log)
    events = words(1, 300)

    async def follow() -> list[object]:
        found: list[object] = []
        after = START
        while len(found) < len(events):
            page = await log.read(stream_id, after, 20)
            if page:
                found += page
                after = page[-1][0]
            else:
                await log.wait(stream_id, after, LONG_SECONDS)
        return found

    followers = [asyncio.create_task(follow()) for _ in range(5)]
    for first in range(1, 301, 3):
        assert await put(log, stream_id, first, words(first, 3)) == "ok"
        await asyncio.sleep(0.002 if first % 2 else 0)
    async with asyncio.timeout(20):
        for found in await asyncio.gather(*followers):
            assert found == numbered(1, events)


async def test_waiting_for_nothing_known_ends_in_its_time(log: Log) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        await log.wait("n" * 22, START, 0.2)
