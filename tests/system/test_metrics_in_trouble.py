"""Figures that stay at nothing while all is well: what a worker tells of itself that has no place, no log or a defect,
and whom it tells apart."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support import defect
from tests.support.api_keys import ApiKeys
from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.footprint import inside_env
from tests.support.redis import RedisServer
from tests.support.scrape import Scrape, scrape, scrape_risen, scrape_until
from tests.support.surfaces import NATIVE

QUICK = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
LASTING = {"tokens": 1200, "tokens_per_second": 10, "first_token_ms": 0}
PLACES = 3
TENANTS = 300
BACK_SECONDS_MAX = 10.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    """Two callers whom everybody knows, and many more."""
    many = {f"tenant-{number}": "enterprise" for number in range(TENANTS)}
    return ApiKeys(tmp_path_factory.mktemp("keys"), acme="enterprise", umbrella="enterprise", **many)


@pytest.fixture(scope="module")
def chain(redis: RedisServer, keys: ApiKeys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    env = keys.environment | inside_env(tmp_path_factory.mktemp("inside"), f"{defect.__name__}:install")
    env |= {"SLUICE_STREAM_LOG": redis.url, "SLUICE_METRICS_TENANTS": "key:acme, key:umbrella"}
    env |= {"SLUICE_STREAMS_MAX": str(PLACES), "SLUICE_ADMISSION_SECONDS": "7"}
    with Chain(env, workers=1) as running:
        yield running


@pytest.fixture
def before(chain: Chain) -> Scrape:
    return scrape(chain.metrics_url)


Begin = Callable[..., Call]


@pytest.fixture
def begin(chain: Chain, keys: ApiKeys) -> Iterator[Begin]:
    """Begins a stream of somebody's, which ends with the test."""
    with ExitStack() as stack:

        def begin(simulator: dict[str, object], caller: str = "acme") -> Call:
            body = NATIVE.body("simulator", simulator=simulator)
            return stack.enter_context(Call(chain.url, NATIVE.path, body, headers=keys.headers(caller)))

        yield begin


def risen_exactly(chain: Chain, before: Scrape, name: str, rise: float = 1, **labels: str) -> Scrape:
    """A scrape in which a counter has risen by exactly as much."""
    found = scrape_risen(chain.metrics_url, before, name, rise, **labels)
    assert found.risen_since(before, name, **labels) == rise, (name, labels)
    return found


def test_tenants_that_are_named_are_told_apart_and_all_others_are_one(
    chain: Chain, before: Scrape, begin: Begin
) -> None:
    for caller in ("acme", "acme", "umbrella", "tenant-1"):
        assert begin(QUICK, caller).finish().verdict == "complete"
    for tenant, streams in (("key:acme", 2), ("key:umbrella", 1), ("other", 1)):
        risen_exactly(chain, before, "sluice_tenant_streams_total", streams, tenant=tenant, outcome="completed")
        risen_exactly(chain, before, "sluice_tenant_tokens_total", 3 * streams, tenant=tenant, direction="output")


def test_hundreds_of_tenants_are_no_series(chain: Chain, begin: Begin) -> None:
    assert begin(QUICK, "tenant-0").finish().verdict == "complete"
    time.sleep(2.5)  # all of it is in the files
    known = scrape(chain.metrics_url)
    for number in range(TENANTS):
        assert begin(QUICK, f"tenant-{number}").finish().verdict == "complete"
    found = risen_exactly(chain, known, "sluice_tenant_streams_total", TENANTS, tenant="other", outcome="completed")
    assert found.samples.keys() == known.samples.keys()


def test_who_waits_for_a_place_is_seen_to_wait(chain: Chain, before: Scrape, begin: Begin) -> None:
    name = "sluice_admission_queue_depth"
    assert before.value(name) == 0
    held = [begin(LASTING).until(1) for _ in range(PLACES)]
    waiting = [begin(QUICK) for _ in range(2)]
    found = scrape_until(chain.metrics_url, lambda found: found.value(name) == len(waiting))
    assert found.value("sluice_streams_max") == found.value("sluice_active_streams") == PLACES
    for call in held:
        call.leave()
    assert [call.finish().verdict for call in waiting] == ["complete"] * 2
    found = scrape_until(chain.metrics_url, lambda found: found.value(name) == 0)
    waits = "sluice_admission_wait_seconds"
    assert found.value(f"{waits}_count") == before.value(f"{waits}_count") + PLACES + len(waiting)
    assert found.value(f"{waits}_sum") > before.value(f"{waits}_sum")


def test_without_the_log_and_the_limits_store_every_figure_says_so(
    chain: Chain, redis: RedisServer, before: Scrape, begin: Begin
) -> None:
    assert before.value("sluice_log_available") == 1
    lasting = begin(LASTING).until(2)
    redis.stop()
    try:
        scrape_until(chain.metrics_url, lambda found: found.value("sluice_log_available") == 0)
        lasting.until(len(lasting.frames) + 5)
        unlogged = "sluice_log_unlogged_events_total"
        scrape_until(chain.metrics_url, lambda found: found.value(unlogged) >= before.value(unlogged) + 5)
        assert begin(QUICK).finish().status == 503
        risen_exactly(chain, before, "sluice_limiter_fallbacks_total")
        risen_exactly(chain, before, "sluice_streams_total", model="simulator", outcome="log_unavailable")
        risen_exactly(chain, before, "sluice_refused_total", reason="log_unavailable")
    finally:
        redis.cont()
    scrape_until(chain.metrics_url, lambda found: found.value("sluice_log_available") == 1, BACK_SECONDS_MAX)


def test_a_defect_ends_its_stream_as_such(chain: Chain, before: Scrape, begin: Begin) -> None:
    fault = {"kind": "stall", "at_token": defect.AT_TOKEN}
    call = begin(QUICK | {"tokens": 20, "fault": fault}).finish()
    assert call.frames[-1].json()["code"] == "internal_error"
    risen_exactly(chain, before, "sluice_streams_total", model="simulator", outcome="internal_error")
    risen_exactly(chain, before, "sluice_tenant_streams_total", tenant="key:acme", outcome="internal_error")
