"""A stream that nobody reads at the worker that produces it, and sometimes nobody anywhere."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.errors import LogUnavailable
from app.streams.log import StreamRecord, StreamState
from app.streams.memory_log import MemoryLog
from app.streams.opener import Opener
from app.streams.unread import Unread
from tests.support.asgi import no_tasks_left, until
from tests.support.journal import Journal
from tests.support.providers import REQUEST
from tests.support.side import PRINCIPAL, Side

GRACE_SECONDS = 1.5
LEASE_SECONDS = 0.2
# Long enough to be noticed by who looks once a lease, and well within the grace.
AWAY_SECONDS = 0.7
TOUCH_SECONDS = 0.03


class ShakyLog(MemoryLog):
    away = False

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        if self.away:
            raise LogUnavailable("The log is away.")
        return await super().describe(stream_id)


@asynccontextmanager
async def left(log: ShakyLog) -> AsyncIterator[tuple[Side, str]]:
    """A stream that its only reader has just left, and that has not ended."""
    async with no_tasks_left(3.0):
        side = Side("a", log, wait_at=4)
        side.streams.unread = Unread(side.streams, LEASE_SECONDS).decide
        await log.beat("a")
        record = StreamRecord(
            secrets.token_urlsafe(18), PRINCIPAL, "native", REQUEST, "grace", GRACE_SECONDS, 1_790_000_000
        )
        stream_id = (await Opener(side.streams, degrade=False).open(record)).stream_id
        await side.read(Journal(stream_id=stream_id), tokens=3)
        try:
            yield side, stream_id
        finally:
            for live in side.streams.live.values():
                if live.unread is not None:
                    live.unread.cancel()
            await side.stop()


async def read_elsewhere(log: ShakyLog, stream_id: str, seconds: float) -> None:
    """By somebody whose worker says so often."""
    for _ in range(int(seconds / TOUCH_SECONDS)):
        await log.touch_readers([stream_id])
        await asyncio.sleep(TOUCH_SECONDS)


def is_produced(side: Side, stream_id: str) -> bool:
    live = side.streams.live.get(stream_id)
    return live is not None and live.generation is not None and side.talker.closed == 0


@pytest.mark.parametrize("who", ["reader", "log"])
async def test_whoever_read_elsewhere_has_the_whole_grace_to_come_back(who: str) -> None:
    """In a rollout readers are sent from one worker to the next: one that took more than a lease lost its stream."""
    log = ShakyLog(lease_seconds=LEASE_SECONDS)
    async with left(log) as (side, stream_id):
        await read_elsewhere(log, stream_id, GRACE_SECONDS + LEASE_SECONDS)
        assert is_produced(side, stream_id)
        log.away = who == "log"
        await asyncio.sleep(AWAY_SECONDS)
        log.away = False
        assert is_produced(side, stream_id)
        await read_elsewhere(log, stream_id, GRACE_SECONDS)
        assert is_produced(side, stream_id)


async def test_a_stream_that_is_read_nowhere_any_more_is_cancelled_in_the_end() -> None:
    log = ShakyLog(lease_seconds=LEASE_SECONDS)
    async with left(log) as (side, stream_id):
        await read_elsewhere(log, stream_id, GRACE_SECONDS + LEASE_SECONDS)
        assert is_produced(side, stream_id)
        await until(lambda: side.talker.closed == 1, 10 * GRACE_SECONDS)
        found = await log.describe(stream_id)
        assert found is not None
        assert found[1].state == "cancelled"


async def test_a_log_that_does_not_answer_once_tells_of_no_reader_and_of_no_end() -> None:
    """One look that failed cancelled a stream that was read elsewhere."""
    log = ShakyLog(lease_seconds=LEASE_SECONDS)
    async with left(log) as (side, stream_id):
        await read_elsewhere(log, stream_id, GRACE_SECONDS - LEASE_SECONDS / 2)
        log.away = True  # at the first look
        await read_elsewhere(log, stream_id, LEASE_SECONDS)
        log.away = False
        await read_elsewhere(log, stream_id, 3 * LEASE_SECONDS)
        assert is_produced(side, stream_id)
