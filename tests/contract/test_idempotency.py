"""One idempotency key makes one stream, for as long as that stream is known."""

import asyncio

from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.contract.streams import DONE, put, record, words
from tests.support.waiting import until


async def test_a_known_key_returns_its_stream_and_makes_none(log: Log) -> None:
    first = await log.create(record(idempotency="k1", body_hash="a"), "w1")
    second = await log.create(record(idempotency="k1", body_hash="b"), "w2")
    assert second == first
    assert second.body_hash == "a"


async def test_other_keys_and_no_key_make_streams_of_their_own(log: Log) -> None:
    made = [await log.create(record(idempotency=key), "w1") for key in ("k1", "k2", "", "", "k11", "k")]
    assert len({stream.stream_id for stream in made}) == 6


async def test_concurrent_creates_with_one_key_make_one_stream(log: Log) -> None:
    wanted = [record(idempotency="k1") for _ in range(30)]
    made = await asyncio.gather(*(log.create(one, f"w{number}") for number, one in enumerate(wanted)))
    assert len({stream.stream_id for stream in made}) == 1
    described = [await log.describe(one.stream_id) for one in wanted]
    assert sum(one is not None for one in described) == 1


async def test_a_key_outlives_the_end_and_is_free_again_with_its_stream(opened: Open) -> None:
    log = await opened(Options(ttl_seconds=0.5))
    first = await log.create(record(idempotency="k1"), "w1")
    await put(log, first.stream_id, 1, [*words(1, 3), DONE])
    assert (await log.create(record(idempotency="k1"), "w1")).stream_id == first.stream_id

    async def gone() -> bool:
        await log.reap()
        return await log.describe(first.stream_id) is None

    await until(gone)
    second = await log.create(record(idempotency="k1"), "w1")
    assert second.stream_id != first.stream_id
    assert await log.describe(second.stream_id) is not None


async def test_whoever_asks_for_a_key_gets_its_stream_and_makes_none(log: Log) -> None:
    asked = record(idempotency="k1")
    assert await log.known(asked) is None
    assert await log.known(asked) is None, "asking does not take it"
    made = await log.create(record(idempotency="k1"), "w1")
    assert await log.known(asked) == made
    assert await log.known(record(idempotency="k2")) is None
    assert await log.describe(asked.stream_id) is None
