"""Waiting on Redis: one connection whatever the number of readers, proved to be alive, and nothing lost between."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.events import Event
from app.streams.log import START, Cursor
from app.streams.redis.log import RedisLog
from tests.contract.streams import DONE, begin, numbered, put, record, words
from tests.support.redis import RedisServer
from tests.support.redis_log import opened
from tests.support.tcp_proxy import ProxiedConnection, TcpProxy
from tests.support.waiting import until

LONG_SECONDS = 30.0
# Of a wake through Redis, on a noisy machine.
SOON_SECONDS = 1.5


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
async def writer(server: RedisServer) -> AsyncIterator[RedisLog]:
    """Another worker's handle."""
    async with opened(server.url) as made:
        yield made


@pytest.fixture
async def log(server: RedisServer) -> AsyncIterator[RedisLog]:
    async with opened(server.url) as made:
        yield made


async def follow(log: RedisLog, stream_id: str, after: Cursor = START) -> list[object]:
    """All events up to the terminal one, as a reader gets them."""
    found: list[object] = []
    while True:
        page = await log.read(stream_id, after, 50)
        if not page:
            await log.wait(stream_id, after, LONG_SECONDS)
            continue
        found += page
        after = page[-1][0]
        if page[-1][1] == DONE:
            return found


def connections(server: RedisServer) -> int:
    with server.client() as client:
        return len(client.client_list()) - 1  # this client's own


async def test_three_hundred_readers_wait_on_one_connection(
    server: RedisServer, log: RedisLog, writer: RedisLog
) -> None:
    ids = [await begin(writer) for _ in range(300)]
    before = connections(server)
    readers = [asyncio.create_task(follow(log, one)) for one in ids]
    await asyncio.sleep(1.0)
    # One more for the tail, and up to five for 300 reads at once; the sixth is open already.
    assert connections(server) - before <= 6
    for first in range(1, 10, 3):
        for one in ids:
            await put(writer, one, first, words(first, 3))
    for one in ids:
        await put(writer, one, 10, [DONE])
    async with asyncio.timeout(30):
        for found in await asyncio.gather(*readers):
            assert found == numbered(1, [*words(1, 9), DONE])
    assert connections(server) - before <= 6


async def test_a_new_waiter_does_not_wait_out_the_block(log: RedisLog, writer: RedisLog) -> None:
    quiet = await begin(writer)
    holding = asyncio.create_task(log.wait(quiet, START, LONG_SECONDS))
    await asyncio.sleep(0.3)
    for _ in range(10):
        stream_id = await begin(writer)
        reader = asyncio.create_task(follow(log, stream_id))
        await asyncio.sleep(0.02)
        began = monotonic()
        await put(writer, stream_id, 1, [*words(1, 1), DONE])
        await reader
        # The next probe, after a second, would have found it too.
        assert monotonic() - began < 0.7
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def test_a_quiet_stream_is_waited_for_on_one_connection(server: RedisServer, writer: RedisLog) -> None:
    """A command may take 0.25 s; a wait is none."""
    async with TcpProxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as log:
        stream_id = await begin(writer)
        waiting = asyncio.create_task(log.wait(stream_id, START, LONG_SECONDS))
        await asyncio.sleep(7.0)
        assert not waiting.done()
        assert len(tails(proxy)) == 1
        await put(writer, stream_id, 1, words(1, 1))
        async with asyncio.timeout(SOON_SECONDS):
            await waiting


async def test_readers_that_come_and_go_leave_no_connection_and_no_listening(
    server: RedisServer, log: RedisLog, writer: RedisLog
) -> None:
    ids = [await begin(writer) for _ in range(20)]
    for _ in range(50):
        waits = [asyncio.create_task(log.wait(one, START, LONG_SECONDS)) for one in ids]
        await asyncio.sleep(random.uniform(0.0, 0.02))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    began = monotonic()
    assert await log.read(ids[0], START, 10) == []
    assert monotonic() - began < 0.25
    assert connections(server) <= 10

    async def forgotten() -> bool:
        return not log._tails[0]._followed

    await until(forgotten, 10.0)


def tails(proxy: TcpProxy) -> list[ProxiedConnection]:
    return [connection for connection in proxy.connections if b"XREAD" in connection.sent]


