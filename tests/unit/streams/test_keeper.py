"""What a worker does at intervals, and what it does not wait for the next interval with."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic

from app.errors import LogUnavailable
from app.streams.keeper import DEATH_SECONDS, Keeper
from app.streams.log import StreamRecord, StreamState
from app.streams.memory_log import MemoryLog
from app.streams.packing import Unreadable
from tests.support.asgi import no_tasks_left, until
from tests.support.journal import Journal
from tests.support.side import PRINCIPAL, Side

# Leases and beats of the app: without a word from elsewhere they would be what is waited for.
LEASE_SECONDS = 5.0
AT_ONCE_SECONDS = 0.8


@asynccontextmanager
async def kept(*sides: Side, dead: Sequence[str] = ()) -> AsyncIterator[list[str]]:
    """The workers do their duties; what is put into the list they hear as deaths."""
    names = list(dead)

    def newly_dead() -> Sequence[str]:
        heard = names[:]
        names.clear()
        return heard

    keepers = [Keeper(side.streams, side.follower, LEASE_SECONDS, newly_dead) for side in sides]
    for keeper in keepers:
        await keeper.start()
    running = [asyncio.create_task(keeper.run()) for keeper in keepers]
    try:
        yield names
    finally:
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for side in sides:
            await side.stop()


async def test_the_streams_of_a_worker_that_died_go_on_where_they_are_read_at_once() -> None:
    log = MemoryLog(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        await log.beat("a")
        async with kept(b) as deaths:
            journal = Journal(stream_id=await a.open())
            reading = asyncio.create_task(b.read(journal, tokens=4))
            await until(lambda: len(journal.tokens) == 3)
            await a.stop()
            died = monotonic()
            deaths.append("a")
            await reading
            assert monotonic() - died < DEATH_SECONDS + AT_ONCE_SECONDS
            journal.check("a1 a2 a3 b4 ", end="")


async def test_a_death_that_the_log_did_not_hear_of_is_said_again() -> None:
    class Shaky(MemoryLog):
        refusals = 1

        async def expire(self, owner: str) -> None:
            self.refusals -= 1
            if self.refusals >= 0:
                raise LogUnavailable("The log is away.")
            await super().expire(owner)

    log = Shaky(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        await log.beat("a")
        async with kept(b) as deaths:
            stream_id = await a.open()
            await a.stop()
            deaths.append("a")

            await until(lambda: log.refusals < 0)
            found = await log.describe(stream_id)
            assert found is not None
            assert not found[1].owner_alive


async def test_an_owner_elsewhere_stops_at_once_when_its_stream_is_cancelled() -> None:
    log = MemoryLog(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        async with kept(a, b):
            journal = Journal(stream_id=await a.open())
            await b.read(journal, tokens=3)
            asked = monotonic()
            await b.streams.cancel(journal.stream_id, PRINCIPAL)
            await b.read(journal)
            assert monotonic() - asked < AT_ONCE_SECONDS
            assert journal.end is not None
            assert journal.end["code"] == "cancelled"
            await until(lambda: a.talker.closed)


async def test_a_stream_that_cannot_be_read_keeps_no_other_from_being_seen_after() -> None:
    """In a rolling upgrade an older worker claimed nothing any more, as if its log were away."""

    class FromTheFuture(MemoryLog):
        unreadable = ""

        async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
            if stream_id == self.unreadable:
                raise Unreadable("This server cannot read the stream.")
            return await super().describe(stream_id)

    log = FromTheFuture(lease_seconds=60.0)
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=4), Side("b", log)
        await log.beat("a")
        log.unreadable, other = await a.open(), await a.open()
        await until(lambda: len(a.streams.live) == 2)
        await a.stop()
        async with kept(b, dead=["a"]):
            await until(lambda: other in b.streams.live, 5.0)


async def test_a_stream_that_is_read_is_not_ended_for_want_of_readers() -> None:
    """They were there all the time, at a worker that could not take it over just then."""
    log = MemoryLog(lease_seconds=0.2)
    async with no_tasks_left(3.0):
        a, b, c = Side("a", log, wait_at=4), Side("b", log), Side("c", log)
        await log.beat("a")
        journal = Journal(stream_id=await a.open("cancel"))
        await a.read(journal, tokens=3)
        await a.stop()
        await log.expire("a")
        b.follower.log_was_away()
        reading = asyncio.create_task(b.read(journal))
        await asyncio.sleep(0.3)
        await log.touch_readers([journal.stream_id])
        await Keeper(c.streams, c.follower, 0.2, lambda: ()).reap()
        found = await log.describe(journal.stream_id)
        assert found is not None
        assert (found[1].state, found[1].owner) == ("running", "a")
        # And that worker's own reaper goes on with it.
        b.follower._claim_from = 0.0
        await Keeper(b.streams, b.follower, 0.2, lambda: ()).reap()
        await reading
        journal.check("a1 a2 a3 b4 b5 b6 b7 b8 b9 ")
        await b.stop()
        await c.stop()
