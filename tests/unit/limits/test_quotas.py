"""What a generation takes of its account, what its answer says of it, and what comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.errors import LimitExceeded, RateLimited
from app.limits.account import Limit
from app.limits.limiter import Limiter
from app.limits.memory_counters import MemoryCounters
from app.limits.quotas import OUTPUT_TOKENS_STEP, Hold, Quotas, estimate
from app.providers.base import GenerationRequest
from app.security.principal import Principal
from app.streams.account import Account
from app.streams.grant import Grant
from app.tiers import EXAMPLES, UNBOUNDED, Tier

MINUTE = Limit("generate/60", 60_000, 3)
HOUR = Limit("generate/3600", 3_600_000, 100)


class Desk:
    """Quotas, as one caller meets them."""

    def __init__(self, tier: Tier, rates: tuple[Limit, ...] = ()) -> None:
        self.quotas = Quotas(Limiter(MemoryCounters(), 1.0), EXAMPLES)
        self._tier, self._rates = tier, rates
        self._number = 0
        self.headers: dict[str, str] = {}

    async def take(self, read: int = 10, asked: int | None = None, slot: str = "") -> Hold:
        self._number += 1
        hold: Hold = await self._ask(self.quotas.take, slot or f"s{self._number}", read, asked)
        return hold

    async def look(self, read: int = 10, asked: int | None = None, key: str = "") -> None:
        await self._ask(self.quotas.look, key, read, asked)

    async def _ask(self, way: Callable[..., Awaitable[Any]], slot: str, read: int, asked: int | None) -> Any:
        scope: dict[str, Any] = {}
        request = GenerationRequest("m", [{"role": "user", "content": "x" * 4 * (read - 1)}], max_tokens=asked)
        try:
            return await way(scope, Principal.of("key:ana", "t", self._tier), self._rates, slot, request)
        finally:
            self.headers = {name.decode(): value.decode() for name, value in scope.get("sluice.headers", [])}

    async def settle(self, hold: Hold, tokens: int) -> None:
        self.quotas.settle(ended(hold, tokens))
        await asyncio.sleep(0)

    async def cancel(self, hold: Hold) -> None:
        self.quotas.cancel(hold)
        await asyncio.sleep(0)


def ended(hold: Hold, tokens: int) -> Account:
    return Account("s", "m", "native", "key:ana", "completed", "up", 1, 0, tokens, None, None, 1.0, hold.grant)


def granted(hold: Hold) -> Grant:
    assert hold.grant is not None
    return hold.grant


async def test_request_limits_hold_and_say_what_is_left() -> None:
    desk = Desk(UNBOUNDED, (HOUR, MINUTE))
    for left in (2, 1, 0):
        await desk.take()
        assert desk.headers["x-ratelimit-limit"] == "3"
        assert desk.headers["x-ratelimit-remaining"] == str(left)
    assert desk.headers["ratelimit"] == '"generate/3600";r=97, "generate/60";r=0'
    assert desk.headers["ratelimit-policy"] == '"generate/3600";q=100;w=3600, "generate/60";q=3;w=60'
    with pytest.raises(RateLimited, match="3 in 60 s") as refused:
        await desk.take()
    assert refused.value.retry_after_seconds is not None
    assert 1 <= refused.value.retry_after_seconds <= 120
    assert f'"generate/60";r=0;t={refused.value.retry_after_seconds}' in desk.headers["ratelimit"]


async def test_a_tier_without_bounds_asks_no_store_and_says_nothing() -> None:
    desk = Desk(UNBOUNDED)
    hold = await desk.take()
    assert (hold.grant, hold.returns) == (None, [])
    assert desk.headers == {}


async def test_tokens_are_taken_for_the_whole_answer_and_given_back_at_its_end() -> None:
    desk = Desk(Tier(tokens_per_minute=1000))
    first = await desk.take(read=100, asked=800)
    assert (granted(first).tokens, granted(first).output_tokens_max) == (900, 800)
    with pytest.raises(RateLimited, match="tokens"):
        await desk.take(read=100, asked=800)
    await desk.settle(first, 150)
    assert granted(await desk.take(read=50, asked=800)).tokens == 850


async def test_what_was_used_beyond_what_was_taken_is_owed() -> None:
    desk = Desk(Tier(tokens_per_minute=1000))
    await desk.settle(await desk.take(read=1, asked=100), 990)
    with pytest.raises(RateLimited):
        await desk.take(read=1, asked=100)


async def test_a_request_that_does_not_bound_its_answer_gets_what_is_left() -> None:
    desk = Desk(Tier(tokens_per_minute=1000, max_tokens=600))
    assert granted(await desk.take(read=100)).output_tokens_max == 600
    assert granted(await desk.take(read=100)).output_tokens_max == 200
    with pytest.raises(RateLimited, match="tokens"):
        await desk.take(read=100)


async def test_one_that_bounds_nothing_leaves_the_others_room_and_takes_more_while_it_runs() -> None:
    desk = Desk(Tier(tokens_per_minute=20_000))
    first = granted(await desk.take(read=100))
    assert (first.tokens, first.output_tokens_max) == (100 + OUTPUT_TOKENS_STEP, OUTPUT_TOKENS_STEP)
    second = await desk.take(read=100, asked=10_000)
    more = await desk.quotas.extend(first)
    assert more is not None
    assert (more.tokens, more.output_tokens_max) == (100 + 2 * OUTPUT_TOKENS_STEP, 2 * OUTPUT_TOKENS_STEP)
    rest = await desk.quotas.extend(more)
    assert rest is not None
    assert rest.tokens == 20_000 - 10_100
    assert await desk.quotas.extend(rest) is None
    await desk.settle(second, 100)
    # All that was taken, in whatever pieces, comes back.
    await desk.settle(Hold(rest), 100)
    assert granted(await desk.take(read=1, asked=19_799)).tokens == 19_800


async def test_a_tiers_bound_on_an_answer_bounds_what_more_it_takes() -> None:
    desk = Desk(Tier(tokens_per_minute=100_000, max_tokens=5_000))
    more = await desk.quotas.extend(granted(await desk.take(read=1)))
    assert more is not None
    assert (more.output_tokens_max, more.more_tokens) == (5_000, 0)


async def test_an_answer_is_bounded_by_the_tier() -> None:
    desk = Desk(Tier(max_tokens=600))
    assert granted(await desk.take()).output_tokens_max == 600
    assert granted(await desk.take(asked=20)).output_tokens_max == 20
    with pytest.raises(LimitExceeded, match="600"):
        await desk.take(asked=601)


async def test_what_can_never_be_had_is_no_matter_of_waiting() -> None:
    desk = Desk(Tier(tokens_per_minute=1000))
    for read, asked in ((10, 1000), (1200, None)):
        with pytest.raises(LimitExceeded):
            await desk.take(read=read, asked=asked)


async def test_streams_at_a_time_are_bounded_and_an_ended_one_makes_room() -> None:
    desk = Desk(Tier(concurrent_streams=2))
    first = await desk.take()
    await desk.take()
    assert desk.headers["ratelimit"] == '"streams";r=0'
    with pytest.raises(RateLimited, match="2") as refused:
        await desk.take()
    assert refused.value.retry_after_seconds == 1
    await desk.settle(first, 0)
    await desk.take()


async def test_a_slot_that_becomes_free_meanwhile_is_waited_for_a_moment() -> None:
    desk = Desk(Tier(concurrent_streams=1))
    first = await desk.take()
    asyncio.get_running_loop().call_later(0.02, desk.quotas.settle, ended(first, 0))
    await desk.take()


async def test_a_generation_that_does_not_begin_leaves_nothing_behind() -> None:
    desk = Desk(Tier(tokens_per_minute=1000, concurrent_streams=1), (MINUTE,))
    for _ in range(10):
        await desk.cancel(await desk.take(read=100, asked=800))


async def test_a_request_that_joins_a_running_one_costs_nothing() -> None:
    desk = Desk(Tier(tokens_per_minute=1000, concurrent_streams=1), (MINUTE,))
    await desk.take(asked=900, slot="same")
    for _ in range(10):
        again = await desk.take(asked=900, slot="same")
        assert again.returns == []


def test_text_of_every_shape_is_estimated() -> None:
    parts = [{"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {}}]
    assert estimate([{"role": "user", "content": "x" * 400}]) == 101
    assert estimate([{"role": "user", "content": parts}, {"role": "assistant", "content": None}]) == 101
    assert estimate([]) == 1


async def test_a_look_refuses_what_would_be_refused_and_takes_nothing_of_what_would_not() -> None:
    desk = Desk(Tier(tokens_per_minute=1000, concurrent_streams=1), (MINUTE,))
    for _ in range(5):
        await desk.look(read=100, asked=800)
    await desk.take(read=100, asked=800, slot="mine")
    assert desk.headers["x-ratelimit-remaining"] == "2"
    with pytest.raises(RateLimited, match="streams"):
        await desk.look(read=1, asked=10)
    assert desk.headers["ratelimit"].endswith('"streams";r=0')
    await desk.look(read=1, asked=10, key="mine")
    with pytest.raises(LimitExceeded):
        await desk.look(read=2000)
