"""Whoever reads a stream sees to it that it goes on: soon, from where it was, and honestly where a part was lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from app.events import Failed, Reset
from app.streams.follower import SILENT_SECONDS
from app.streams.log import START, Backend, Cursor
from app.streams.memory_log import MemoryLog
from app.streams.packing import Unreadable
from tests.contract.streams import read_all
from tests.support.asgi import no_tasks_left, until
from tests.support.journal import Journal
from tests.support.side import PRINCIPAL, Side
from tests.support.stale_replica import replicated, stale_replica

# What a reader may wait that is not to wait for a look at the lease.
AT_ONCE_SECONDS = SILENT_SECONDS * 0.8


@asynccontextmanager
async def sides(backend: Backend, *some: Side) -> AsyncIterator[None]:
    """Workers that leave nothing behind."""
    for side in some:
        await backend.beat(side.streams.owner)
    try:
        yield
    finally:
        for side in some:
            await side.stop()


async def test_whoever_attaches_to_an_orphan_takes_it_over_without_waiting() -> None:
    log = MemoryLog()
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        async with sides(log, a, b):
            journal = Journal(stream_id=await a.open())
            await a.read(journal, tokens=3)
            await a.stop()
            await log.expire("a")
            began = monotonic()
            await b.read(journal, tokens=4)
            assert monotonic() - began < AT_ONCE_SECONDS
            journal.check("a1 a2 a3 b4 ", end="")


async def test_who_reads_already_takes_over_at_once_when_the_death_is_known() -> None:
    log = MemoryLog(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        async with sides(log, a, b):
            journals = [Journal(stream_id=await a.open()) for _ in range(20)]
            reading = [asyncio.create_task(b.read(journal, tokens=4)) for journal in journals]
            await until(lambda: all(len(journal.tokens) == 3 for journal in journals))
            await asyncio.sleep(0.1)
            await a.stop()
            await log.expire("a")
            began = monotonic()
            await b.follower.rescue()
            await asyncio.gather(*reading)
            assert monotonic() - began < AT_ONCE_SECONDS
            for journal in journals:
                journal.check("a1 a2 a3 b4 ", end="")


async def test_a_stream_that_is_to_be_cancelled_is_not_gone_on_with() -> None:
    log = MemoryLog()
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        async with sides(log, a, b):
            journal = Journal(stream_id=await a.open())
            await a.read(journal, tokens=3)
            await a.stop()
            await b.streams.cancel(journal.stream_id, PRINCIPAL)
            await log.expire("a")
            await b.read(journal)
            journal.check("a1 a2 a3 ", end="error")
            assert journal.end is not None
            assert (journal.end["code"], b.talker.started) == ("cancelled", 0)


class FromTheFuture(MemoryLog):
    """It holds an event that a later version wrote, behind the third."""

    async def read(self, stream_id: str, after: Cursor, events_max: int):  # type: ignore[no-untyped-def]
        found = await super().read(stream_id, after, events_max)
        if any(cursor.seq > 3 for cursor, _ in found):
            raise Unreadable("This server cannot read the stream.")
        return found


async def test_what_this_version_cannot_read_is_said_to_readers_and_left_to_others() -> None:
    """It was taken for a log that is away: the follower tried for ever, and its readers waited as long."""
    log = FromTheFuture(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=5), Side("b", log)
        async with sides(log, a, b):
            stream_id = await a.open()
            reader = await b.streams.attach(stream_id, PRINCIPAL, START)
            await until(lambda: b.streams.live[stream_id].tail.broken)
            await reader.take()  # what came before it
            with pytest.raises(Unreadable):
                await reader.take()
            b.streams.detach(reader)
            await a.stop()
            await log.expire("a")
            found = await log.describe(stream_id)
            assert found is not None
            with pytest.raises(Unreadable):
                await b.follower.take_over(*found)
            after = await log.describe(stream_id)
            assert after is not None
            assert (after[1].fence, after[1].owner) == (1, "a")


@asynccontextmanager
async def lost_two_tokens(resume: str = "continue") -> AsyncIterator[tuple[Side, Side, Journal, Backend]]:
    """Worker `a` stands before its sixth token; the fourth and the fifth are lost, and the client has them."""
    async with no_tasks_left(3.0), stale_replica() as (pair, log):
        a, b = Side("a", log, wait_at=4), Side("b", log, resume=resume)  # type: ignore[arg-type]
        async with sides(log, a, b):
            journal = Journal(stream_id=await a.open())
            await b.read(journal, tokens=3)
            await replicated(pair)
            pair.detach()
            a.talker.wait_at = 6
            waiting, a.talker.go_on = a.talker.go_on, asyncio.Event()
            waiting.set()
            await b.read(journal, tokens=5)
            journal.check("a1 a2 a3 a4 a5 ", end="")
            # Its producer has the answer too, and counts them as written.
            await until(lambda: a.streams.live[journal.stream_id].tail.last == (0, 5))
            await pair.fail_over(log)
            yield a, b, journal, log


async def test_a_stream_that_lost_events_begins_again_with_a_reset_when_it_is_taken_over() -> None:
    async with lost_two_tokens() as (a, b, journal, log):
        await a.stop()
        await log.expire("a")
        await b.read(journal)
        journal.check("".join(f"b{n} " for n in range(1, 10)))
        # Whoever comes later, with any id or none, is told the same.
        for after in (START, Cursor(0, 2), Cursor(0, 5)):
            events = [event for _, event in await read_all(log, journal.stream_id, after)]
            reset = next(number for number, event in enumerate(events) if isinstance(event, Reset))
            assert len(events[reset + 1 :]) == 10  # nine tokens and the end


async def test_where_the_operator_wants_no_second_request_it_ends_after_the_reset() -> None:
    async with lost_two_tokens("fail") as (a, b, journal, log):
        await a.stop()
        await log.expire("a")
        await b.read(journal)
        journal.check("", end="error")
        assert b.talker.started == 0
        assert isinstance((await read_all(log, journal.stream_id, Cursor(0, 5)))[-1][1], Failed)


async def test_a_reader_ahead_of_the_log_misses_nothing_if_the_producer_lives() -> None:
    """It was told that its place is gone, while the next event was on its way."""
    async with lost_two_tokens() as (a, b, journal, _):
        reading = asyncio.create_task(b.read(journal))
        await asyncio.sleep(SILENT_SECONDS * 1.5)
        a.talker.go_on.set()
        await reading
        journal.check("".join(f"a{n} " for n in range(1, 10)))
