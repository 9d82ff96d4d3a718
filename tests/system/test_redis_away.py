"""What workers look up in Redis and at an identity provider; and what becomes of callers while Redis hangs or is gone.

Two workers behind NGINX. One Redis has callers' limits and their API keys, so that a request may wait for both.
"""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

import pytest
import yaml

from app.security.redis_keys import BELIEVED_SECONDS, RedisKeys
from app.tiers import EXAMPLES
from tests.support.api_keys import ApiKeys, key_of
from tests.support.call import Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.key_server import KeyServer
from tests.support.machine import slowness
from tests.support.redis import RedisServer
from tests.support.scrape import scrape, scrape_until
from tests.support.surfaces import NATIVE
from tests.support.tokens import AUDIENCE, ISSUER, signed
from tests.support.turns import TURNS_MAX
from tests.support.workers import sockets, until

REQUESTS = 6
# In a minute; a stream of more takes more while it runs.
TOKENS = 100
TIERS: dict[str, dict[str, int]] = {
    "free": {},
    "few-requests": {"requests_per_minute": REQUESTS},
    "one-stream": {"concurrent_streams": 1},
    "few-tokens": {"tokens_per_minute": TOKENS},
    "ample": {"requests_per_minute": 100_000, "tokens_per_minute": 10_000_000, "concurrent_streams": 1000},
}
STREAMS, WITNESSES = 20, 6
PACE, LENGTH = 20, 135
# Tokens of the prompt of the first; of each other one more. Then how many each has said when it has used up its own.
READ_MIN = 38
FIRST_USED_UP, LAST_USED_UP = TOKENS - READ_MIN - STREAMS, TOKENS - READ_MIN
# What a hung Redis may hold up a stream for, and a request; and the longest gap, whatever else goes on. As much more of
# each as the machine is slower, but of the first two not so much that one of our waits for Redis could hide in it: a
# stream's caller may be given more within 0.18 s, and a request may look for a stream's owner for 1 s.
STREAM_SECONDS_MAX, REQUEST_SECONDS_MAX, GAP_SECONDS_MAX = 0.05, 0.3, 0.3
SLOW_STREAM_SECONDS_MAX, SLOW_REQUEST_SECONDS_MAX = 0.15, 0.9
FALLBACKS = "sluice_limiter_fallbacks_total"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    principals = {"ample": "ample", "few": "few-requests", "one": "one-stream"}
    principals |= {f"stream-{turn}-{number}": "few-tokens" for turn in range(TURNS_MAX) for number in range(STREAMS)}
    return ApiKeys(tmp_path_factory.mktemp("keys"), **principals)


