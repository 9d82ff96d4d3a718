"""Redis away, hung or slow: every command ends in time, nobody gets another's reply, and all is well soon after."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.events import Token
from app.streams.log import START, Append, Cursor
from app.streams.redis.log import RedisLog
from tests.contract.lag import LoopLag
from tests.contract.streams import DONE, begin, numbered, put, read_all, record, state, words
from tests.support.redis import RedisServer
from tests.support.redis_log import opened
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

# A command gets 0.25 s, and another 0.25 s if it has to connect or to queue; the rest is for a noisy machine.
COMMAND_SECONDS_MAX = 1.0
# From Redis's return to the first command that works: the longest pause between two tries is 1 s.
BACK_SECONDS_MAX = 3.0

Verb = Callable[[RedisLog, str], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "create": lambda log, _: log.create(record(), "w1"),
    "create with a key": lambda log, _: log.create(record(idempotency="k"), "w1"),
    "append": lambda log, stream_id: put(log, stream_id, 2, words(2, 1)),
    "read": lambda log, stream_id: log.read(stream_id, START, 10),
    "describe": lambda log, stream_id: log.describe(stream_id),
    "beat": lambda log, _: log.beat("w1"),
    "expire": lambda log, _: log.expire("w9"),
    "claim": lambda log, stream_id: log.claim(stream_id, "w2", 1),
    "release": lambda log, stream_id: log.release(stream_id, 9),
    "orphans": lambda log, _: log.orphans(),
    "request_cancel": lambda log, stream_id: log.request_cancel(stream_id),
    "cancel_requests": lambda log, _: log.cancel_requests("w1"),
    "touch_readers": lambda log, stream_id: log.touch_readers([stream_id]),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(enable_debug_command="local") as started:
        yield started


@pytest.fixture
async def log(server: RedisServer) -> AsyncIterator[RedisLog]:
    async with opened(server.url) as made:
        yield made


async def works(log: RedisLog, stream_id: str) -> bool:
    try:
        return await log.describe(stream_id) is not None
    except LogUnavailable:
        return False


@pytest.mark.parametrize("verb", VERBS)
async def test_a_hung_redis_ends_every_command_in_time(server: RedisServer, log: RedisLog, verb: str) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 1))
    server.stop()
    async with LoopLag() as lag:
        began = monotonic()
        with pytest.raises(LogUnavailable):
            await VERBS[verb](log, stream_id)
        assert monotonic() - began < COMMAND_SECONDS_MAX
        # Known to be away: nobody waits for that again.
        began = monotonic()
        for each in VERBS.values():
            with pytest.raises(LogUnavailable):
                await each(log, stream_id)
        assert monotonic() - began < 0.2
    assert lag.worst_seconds < 0.25
    server.cont()
    await until(lambda: works(log, stream_id), BACK_SECONDS_MAX)
    await VERBS[verb](log, stream_id)


async def test_many_commands_at_a_hung_redis_all_end_in_time(server: RedisServer, log: RedisLog) -> None:
    ids = [await begin(log) for _ in range(200)]
    server.stop()
    began = monotonic()
    async with LoopLag() as lag:
        ends = await asyncio.gather(*(log.read(one, START, 10) for one in ids), return_exceptions=True)
    assert all(isinstance(end, LogUnavailable) for end in ends)
    assert monotonic() - began < COMMAND_SECONDS_MAX
    assert lag.worst_seconds < 0.25
    server.cont()


async def test_after_a_restart_everything_works_again_soon(server: RedisServer, log: RedisLog) -> None:
    for _ in range(3):
        server.kill()
        with pytest.raises(LogUnavailable):
            await log.beat("w1")
        await asyncio.sleep(random.uniform(0.2, 2.0))
        server.start()
        began = monotonic()

        async def beats() -> bool:
            try:
                await log.beat("w1")
            except LogUnavailable:
                return False
            return True

        await until(beats, BACK_SECONDS_MAX)
        assert monotonic() - began < BACK_SECONDS_MAX
        stream_id = await begin(log)
        assert await put(log, stream_id, 1, [*words(1, 3), DONE]) == "ok"
        assert len(await read_all(log, stream_id)) == 4


async def test_a_loop_that_was_held_up_takes_the_reply_that_is_there(server: RedisServer, log: RedisLog) -> None:
    for _ in range(3):
        reading = asyncio.create_task(log.beat("w1"))
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 - this holds it up
        await reading


async def test_a_large_backlog_gets_through(log: RedisLog) -> None:
    """What was kept while Redis was away comes back as one batch."""
    ids = [await begin(log) for _ in range(200)]
    events = [Token("x" * 60, index=number) for number in range(1, 601)]
    batch = [Append(one, 1, Cursor(0, 1), events) for one in ids]
    assert set(await log.append(batch)) == {"ok"}
    assert set(await log.append(batch)) == {"ok"}
    for one in (ids[0], ids[-1]):
        assert await read_all(log, one) == numbered(1, events)


async def test_an_idle_worker_does_not_notice_a_restart(server: RedisServer, log: RedisLog) -> None:
    """Connections that Redis closed in the meantime are seen before they are used."""
    await log.beat("w1")
    server.kill()
    server.start()
    await asyncio.sleep(0.1)
    await log.beat("w1")


async def test_a_slow_redis_fails_commands_and_not_the_loop(server: RedisServer, log: RedisLog) -> None:
    stream_id = await begin(log)
    asleep = asyncio.create_task(asyncio.to_thread(server.ask, "DEBUG", "SLEEP", "1"))
    await asyncio.sleep(0.2)
    began = monotonic()
    with pytest.raises(LogUnavailable):
        await put(log, stream_id, 1, words(1, 1))
    assert monotonic() - began < COMMAND_SECONDS_MAX
    await asleep
    await until(lambda: works(log, stream_id), BACK_SECONDS_MAX)
    assert await put(log, stream_id, 1, words(1, 2)) == "ok"
    assert await read_all(log, stream_id) == numbered(1, words(1, 2))


async def test_an_append_whose_answer_was_lost_is_there_once_when_it_comes_again(server: RedisServer) -> None:
    async with TcpProxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as log:
        stream_id = await begin(log)
        first = 1
        for _ in range(5):
            # The command arrives; the answer does not.
            proxy.delay_seconds = 0.2
            with pytest.raises(LogUnavailable):
                await put(log, stream_id, first, words(first, 3))
            await asyncio.sleep(0.3)
            proxy.delay_seconds = 0.0
            await until(lambda: works(log, stream_id), BACK_SECONDS_MAX)
            assert await put(log, stream_id, first, words(first, 5)) == "ok"
            first += 5
        assert await read_all(log, stream_id) == numbered(1, words(1, 25))


async def test_no_cancelled_command_leaves_its_reply_to_another(server: RedisServer) -> None:
    async with TcpProxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}", command_seconds=5.0) as log:
        ids = [await begin(log) for _ in range(50)]
        for number, stream_id in enumerate(ids):
            await put(log, stream_id, 1, words(100 * number, 3))
        proxy.delay_seconds = 0.02

        async def read(number: int) -> None:
            assert await log.read(ids[number], START, 10) == numbered(1, words(100 * number, 3))

        for _ in range(10):
            reads = [asyncio.create_task(read(random.randrange(50))) for _ in range(50)]
            await asyncio.sleep(random.uniform(0.0, 0.15))
            for cancelled in random.sample(reads, 25):
                cancelled.cancel()
            for end in await asyncio.gather(*reads, return_exceptions=True):
                assert end is None or isinstance(end, asyncio.CancelledError)
        for number in range(50):
            await read(number)
        assert sum(connection.open for connection in proxy.connections) <= 8


async def test_a_create_that_nobody_knows_of_is_taken_back(server: RedisServer, log: RedisLog) -> None:
    """A stream that exists, owned by a living worker that does not know it, would keep its readers waiting for ever."""
    await log.beat("w1")
    known = await begin(log)
    for key in ("", "k1"):
        wanted = record(idempotency=key)
        server.stop()
        with pytest.raises(LogUnavailable):
            await log.create(wanted, "w1")
        server.cont()
        await until(lambda: works(log, known), BACK_SECONDS_MAX)
        await until(lambda: _no_undo(log), BACK_SECONDS_MAX)
        assert await log.describe(wanted.stream_id) is None
        again = await log.create(record(idempotency=key), "w1")
        assert again.stream_id != wanted.stream_id
        assert (await state(log, again.stream_id)).state == "running"


async def test_a_claim_that_nobody_knows_of_is_taken_back(server: RedisServer, log: RedisLog) -> None:
    known = await begin(log)
    for number in range(3):
        await log.beat("w2")
        stream_id = await begin(log, f"gone{number}")
        server.stop()
        with pytest.raises(LogUnavailable):
            await log.claim(stream_id, "w2", 1)
        server.cont()
        await until(lambda: works(log, known), BACK_SECONDS_MAX)
        await until(lambda: _no_undo(log), BACK_SECONDS_MAX)
        await log.beat("w2")
        now = await state(log, stream_id)
        assert not now.owner_alive
        assert stream_id in await log.orphans()
        assert await log.claim(stream_id, "w3", 1) in (None, 2)  # None where the lost claim had raised the fence
        if (await state(log, stream_id)).owner != "w3":
            assert await log.claim(stream_id, "w3", now.fence) == now.fence + 1
        assert await put(log, stream_id, 1, words(1, 1), fence=now.fence) == "fenced"


async def test_no_more_connections_than_a_few_whatever_is_asked(server: RedisServer, log: RedisLog) -> None:
    ids = [await begin(log) for _ in range(100)]
    for _ in range(3):
        await asyncio.gather(*(put(log, one, 1, words(1, 1)) for one in ids), *(log.describe(one) for one in ids))
    with server.client() as client:
        # One is this client's own.
        assert len(client.client_list()) - 1 <= 8


async def test_an_operator_is_told_which_server_and_no_password() -> None:
    with RedisServer(requirepass="geheim") as server:
        async with opened(f"redis://:geheim@127.0.0.1:{server.port}") as log:
            server.kill()
            with pytest.raises(LogUnavailable) as lost:
                await log.read("s" * 22, Cursor(0, 3), 10)
            assert f"127.0.0.1:{server.port}" in lost.value.detail
            assert "geheim" not in lost.value.detail + lost.value.message


async def _no_undo(log: RedisLog) -> bool:
    return not log._buckets._undoing
