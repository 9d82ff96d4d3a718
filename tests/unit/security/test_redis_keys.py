"""API keys in Redis: found, believed for a while, withdrawn, and no outage locks out who was in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from time import monotonic, time

import pytest

from app.errors import IdentityUnavailable
from app.limits.account import Ask, Cost, Limit
from app.limits.limiter import Limiter
from app.limits.redis_counters import RedisCounters
from app.security.redis_keys import RedisKeys
from app.tiers import EXAMPLES
from tests.support.redis import RedisServer

DIGEST = sha256(b"sk-sluice-one").digest()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
async def keys(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisKeys]:
    monkeypatch.setattr("app.security.redis_keys.BELIEVED_SECONDS", 0.3)
    monkeypatch.setattr("app.security.redis_keys.REFUSED_SECONDS", 0.1)
    made = await RedisKeys(server.url, EXAMPLES).open()
    yield made
    await made.aclose()


async def test_a_key_is_found_and_no_other(keys: RedisKeys) -> None:
    await keys.put(DIGEST, "acme", "pro")
    found = await keys.find(DIGEST)
    assert found is not None
    assert (found.account, found.tier_name, found.tier) == ("key:acme", "pro", EXAMPLES["pro"])
    assert await keys.find(sha256(b"sk-sluice-two").digest()) is None


async def test_a_key_that_is_withdrawn_is_of_no_use_soon_after(keys: RedisKeys) -> None:
    await keys.put(DIGEST, "acme", "pro")
    assert await keys.find(DIGEST) is not None
    await keys.put(DIGEST, "", "")
    await asyncio.sleep(0.4)
    assert await keys.find(DIGEST) is None


async def test_a_key_that_was_tried_too_early_is_found_soon_after(keys: RedisKeys) -> None:
    assert await keys.find(DIGEST) is None
    await keys.put(DIGEST, "acme", "free")
    await asyncio.sleep(0.2)
    assert await keys.find(DIGEST) is not None


@pytest.mark.parametrize(("not_before", "expires", "valid"), [(60, 0, False), (0, -60, False), (-60, 60, True)])
async def test_a_key_counts_from_its_first_moment_to_its_last(
    keys: RedisKeys, not_before: float, expires: float, valid: bool
) -> None:
    now = time()
    await keys.put(DIGEST, "acme", "pro", now + not_before if not_before else 0, now + expires if expires else 0)
    assert (await keys.find(DIGEST) is not None) == valid


async def test_a_tier_that_there_is_not_is_the_least(keys: RedisKeys) -> None:
    await keys.put(DIGEST, "acme", "gold")
    found = await keys.find(DIGEST)
    assert found is not None
    assert found.tier_name == "free"


async def test_an_outage_locks_nobody_out_who_was_in_and_lets_nobody_in_who_was_not(
    server: RedisServer, keys: RedisKeys
) -> None:
    await keys.put(DIGEST, "acme", "pro")
    assert await keys.find(DIGEST) is not None
    server.stop()
    await asyncio.sleep(0.4)
    for _ in range(3):
        began = monotonic()
        assert await keys.find(DIGEST) is not None
        with pytest.raises(IdentityUnavailable):
            await keys.find(sha256(b"sk-sluice-two").digest())
        assert monotonic() - began < 0.5
    server.cont()
    deadline = monotonic() + 10
    while True:
        try:
            assert await keys.find(sha256(b"sk-sluice-two").digest()) is None
            break
        except IdentityUnavailable:
            assert monotonic() < deadline
            await asyncio.sleep(0.1)


async def test_who_waited_in_vain_says_so_to_those_who_would_wait_next(server: RedisServer) -> None:
    """The limits are in the same Redis: a request that has waited for its key does not wait for them too."""
    limiter = Limiter(await RedisCounters(server.url).open(), 1.0)
    made = await RedisKeys(server.url, EXAMPLES, limiter.leave_alone).open()
    server.stop()
    with pytest.raises(IdentityUnavailable):
        await made.find(DIGEST)
    began = monotonic()
    _, alone = await limiter.take(Ask("key:acme", (Cost(Limit("generate/60", 60_000, 3)),)))
    assert alone
    assert monotonic() - began < 0.1
    server.cont()
    await made.aclose()
    await limiter.aclose()
