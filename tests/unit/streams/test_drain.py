"""What a worker that stops still does, and what it leaves to others."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from structlog.testing import capture_logs

from app.errors import LogUnavailable
from app.events import Token
from app.streams.connection import Connection
from app.streams.follower import Follower
from app.streams.memory_log import MemoryLog
from tests.support.asgi import Peer, until
from tests.support.providers import DONE, FOREVER, Steps
from tests.support.worker import Worker, worker


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Worker]:
    async with worker() as here:
        yield here


async def test_whoever_comes_after_the_deadline_is_sent_away_at_once(here: Worker) -> None:
    """A request on a connection that NGINX had kept waited for its turn to leave, was cancelled, and got a 500."""
    here.on_disconnect = "grace"
    reader = await here.open(Steps(Token("a"), FOREVER))
    await until(lambda: here.streams.live[reader.record.stream_id].tail.entries)
    here.drain.begin()
    await here.drain.finish()
    for resumable in (True, False):
        peer = Peer()
        late = here.follow(reader.record.stream_id, peer, resumable=resumable)
        await asyncio.wait_for(late, 1)
        assert [frame.event for frame in peer.frames][-1] == "reconnect"
    here.streams.detach(reader)


async def test_a_worker_that_stops_takes_nothing_over(here: Worker) -> None:
    """Three that stopped together took each other's streams, and had to be rid of them again."""
    reader = await here.open(Steps(Token("a"), FOREVER))
    stream_id = reader.record.stream_id
    here.drain.begin()
    await here.streams.backend.expire(here.streams.owner)
    found = await here.streams.backend.describe(stream_id)
    assert found is not None
    await Follower(here.streams, lease_seconds=1.0).take_over(*found)
    after = await here.streams.backend.describe(stream_id)
    assert after is not None
    assert (after[1].fence, after[1].takeovers) == (1, 0)
    here.streams.detach(reader)


async def test_what_is_left_at_the_deadline_was_not_taken_from_the_dead(here: Worker) -> None:
    """The fourth reload in a stream's life ended it with `producer_lost`, as if it had killed four workers."""
    reader = await here.open(Steps(Token("a"), FOREVER))
    stream_id = reader.record.stream_id
    here.drain.begin()
    with capture_logs() as lines:
        await here.drain.finish()
        await here.drain.finish()  # as the lifespan does behind the server
    assert [line["streams"] for line in lines if line["event"].startswith("drain deadline")] == [1]
    assert await here.streams.backend.claim(stream_id, "worker-2", 1) == 2
    after = await here.streams.backend.describe(stream_id)
    assert after is not None
    assert after[1].takeovers == 0
    here.streams.detach(reader)


async def test_a_log_that_is_away_does_not_keep_a_worker_from_stopping() -> None:
    class Away(MemoryLog):
        """Its leases cannot be reached."""

        async def expire(self, owner: str) -> None:
            raise LogUnavailable("The stream log does not answer.")

    async with worker(Away()) as here:
        peer = Peer()
        served = here.serve(Steps(Token("a"), FOREVER), peer)
        await until(lambda: peer.frames_so_far)
        here.drain.begin()
        await here.drain.finish()
        await asyncio.wait_for(served, 1)
        assert [frame.event for frame in peer.frames] == ["token", "reconnect"]


async def test_what_was_said_before_the_deadline_is_still_said(here: Worker) -> None:
    peer = Peer()
    served = here.serve(Steps(Token("a"), 0.1, Token("b"), DONE), peer)
    here.drain.begin()
    await asyncio.wait_for(served, 2)
    assert [frame.event for frame in peer.frames] == ["token", "token", "done"]


async def test_a_connection_that_reads_nothing_is_sent_away_though_readers_stay() -> None:
    """Of a machine that stops with a log of its own: a socket between two streams would hold it up to its deadline."""
    async with worker() as here:
        here.streams.pod_draining = lambda: True
        connections = [_connection() for _ in range(3)]
        resting, reading, late = connections
        here.drain.rest(resting)
        here.drain.enter(reading, resumable=True)
        here.drain.begin()
        await until(lambda: resting.leaving == "drain")
        assert reading.leaving is None
        here.drain.leave(reading)
        here.drain.rest(reading)
        here.drain.rest(late)
        await until(lambda: reading.leaving == late.leaving == "drain")
        assert not here.drain.idle
        for connection in connections:
            here.drain.leave(connection)
            connection.close()
        assert here.drain.idle


def _connection() -> Connection:
    peer = Peer()
    return Connection(peer.receive, peer.send, 60, 60)
