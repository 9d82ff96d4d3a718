"""The store goes away, hangs and comes back: limits hold, nobody waits for long, and nothing that runs is held up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.limits.account import ACCEPTED, NO_SLOT, Return
from app.limits.limiter import MORE_SECONDS_MAX, Limiter
from app.limits.redis_counters import RedisCounters
from tests.contract.lag import LoopLag
from tests.support.redis import RedisServer
from tests.unit.limits.stores import ask, cost

# What a request may be held up for, and what a running stream may.
REQUEST_SECONDS_MAX = 0.3
STREAM_SECONDS_MAX = 0.05


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@asynccontextmanager
async def limiter(url: str, held: list[tuple[str, str]], beat_seconds: float = 0.3) -> AsyncIterator[Limiter]:
    made = Limiter(await RedisCounters(url).open(), beat_seconds)
    running = asyncio.create_task(made.run(lambda: held))
    try:
        yield made
    finally:
        running.cancel()
        await made.aclose()


async def test_a_hung_redis_holds_no_request_up_for_long_and_no_stream_at_all(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        await limits.take(ask(cost(1000)))
        server.stop()
        async with LoopLag() as lag:
            waits = []
            until = monotonic() + 2
            while monotonic() < until:
                began = monotonic()
                await asyncio.gather(*(limits.take(ask(cost(1000))) for _ in range(5)))
                waits.append(monotonic() - began)
                await asyncio.sleep(0.02)
        server.cont()
    assert max(waits) < REQUEST_SECONDS_MAX
    assert lag.worst_seconds < STREAM_SECONDS_MAX
    assert limits.fallbacks >= 10
    # Known to be away: few wait at all.
    assert sum(wait > 0.01 for wait in waits) < len(waits) / 3


async def test_a_stream_that_takes_more_waits_for_a_hung_redis_for_less_than_a_reader_sees(server: RedisServer) -> None:
    """Each time anew: not only while the store is known to be away."""
    async with limiter(server.url, [], beat_seconds=60) as limits:
        await limits.take_more(ask(cost(1000)))
        server.stop()
        waits = []
        async with LoopLag() as lag:
            for _ in range(8):
                began = monotonic()
                taken, alone = await limits.take_more(ask(cost(1000)))
                waits.append(monotonic() - began)
                assert (taken.refused, alone) == (ACCEPTED, True)
                assert limits.away
                limits._away_until = 0.0
        server.cont()
    assert min(waits) > MORE_SECONDS_MAX / 2, "it was asked"
    # What the machine's other work held the loop up for is no wait of this kind.
    assert max(waits) < STREAM_SECONDS_MAX + lag.worst_seconds


async def test_limits_hold_alone_while_redis_is_gone_and_together_again_once_it_is_back(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        server.kill()
        outcomes = [(await limits.take(ask(cost(3)))) for _ in range(5)]
        assert [taken.refused for taken, _ in outcomes] == [ACCEPTED] * 3 + [0] * 2
        assert all(alone for _, alone in outcomes)
        server.start()
        deadline = monotonic() + 10
        while (await limits.take(ask(cost(1000), key="key:bob")))[1]:
            assert monotonic() < deadline
            await asyncio.sleep(0.1)
        assert not limits.away


async def test_what_runs_counts_where_the_store_goes_away(server: RedisServer) -> None:
    held = [("key:ana", "s1"), ("key:ana", "s2")]
    async with limiter(server.url, held) as limits:
        await asyncio.sleep(0.4)
        server.kill()
        taken, alone = await limits.take(ask(slot="s3", slots_max=2))
    assert (taken.refused, alone) == (NO_SLOT, True)


async def test_slots_of_a_worker_that_is_gone_are_free_after_two_beats(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        other = Limiter(await RedisCounters(server.url).open(), 0.3)
        renewing = asyncio.create_task(other.run(lambda: [("key:ana", "s1")]))
        assert (await other.take(ask(slot="s1", slots_max=1, slot_ms=other.slot_ms)))[0].refused == ACCEPTED
        await asyncio.sleep(1.2)
        assert (await limits.take(ask(slot="s2", slots_max=1)))[0].refused == NO_SLOT
        renewing.cancel()  # as kill -9: nothing is given back
        died = monotonic()
        while (await limits.take(ask(slot="s2", slots_max=1)))[0].refused != ACCEPTED:
            assert monotonic() - died < 2
        assert monotonic() - died < 2 * 0.3 + 0.4
        await other._store.aclose()


async def test_a_stream_that_ends_makes_room_for_the_next_at_once(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        for number in range(20):
            taken, _ = await limits.take(ask(slot=f"s{number}", slots_max=1))
            assert taken.refused == ACCEPTED
            limits.give_back([Return("key:ana", "", 0, 0, 0, f"s{number}")])


async def test_what_was_taken_alone_is_not_given_back_to_the_store(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        together, _ = await limits.take(ask(cost(100, 90)))
        limits.give_back([Return("key:ana", "r", 60_000, together.shares[0].window, 90)], alone=True)
        await asyncio.sleep(0.1)
        assert (await limits.take(ask(cost(100, 20))))[0].refused == 0


async def test_what_could_not_be_given_back_is_once_the_store_is_back(server: RedisServer) -> None:
    async with limiter(server.url, []) as limits:
        await limits.take(ask(slot="s1", slots_max=1, slot_ms=60_000))
        server.stop()
        limits.give_back([Return("key:ana", "", 0, 0, 0, "s1")])
        await asyncio.sleep(1)
        server.cont()
        deadline = monotonic() + 10
        while (outcome := await limits.take(ask(slot="s2", slots_max=1)))[0].refused != ACCEPTED or outcome[1]:
            limits.give_back([Return("key:ana", "", 0, 0, 0, "s2")], alone=True)
            assert monotonic() < deadline
            await asyncio.sleep(0.1)


async def test_a_store_that_cannot_be_opened_says_why_without_its_password() -> None:
    with pytest.raises(LogUnavailable) as refused:
        await RedisCounters("redis://:secret@127.0.0.1:1/0").open()
    assert "127.0.0.1:1" in refused.value.message
    assert "secret" not in refused.value.message