@pytest.fixture(scope="module")
def chain(keys: ApiKeys, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    config = tmp_path_factory.mktemp("config") / "models.yaml"
    with KeyServer() as provider:
        issuer = {"name": "corp", "issuer": ISSUER, "audience": AUDIENCE, "jwks_url": provider.url, "tier": "free"}
        models = {"simulator": [{"provider": "simulator"}]}
        config.write_text(yaml.safe_dump({"models": models, "tiers": TIERS, "issuers": [issuer]}))
        env = {
            "SLUICE_CONFIG": str(config),
            "SLUICE_LIMITS_STORE": redis.url,
            "SLUICE_API_KEYS_IN_REDIS": "true",
            "SLUICE_LEASE_SECONDS": "3",
        }
        with Chain(keys.environment | env, workers=2) as running:
            until(lambda: provider.asked >= 2, 10, "both workers have fetched the keys")
            yield running


def put(redis: RedisServer, name: str, tier: str = "ample") -> dict[str, str]:
    """A key in Redis; the headers that show it. Without a tier it is withdrawn."""

    async def keep() -> None:
        kept = await RedisKeys(redis.url, EXAMPLES).open()
        await kept.put(sha256(key_of(name).encode()).digest(), name if tier else "", tier)
        await kept.aclose()

    asyncio.run(keep())
    return {"Authorization": f"Bearer {key_of(name)}"}


def bearer() -> dict[str, str]:
    """A token of somebody without limits, whose keys are no matter of Redis'."""
    return {"Authorization": f"Bearer {signed()}"}


def native(tokens: int, pace: float = 0, prompt_tokens: int = 1, **more: Any) -> dict[str, Any]:
    simulator = {"tokens": tokens, "tokens_per_second": pace, "jitter": 0, "first_token_ms": 0}
    return {"prompt": "x" * (4 * prompt_tokens - 1), "simulator": simulator, **more}


def test_keys_in_redis_and_at_an_address_open_every_worker(chain: Chain, redis: RedisServer) -> None:
    remote, stranger = put(redis, "remote"), {"Authorization": f"Bearer {key_of('stranger')}"}
    for worker in sockets(chain):
        known = ask(worker, "/api/v1/auth/status", **remote)
        assert (known.status, known.json["principal"], known.json["tier"]) == (200, "key:remote", "ample")
        token = ask(worker, "/api/v1/auth/status", **bearer())
        assert (token.status, token.json["principal"], token.json["tier"]) == (200, "corp:ana", "free")
        assert Call(worker, NATIVE.path, native(1), headers=stranger).finish().status == 401
        assert Call(worker, NATIVE.path, native(1), headers={"X-API-Key": signed("mallory")}).finish().status == 401


def test_a_key_that_is_withdrawn_in_redis_opens_nothing_soon_and_ends_what_it_opened(
    chain: Chain, redis: RedisServer
) -> None:
    leaver = put(redis, "leaver")
    with Call(chain.url, NATIVE.path, native(1000, 20, stream=True), headers=leaver).until(2) as running:
        put(redis, "leaver", tier="")
        running.finish(4 * BELIEVED_SECONDS)
    assert (running.frames[-1].event, running.frames[-1].json()["reason"]) == ("reconnect", "reauthenticate")

    def is_refused() -> bool:
        return {Call(worker, "/v1/models", headers=leaver).finish().status for worker in sockets(chain)} == {401}

    until(is_refused, 2 * BELIEVED_SECONDS, "no worker knows the key any more")


class Asking:
    """Requests by callers of every kind: how long they took, and what came of them."""

    def __init__(self, chain: Chain, callers: Mapping[str, dict[str, str]]) -> None:
        self._chain, self._callers = chain, callers
        self.waits: dict[str, list[float]] = {name: [] for name in callers}
        self.statuses: dict[str, set[int]] = {name: set() for name in callers}

    def for_seconds(self, seconds: float) -> None:
        until = monotonic() + seconds
        while monotonic() < until:
            for name, headers in self._callers.items():
                began = monotonic()
                self.statuses[name].add(Call(self._chain.url, NATIVE.path, native(1), headers=headers).finish().status)
                self.waits[name].append(monotonic() - began)
            sleep(0.01)


def until_back(chain: Chain, redis: RedisServer) -> None:
    """Have it answer again, and both workers know."""
    redis.cont()
    until(lambda: chain.log.count("redis lost") == chain.log.count("redis back"), 10, "workers have found Redis again")


def worst_gap(call: Call) -> float:
    return max(later - earlier for earlier, later in pairwise(call.times))


def test_a_hung_redis_delays_no_stream_and_no_request_for_long(
    chain: Chain, keys: ApiKeys, redis: RedisServer, turn: int
) -> None:
    """It hangs while streams come to take more of their callers' tokens, and twice again while there are requests, for
    which it has the limits and the key. All beside somebody whom Redis knows nothing of: what the machine's other work
    does, it does to all."""
    slower = slowness()
    remote = put(redis, "remote")
    for worker in sockets(chain):
        assert ask(worker, "/v1/models", **remote).status == 200
    doubted = monotonic() + BELIEVED_SECONDS
    unknown = {"Authorization": f"Bearer {key_of('stranger')}"}
    callers = {"counted": keys.headers("ample"), "remote": remote, "unknown": unknown, "witness": bearer()}
    asking = Asking(chain, callers)

    def begin(number: int) -> Call:
        headers = keys.headers(f"stream-{turn}-{number}") if number < STREAMS else bearer()
        # The more is read, the sooner what was given is used up: not all at the same moment.
        body = native(LENGTH, PACE, prompt_tokens=READ_MIN + number, stream=True)
        return Call(chain.url, NATIVE.path, body, headers=headers)

    with ExitStack() as stack, ThreadPoolExecutor(1) as reader:
        calls = [stack.enter_context(begin(number)) for number in range(STREAMS + WITNESSES)]
        for call in calls:
            assert call.head().status == 200
        reading = reader.submit(finish_all, calls, 40)
        until(lambda: max(len(call.frames) for call in calls) >= FIRST_USED_UP - 8, 20, "the first has used up its own")
        try:
            redis.stop()
            # No request comes first, and finds out that Redis hangs.
            until(
                lambda: min(len(call.frames) for call in calls) > LAST_USED_UP + 2, 20, "the last has used up its own"
            )
            for pause_until in (0.0, doubted):
                until_back(chain, redis)
                sleep(max(0.0, pause_until - monotonic()))
                redis.stop()
                asking.for_seconds(0.8)
        finally:
            redis.cont()
        reading.result()
    slower = max(slower, slowness())
    # Redis would have refused them more.
    assert [(call.verdict, len(call.frames)) for call in calls] == [("complete", LENGTH + 1)] * len(calls)
    usual, worst = max(map(worst_gap, calls[STREAMS:])), max(map(worst_gap, calls[:STREAMS]))
    assert worst < max(usual, 1 / PACE) + min(STREAM_SECONDS_MAX * slower, SLOW_STREAM_SECONDS_MAX)
    assert worst < GAP_SECONDS_MAX * slower
    assert asking.statuses == {"counted": {200}, "remote": {200}, "unknown": {503}, "witness": {200}}
    for name, waits in asking.waits.items():
        more_seconds_max = min(REQUEST_SECONDS_MAX * slower, SLOW_REQUEST_SECONDS_MAX)
        assert max(waits) < max(asking.waits["witness"]) + more_seconds_max, name
    assert median(asking.waits["witness"]) < REQUEST_SECONDS_MAX * slower
    # Nobody is alone for long who need not be.
    until_back(chain, redis)


def test_without_redis_streams_go_on_probes_are_well_and_limits_hold_on_each_worker(
    chain: Chain, keys: ApiKeys, redis: RedisServer
) -> None:
    few, one, ample = (keys.headers(name) for name in ("few", "one", "ample"))
    remote = put(redis, "remote")
    for worker in sockets(chain):
        assert ask(worker, "/v1/models", **remote).status == 200
    with Call(chain.url, NATIVE.path, native(60, 20, stream=True), headers=ample).until(2) as running:
        redis.kill()
        try:
            before = scrape(chain.metrics_url).value(FALLBACKS)
            targets: list[str | Path] = [chain.url, *sockets(chain)]
            for target in targets:
                assert [ask(target, probe).status for probe in ("/livez", "/readyz", "/health")] == [200] * 3
            for worker in sockets(chain):
                asked = [Call(worker, NATIVE.path, native(1), headers=few).finish() for _ in range(REQUESTS + 3)]
                assert [call.status for call in asked] == [200] * REQUESTS + [429] * 3
                assert asked[-1].json["error"]["code"] == "rate_limited"
                assert 1 <= int(asked[-1].headers["retry-after"]) <= 120
                assert asked[0].headers["x-ratelimit-remaining"] == str(REQUESTS - 1)
                with Call(worker, NATIVE.path, native(200, 20, stream=True), headers=one).until(1):
                    assert Call(worker, NATIVE.path, native(1), headers=one).finish().status == 429
            assert Call(chain.url, NATIVE.path, native(1), headers=remote).finish().status == 200
            assert running.finish().verdict == "complete"
            alone = 2 * (REQUESTS + 3 + 2)
            scrape_until(chain.metrics_url, lambda found: found.value(FALLBACKS) >= before + alone)
        finally:
            redis.start()

    def counts_together() -> bool:
        Call(chain.url, NATIVE.path, native(1), headers=ample).finish()
        return bool(redis.ask("EXISTS", "sluice:{b0}:n:key:ample"))

    until(counts_together, 10, "limits are counted in Redis again")
