"""What a connection waits for: news, the client's leaving, a heartbeat that is due, a reader that is stuck."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from app.streams.connection import Connection, ReaderStuck
from tests.support.asgi import Peer, no_tasks_left, until

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
LONG = 60.0


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Peer]:
    async with no_tasks_left():
        yield Peer()


async def test_waiting_ends_at_news(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    asyncio.get_running_loop().call_later(0.01, connection.wake)
    await asyncio.wait_for(connection.wait(), 5)
    assert not connection.gone
    assert not connection.heartbeat_due
    connection.close()


async def test_waiting_ends_when_the_client_leaves(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    asyncio.get_running_loop().call_later(0.01, peer.leave)
    await asyncio.wait_for(connection.wait(), 5)
    assert connection.gone
    await asyncio.wait_for(connection.wait(), 5)
    connection.close()


async def test_the_body_of_a_request_is_not_its_end(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, 0.05, LONG)
    await connection.wait()
    assert not connection.gone
    connection.close()


async def test_a_connection_that_is_to_leave_wakes_and_says_why(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    asyncio.get_running_loop().call_later(0.01, connection.leave, "drain")
    await asyncio.wait_for(connection.wait(), 5)
    connection.leave("max_age")
    assert connection.leaving == "drain"
    await asyncio.wait_for(connection.wait(), 5)
    connection.close()


async def test_a_connection_can_have_a_greatest_age(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    connection.leave_after(0.05, "max_age")
    await asyncio.wait_for(connection.wait(), 5)
    assert connection.leaving == "max_age"
    connection.close()


async def test_news_to_nobody_are_harmless(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    connection.wake()
    waiting = asyncio.create_task(connection.wait())
    await asyncio.sleep(0)
    connection.wake()
    connection.wake()
    await waiting
    connection.close()
    connection.wake()


async def test_a_heartbeat_is_due_after_silence(peer: Peer) -> None:
    clock = asyncio.get_running_loop().time
    connection = Connection(peer.receive, peer.send, 0.1, LONG)
    began = clock()
    await connection.wait()
    assert connection.heartbeat_due
    assert 0.09 <= clock() - began < 1
    connection.close()


async def test_heartbeats_go_on_for_as_long_as_the_silence_does(peer: Peer) -> None:
    clock = asyncio.get_running_loop().time
    connection = Connection(peer.receive, peer.send, 0.05, LONG)
    due = []
    for _ in range(4):
        await connection.wait()
        assert connection.heartbeat_due
        due.append(clock())
        await connection.send(BODY)
        assert not connection.heartbeat_due
    assert min(later - sooner for sooner, later in pairwise(due)) >= 0.045
    connection.close()


async def test_no_heartbeat_is_due_while_bytes_flow(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, 0.4, LONG)
    for _ in range(80):
        await asyncio.sleep(0.01)
        assert not connection.heartbeat_due
        await connection.send(BODY)
    connection.close()


async def test_headers_alone_do_not_stand_for_a_heartbeat(peer: Peer) -> None:
    """A proxy that waits for the first byte of the body would still see silence."""
    connection = Connection(peer.receive, peer.send, 0.05, LONG)
    await connection.wait()
    await connection.send(START)
    assert connection.heartbeat_due
    connection.close()


async def test_a_silence_after_a_slow_send_is_not_longer_than_any_other(peer: Peer) -> None:
    clock = asyncio.get_running_loop().time
    connection = Connection(peer.receive, peer.send, 0.2, LONG)
    peer.send_takes_seconds = 0.3
    await connection.send(BODY)
    began = clock()
    await connection.wait()
    assert connection.heartbeat_due
    assert clock() - began < 0.25 + 0.5
    connection.close()


@pytest.mark.parametrize(("heartbeat_seconds", "send_seconds"), [(LONG, 0.2), (0.05, 0.2), (0.2, 0.1)])
async def test_a_reader_that_takes_nothing_is_stuck_after_its_time(
    peer: Peer, heartbeat_seconds: float, send_seconds: float
) -> None:
    clock = asyncio.get_running_loop().time
    connection = Connection(peer.receive, peer.send, heartbeat_seconds, send_seconds)
    await connection.send(BODY)
    await asyncio.sleep(1.5 * send_seconds)
    peer.reading.clear()
    began = clock()
    with pytest.raises(ReaderStuck):
        await connection.send(BODY)
    assert send_seconds * 0.9 <= clock() - began < send_seconds + 1
    connection.close()


async def test_a_stuck_reader_leaves_the_task_as_it_was(peer: Peer) -> None:
    """A cancellation that stays counted would end the next `asyncio.timeout` of the task by itself."""
    connection = Connection(peer.receive, peer.send, LONG, 0.05)
    peer.reading.clear()
    with pytest.raises(ReaderStuck):
        await connection.send(BODY)
    connection.close()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(5):
        await asyncio.sleep(0.01)


async def test_a_slow_reader_that_takes_something_is_not_stuck(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, 0.4)
    peer.send_takes_seconds = 0.1
    for _ in range(8):
        await connection.send(BODY)
    connection.close()
    assert len(peer.bodies) == 8


async def test_silence_of_our_own_does_not_make_a_reader_stuck(peer: Peer) -> None:
    connection = Connection(peer.receive, peer.send, LONG, 0.05)
    await connection.send(BODY)
    await asyncio.sleep(0.3)
    await connection.send(BODY)
    connection.close()


async def test_a_cancellation_from_outside_stays_one(peer: Peer) -> None:
    peer.reading.clear()

    async def serve() -> None:
        connection = Connection(peer.receive, peer.send, LONG, LONG)
        try:
            await connection.send(BODY)
        finally:
            connection.close()

    task = asyncio.create_task(serve())
    await until(lambda: peer.messages)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_outweighs_a_stuck_reader(peer: Peer) -> None:
    """The server wants the task to end; it must not go on to answer that the reader was slow."""

    async def stay(_message: object) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def serve() -> None:
        connection = Connection(peer.receive, stay, LONG, 0.05)
        try:
            await connection.send(BODY)
        finally:
            connection.close()

    task = asyncio.create_task(serve())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_last_timer_does_not_keep_a_connection_alive(peer: Peer) -> None:
    """A timer of 15 s that outlived its stream would hold the memory of a quarter minute's streams."""
    connection = Connection(peer.receive, peer.send, LONG, LONG)
    connection.leave_after(LONG, "max_age")
    await connection.send(BODY)
    connection.close()
    alive = weakref.ref(connection)
    del connection
    await asyncio.sleep(0.01)
    gc.collect()
    assert alive() is None


async def test_a_closed_connection_listens_no_longer(peer: Peer) -> None:
    async with no_tasks_left():
        connection = Connection(peer.receive, peer.send, LONG, LONG)
        await asyncio.sleep(0)
        connection.close()
    peer.leave()
    await asyncio.sleep(0.01)
    assert not connection.gone


class Written:
    """The connection below, as far as `push` needs it."""

    writable = True

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, body: bytes) -> None:
        self.pieces.append(body)


async def test_pushing_nothing_leaves_a_heartbeat_due(peer: Peer) -> None:
    """What a surface does not say of a stream kept the reader silent, and what is on the way cuts what is silent."""
    wire: Any = Written()
    connection = Connection(peer.receive, peer.send, 0.3, LONG, wire)
    for _ in range(20):
        await asyncio.sleep(0.05)
        connection.push(b"")
        if connection.heartbeat_due:
            break
    assert connection.heartbeat_due
    assert wire.pieces == []
    connection.close()
