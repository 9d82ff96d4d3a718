"""One generation for each idempotency key, though key and stream are made in two steps, and makers die between them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest

from app.errors import LogFull, LogUnavailable
from app.streams.log import StreamRecord
from app.streams.redis.creation_scripts import RESERVE
from app.streams.redis.log import RedisLog
from tests.contract.streams import put, record, words
from tests.support.redis import RedisServer
from tests.support.redis_log import opened


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
async def log(server: RedisServer) -> AsyncIterator[RedisLog]:
    async with opened(server.url) as made:
        yield made


async def reserve(log: RedisLog, wanted: StreamRecord) -> None:
    """The first step of a create, whose maker gets no further."""
    link = log._buckets.of(wanted.idempotency)
    holder, _ = await link.call(RESERVE, wanted.idempotency, wanted.stream_id, 60_000, "")
    assert holder.decode() == wanted.stream_id


async def test_a_key_whose_maker_died_is_taken_over(log: RedisLog) -> None:
    dead, wanted = record(idempotency="k"), record(idempotency="k")
    await reserve(log, dead)
    began = monotonic()
    assert await log.create(wanted, "w2") == wanted
    assert monotonic() - began < 3.0
    assert await log.describe(dead.stream_id) is None


async def test_a_maker_that_was_only_slow_joins_whoever_took_its_key(log: RedisLog) -> None:
    slow, wanted = record(idempotency="k"), record(idempotency="k")
    await reserve(log, slow)
    assert await log.create(wanted, "w2") == wanted
    # It wakes up, in the middle of its second step and from the start.
    assert await log._creation._make(slow, "w1") is None
    assert await log.create(slow, "w1") == wanted
    assert await log.describe(slow.stream_id) is None


async def test_joiners_of_a_slow_maker_wait_for_it(log: RedisLog) -> None:
    slow = record(idempotency="k")
    await reserve(log, slow)
    joiners = [asyncio.create_task(log.create(record(idempotency="k"), "w2")) for _ in range(10)]
    await asyncio.sleep(0.1)
    assert await log._creation._make(slow, "w1") == slow
    assert await asyncio.gather(*joiners) == [slow] * 10


async def test_many_joiners_of_a_dead_maker_make_one_stream(log: RedisLog) -> None:
    await reserve(log, record(idempotency="k"))
    wanted = [record(idempotency="k") for _ in range(30)]
    made = await asyncio.gather(*(log.create(one, f"w{number}") for number, one in enumerate(wanted)))
    assert len({one.stream_id for one in made}) == 1
    assert sum([await log.describe(one.stream_id) is not None for one in wanted]) == 1


async def test_without_the_void_mark_a_slow_maker_would_make_a_second_stream(
    server: RedisServer, log: RedisLog
) -> None:
    """The guard off: what it is for."""
    slow, wanted = record(idempotency="k"), record(idempotency="k")
    await reserve(log, slow)
    assert await log.create(wanted, "w2") == wanted
    server.ask("DEL", f"sluice:{{b0}}:h:{slow.stream_id}")
    assert await log._creation._make(slow, "w1") == slow


async def test_a_create_that_comes_again_is_the_same_stream(log: RedisLog) -> None:
    wanted = record(idempotency="k", body_hash="a")
    assert await log.create(wanted, "w1") == wanted
    assert await log.create(wanted, "w1") == wanted
    await put(log, wanted.stream_id, 1, words(1, 2))
    assert await log.create(record(idempotency="k", body_hash="b"), "w2") == wanted


async def test_a_full_server_keeps_no_key_without_a_stream(server: RedisServer, log: RedisLog) -> None:
    await log.create(record(), "w1")
    used = int(server.info("memory").partition("used_memory:")[2].partition("\n")[0])
    server.ask("CONFIG", "SET", "maxmemory", int(used * 1.05))
    with pytest.raises(LogFull):
        await log.create(record(idempotency="k"), "w1")
    assert server.ask("KEYS", "*:i:*") == []
    server.ask("CONFIG", "SET", "maxmemory", 0)
    wanted = record(idempotency="k")
    assert await log.create(wanted, "w1") == wanted


async def test_a_forbidden_id_is_never_made(server: RedisServer, log: RedisLog) -> None:
    wanted = record()
    server.ask("HSET", f"sluice:{{b0}}:h:{wanted.stream_id}", "void", 1)
    with pytest.raises(LogUnavailable):
        await log.create(wanted, "w1")
    assert await log.describe(wanted.stream_id) is None
    assert await log.orphans() == []
