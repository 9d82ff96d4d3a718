"""What callers may use: counted by three workers together, through NGINX, on Redis.

`test_redis_away.py` has what becomes of it while Redis hangs.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import sleep, time
from typing import Any

import pytest
import yaml

from app.limits.quotas import OUTPUT_TOKENS_STEP
from tests.support.api_keys import ApiKeys
from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.redis import RedisServer
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.workers import active_streams, all_active_streams, pid_behind, sockets, until, until_replaced

LEASE_SECONDS = 3.0
BEAT_SECONDS = 0.3 * LEASE_SECONDS
REQUESTS, STREAMS, TOKENS, LONGEST = 6, 5, 100, 7
TIERS: dict[str, dict[str, int]] = {
    "free": {},
    "few-requests": {"requests_per_minute": REQUESTS, "requests_per_hour": 1000},
    "few-streams": {"concurrent_streams": STREAMS},
    "few-tokens": {"tokens_per_minute": TOKENS},
    "short": {"max_tokens": LONGEST},
    "ample": {"requests_per_minute": 100_000, "tokens_per_minute": 10_000_000, "concurrent_streams": 1000},
}
TURNS_MAX = 5
ALONE = "counting alone"
MESSAGES = "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    principals = {tier: tier for tier in TIERS} | {"saver": "few-tokens", "dier": "few-streams", "tasker": "few-tokens"}
    principals |= {f"{tier}-{turn}": tier for tier in ("few-requests", "few-streams") for turn in range(TURNS_MAX)}
    return ApiKeys(tmp_path_factory.mktemp("limits"), **principals)


@pytest.fixture(scope="module")
def chain(keys: ApiKeys, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    config = tmp_path_factory.mktemp("config") / "models.yaml"
    config.write_text(yaml.safe_dump({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": TIERS}))
    env = {
        "SLUICE_CONFIG": str(config),
        "SLUICE_LIMITS_STORE": redis.url,
        "SLUICE_LEASE_SECONDS": str(LEASE_SECONDS),
    }
    with Chain(keys.environment | env, workers=3) as running:
        yield running


def undisturbed(chain: Chain, keys: ApiKeys, tier: str, ask_all: Callable[[dict[str, str]], list[Call]]) -> list[Call]:
    """What came of it in a turn in which no worker lost sight of Redis: one that gets no processor for 0.15 s takes
    that for an outage, and counts alone for a second."""
    for turn in range(TURNS_MAX):
        before = chain.log.count(ALONE)
        calls = ask_all(keys.headers(f"{tier}-{turn}"))
        if chain.log.count(ALONE) == before:
            return calls
        for call in calls:
            call.leave()
        sleep(1.5)
    raise AssertionError(f"Redis was lost in every turn:\n{chain.log[-3000:]}")


def native(tokens: int, pace: float = 0, **more: Any) -> dict[str, Any]:
    return {"prompt": "Hello", "simulator": {"tokens": tokens, "tokens_per_second": pace, "jitter": 0}, **more}


def test_requests_are_counted_together_whichever_worker_and_surface_is_asked(chain: Chain, keys: ApiKeys) -> None:
    body = {"model": "simulator", "messages": HELLO, "simulator": {"tokens": 1}}
    asked = [
        (NATIVE.path, native(1)),
        (OPENAI.path, body),
        (MESSAGES, body | {"max_tokens": 9}),
        ("/api/v1/stream?prompt=Hello&simulator=%7B%22tokens%22:1%7D", None),
    ] * 3

    def ask_all(headers: dict[str, str]) -> list[Call]:
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(lambda one: Call(chain.url, one[0], one[1], headers=headers).finish(), asked))

    calls = undisturbed(chain, keys, "few-requests", ask_all)
    assert sorted(call.status for call in calls) == [200] * REQUESTS + [429] * (len(asked) - REQUESTS)
    left = sorted(int(call.headers["x-ratelimit-remaining"]) for call in calls if call.status == 200)
    assert left == list(range(REQUESTS))
    for (path, _), call in zip(asked, calls, strict=True):
        assert call.headers["x-ratelimit-limit"] == str(REQUESTS)
        assert call.headers["ratelimit-policy"] == f'"generate/60";q={REQUESTS};w=60, "generate/3600";q=1000;w=3600'
        if call.status == 429:
            seconds = int(call.headers["retry-after"])
            assert 1 <= seconds <= 120
            assert f'"generate/60";r=0;t={seconds}' in call.headers["ratelimit"]
            assert call.headers["x-ratelimit-remaining"] == "0"
            assert _error(path, call) == "rate_limited"
    # Whoever reads is not counted, nor is anybody else.
    assert Call(chain.url, "/v1/models", headers=keys.headers("few-requests")).finish().status == 200
    assert Call(chain.url, NATIVE.path, native(1), headers=keys.headers("ample")).finish().status == 200


def _error(path: str, call: Call) -> str:
    error = call.json["error"]
    if path == MESSAGES:
        assert error["type"] == "rate_limit_error"
        return str(error["details"]["error_code"])
    if path.startswith("/v1/"):
        assert error["type"] == "rate_limit_error"
    else:
        assert error["retryable"] is True
    return str(error["code"])


def test_three_workers_never_run_more_streams_than_a_caller_may_have(chain: Chain, keys: ApiKeys) -> None:
    body = OPENAI.body("simulator", simulator={"tokens": 2000, "tokens_per_second": 20})

    def ask_all(headers: dict[str, str]) -> list[Call]:
        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(lambda _: Call(chain.url, OPENAI.path, body, headers=headers).head(), range(20)))

    for _ in range(2):
        calls = undisturbed(chain, keys, "few-streams", ask_all)
        assert sorted(call.status for call in calls) == [200] * STREAMS + [429] * (20 - STREAMS)
        for call in calls:
            if call.status == 429:
                assert (call.headers["retry-after"], _error(OPENAI.path, call.finish())) == ("1", "rate_limited")
            else:
                assert call.headers["ratelimit-policy"] == f'"streams";q={STREAMS};qu="concurrent-streams"'
            call.leave()
        until(lambda: sum(all_active_streams(chain)) == 0, 10, "these streams are over")


def test_a_stream_ends_where_its_callers_tokens_do(chain: Chain, keys: ApiKeys) -> None:
    headers = keys.headers("few-tokens")
    call = Call(chain.url, NATIVE.path, native(500, 400, stream=True), headers=headers).finish()
    assert call.verdict == "error"
    assert (call.frames[-1].event, call.frames[-1].json()["code"]) == ("error", "limit_exceeded")
    assert call.frames[-1].id
    said = [frame for frame in call.frames if frame.event == "token"]
    assert len(said) == TOKENS - 2  # what the prompt is estimated at
    refused = Call(chain.url, NATIVE.path, native(5, max_tokens=50), headers=headers).finish()
    assert (refused.status, refused.json["error"]["message"]) == (429, f"Too many tokens: {TOKENS} in 60 s.")
    assert 1 <= int(refused.headers["retry-after"]) <= 120


def test_tokens_that_were_not_used_come_back_when_the_stream_ends(chain: Chain, keys: ApiKeys) -> None:
    headers = keys.headers("saver")
    body = native(3, 20, stream=True, max_tokens=60)
    with Call(chain.url, NATIVE.path, body, headers=headers).until(1) as running:
        assert Call(chain.url, NATIVE.path, body, headers=headers).finish().status == 429
        assert running.finish().verdict == "complete"

    def begins() -> bool:
        return Call(chain.url, NATIVE.path, body, headers=headers).finish().verdict == "complete"

    until(begins, 5, "the rest was given back")
    too_many = Call(chain.url, NATIVE.path, native(3, max_tokens=TOKENS), headers=headers).finish()
    assert (too_many.status, too_many.json["error"]["code"]) == (413, "limit_exceeded")


def ended(chain: Chain, headers: dict[str, str], prompts: int, tokens: int) -> dict[str, Any]:
    """A task of so many prompts, each answered with so many tokens, once it is over."""
    body = {"prompts": ["Hello"] * prompts, "simulator": {"tokens": tokens, "tokens_per_second": 0}}
    task_id = Call(chain.url, "/api/v1/tasks", body, headers=headers).finish().json["task_id"]

    def task() -> dict[str, Any]:
        found: dict[str, Any] = Call(chain.url, f"/api/v1/tasks/{task_id}", headers=headers).finish().json
        return found

    until(lambda: task()["status"] not in ("pending", "running"), 20, "the task is over")
    return task()


def test_a_task_takes_more_of_its_callers_tokens_until_there_are_none(chain: Chain, keys: ApiKeys) -> None:
    """It was failed where it had used up the first that it was given, however much was left, and even behind its last
    answer."""
    whole = ended(chain, keys.headers("ample"), prompts=8, tokens=OUTPUT_TOKENS_STEP // 4 + 1)
    assert (whole["status"], whole["result"]["succeeded"]) == ("completed", 8)
    part = ended(chain, keys.headers("tasker"), prompts=20, tokens=TOKENS // 5)
    assert (part["status"], part["error"]["code"]) == ("failed", "limit_exceeded")
    assert part["result"]["succeeded"] >= 4


def test_a_tier_bounds_how_long_an_answer_may_be(chain: Chain, keys: ApiKeys) -> None:
    headers = keys.headers("short")
    call = Call(chain.url, NATIVE.path, native(50), headers=headers).finish()
    assert (call.json["finish_reason"], call.json["usage"]["output_tokens"]) == ("length", LONGEST)
    for path, body in (
        (NATIVE.path, native(50, max_tokens=LONGEST + 1)),
        (OPENAI.path, {"model": "simulator", "messages": HELLO, "max_completion_tokens": LONGEST + 1}),
        (MESSAGES, {"model": "simulator", "messages": HELLO, "max_tokens": LONGEST + 1}),
    ):
        refused = Call(chain.url, path, body, headers=headers).finish()
        assert (refused.status, b"limit_exceeded" in refused.body) == (413, True)


def test_the_same_request_by_its_key_is_counted_once(chain: Chain, keys: ApiKeys) -> None:
    headers = keys.headers("few-streams") | {"Idempotency-Key": "again"}
    body = native(20, 20, stream=True)
    with ThreadPoolExecutor(12) as pool:
        calls = list(pool.map(lambda _: Call(chain.url, NATIVE.path, body, headers=headers).finish(), range(12)))
    assert {call.status for call in calls} == {200}
    assert len({call.headers["x-stream-id"] for call in calls}) == 1


def test_a_killed_workers_places_are_free_within_two_heartbeats(
    chain: Chain, keys: ApiKeys, redis: RedisServer
) -> None:
    headers = keys.headers("dier")
    body = OPENAI.body("simulator", simulator={"tokens": 2000, "tokens_per_second": 20})

    def begin() -> Call:
        return Call(chain.url, OPENAI.path, body, headers=headers).head()

    until_replaced(chain, set())  # by an earlier run of this test
    until(lambda: sum(all_active_streams(chain)) == 0, 10, "earlier streams are over")
    with ExitStack() as stack:
        for _ in range(STREAMS):
            stack.enter_context(begin().until(1))
        sleep(2 * BEAT_SECONDS)  # what is held is renewed
        assert stack.enter_context(begin()).status == 429
        path = max(sockets(chain), key=active_streams)
        lost, dying = active_streams(path), pid_behind(path)
        os.kill(dying, signal.SIGKILL)
        with redis.client() as client:
            slots = client.zrange("sluice:{b0}:u:key:dier", 0, -1, withscores=True)
        assert len(slots) == STREAMS
        assert max(until_ms for _, until_ms in slots) / 1000 - time() <= 2 * BEAT_SECONDS
        until_replaced(chain, {dying})
        for _ in range(lost):
            until(lambda: stack.enter_context(begin()).status == 200, 10, "there is room again")
        assert stack.enter_context(begin()).status == 429