async def switched(server: RedisServer, replica: RedisServer, probe_seconds: float) -> float | None:
    """How long a reader stays without news whose tail leads to a server that gets no writes any more."""
    async with (
        TcpProxy(server.port) as proxy,
        opened(f"redis://127.0.0.1:{proxy.port}", probe_seconds=probe_seconds) as log,
        opened(server.url) as writer,
    ):
        stream_id = await begin(writer)
        await put(writer, stream_id, 1, words(1, 1))
        # The tail's connection leads to the replica, all commands to the master.
        proxy.target_port = replica.port
        log._buckets.links[0]._address = ("127.0.0.1", proxy.port)
        waiting = asyncio.create_task(log.wait(stream_id, Cursor(0, 1), LONG_SECONDS))
        await asyncio.sleep(0.3)
        assert [tail.target_port for tail in tails(proxy)] == [replica.port]
        proxy.target_port = server.port
        replica.promote()
        began = monotonic()
        await put(writer, stream_id, 2, words(2, 1))
        try:
            async with asyncio.timeout(6.0):
                await waiting
        except TimeoutError:
            return None
        assert await log.read(stream_id, Cursor(0, 1), 10) == numbered(2, words(2, 1))
        return monotonic() - began


async def test_a_tail_on_a_detached_replica_is_noticed(server: RedisServer) -> None:
    with RedisServer(replica_of=server) as replica:
        replica.wait_synced()
        starved = await switched(server, replica, 1.0)
    assert starved is not None
    assert starved < 3.0


async def test_without_the_probe_a_tail_on_a_detached_replica_starves(server: RedisServer) -> None:
    """The guard off: what it is for."""
    with RedisServer(replica_of=server) as replica:
        replica.wait_synced()
        assert await switched(server, replica, 3_600.0) is None


async def test_a_half_open_tail_is_replaced(server: RedisServer, writer: RedisLog) -> None:
    async with TcpProxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}", probe_seconds=0.5) as log:
        stream_id = await begin(writer)
        reader = asyncio.create_task(follow(log, stream_id))
        await asyncio.sleep(0.3)
        await put(writer, stream_id, 1, words(1, 3))
        tails(proxy)[0].frozen = True
        await put(writer, stream_id, 4, [*words(4, 3)])

        async def replaced() -> bool:
            return len(tails(proxy)) == 2

        await until(replaced, 5.0)
        await put(writer, stream_id, 7, [DONE])
        async with asyncio.timeout(SOON_SECONDS):
            assert await reader == numbered(1, [*words(1, 6), DONE])


@pytest.mark.parametrize("seed", range(4))
async def test_a_reader_whose_connections_are_killed_at_any_moment_gets_every_event_once(
    server: RedisServer, log: RedisLog, writer: RedisLog, seed: int
) -> None:
    chance = random.Random(seed)
    events: list[Event] = [*words(1, 400), DONE]
    stream_id = await begin(writer)
    running = True

    async def kill() -> None:
        while running:
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            with server.client() as client:
                own = {client.client_id()}
                victims = [one for one in client.client_list() if int(one["id"]) not in own and one["cmd"] == "xread"]
                for victim in victims:
                    client.execute_command("CLIENT", "KILL", "ID", victim["id"])

    async def produce() -> None:
        first = 1
        while first <= len(events):
            count = chance.randint(1, 6)
            assert await put(writer, stream_id, first, events[first - 1 : first - 1 + count]) == "ok"
            first += count
            await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))

    killer = asyncio.create_task(kill())
    readers = [asyncio.create_task(follow(log, stream_id)) for _ in range(3)]
    await produce()
    for seq in (Cursor(0, chance.randint(0, 400)) for _ in range(3)):
        assert await follow(log, stream_id, seq) == numbered(1, events)[seq.seq :]
    async with asyncio.timeout(20):
        for found in await asyncio.gather(*readers):
            assert found == numbered(1, events)
    running = False
    await killer


async def test_a_reader_that_comes_at_the_very_end_gets_it(log: RedisLog, writer: RedisLog) -> None:
    for number in range(150):
        stream_id = (await writer.create(record(), "w1")).stream_id
        await put(writer, stream_id, 1, words(1, 2))
        end = asyncio.create_task(put(writer, stream_id, 3, [DONE]))
        if number % 2:
            await asyncio.sleep(0.0004 * (number % 5))
        async with asyncio.timeout(SOON_SECONDS):
            seen = number % 3
            assert await follow(log, stream_id, Cursor(0, seen)) == numbered(1, [*words(1, 2), DONE])[seen:]
        await end


async def test_the_tail_is_back_soon_after_redis(server: RedisServer, log: RedisLog, writer: RedisLog) -> None:
    stream_id = await begin(writer)
    reader = asyncio.create_task(log.wait(stream_id, START, LONG_SECONDS))
    await asyncio.sleep(0.2)
    server.stop()
    await asyncio.sleep(3.0)
    server.cont()
    began = monotonic()

    async def appended() -> bool:
        try:
            return await put(writer, stream_id, 1, words(1, 1)) == "ok"
        except LogUnavailable:
            return False

    await until(appended, 3.0)
    async with asyncio.timeout(3.0):
        await reader
    assert monotonic() - began < 4.0
