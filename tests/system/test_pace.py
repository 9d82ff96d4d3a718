"""Tokens reach the client at the pace they are made, and silence never looks like a dead connection."""

import statistics
from collections.abc import Iterator
from itertools import pairwise, product

import pytest

from tests.support.call import Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.nginx_reload import reconfigure
from tests.support.surfaces import NATIVE, SURFACES, Surface
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.support.workers import sockets

HEARTBEAT_SECONDS = 1.0
PROXY_CUTS_SECONDS = 3
SILENT_SECONDS = 4.0
GAP_SECONDS = 0.05
TOKENS = 40
ADDED_SECONDS_MAX = 0.010
# A proxy that holds tokens back does it each time, a neighbour on the same cores does not.
ATTEMPTS = 3
# What a busy machine may add to a moment.
LATE_SECONDS_MAX = 0.5

every_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    """One worker, so that NGINX and a client beside it read the same stream in the same process."""
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    with Chain(env, workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def impatient_proxy(chain: Chain) -> Chain:
    """NGINX as somebody may have configured it: it gives up on a worker that is silent for three seconds."""
    reconfigure(chain, "http-timeouts.conf", "proxy_read_timeout", f"{PROXY_CUTS_SECONDS}s")
    return chain


def gaps(call: Call) -> list[float]:
    return [after - before for before, after in pairwise(call.times)]


def p90(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


@pytest.mark.parametrize("accept_encoding", ["identity", "gzip, br"])
@every_surface
def test_nginx_adds_nothing_to_the_gap_between_two_tokens(
    surface: Surface, accept_encoding: str, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    """Two clients read one generation, one of them past NGINX: the same tokens, and so the same gaps."""
    upstream.script(model, tokens=TOKENS, delay_seconds=GAP_SECONDS, first_delay_seconds=0.5)
    for attempt in range(ATTEMPTS):
        key = f"{model}-{attempt}"
        through, direct = both_ways(chain, surface, model, {"Accept-Encoding": accept_encoding, "Idempotency-Key": key})
        assert len(upstream.requests(model)) == attempt + 1
        assert bytes(through.body) == bytes(direct.body)
        assert "content-encoding" not in through.headers
        assert direct.headers["x-accel-buffering"] == "no"
        assert len(gaps(through)) >= TOKENS - 1
        added = [abs(behind - before) for behind, before in zip(gaps(through), gaps(direct), strict=True)]
        made = abs(statistics.median(gaps(through)[:TOKENS]) - GAP_SECONDS)
        if p90(added) < ADDED_SECONDS_MAX and made < ADDED_SECONDS_MAX:
            return
    raise AssertionError(f"NGINX added {added} to gaps of {gaps(direct)}")


def both_ways(chain: Chain, surface: Surface, model: str, headers: dict[str, str]) -> tuple[Call, Call]:
    """One generation, as it comes through NGINX and from its worker."""
    body = surface.body(model)
    (worker,) = sockets(chain)
    with (
        Call(chain.url, surface.path, body, headers=headers) as through,
        Call(worker, surface.path, body, headers=headers) as direct,
    ):
        finish_all([through, direct])
    return through, direct


@every_surface
def test_headers_come_with_the_first_heartbeat_when_the_upstream_is_silent(
    surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, headers_delay_seconds=HEARTBEAT_SECONDS + 1)
    with Call(chain.url, surface.path, surface.body(model), headers={"Accept-Encoding": "gzip, br"}) as call:
        call.head()
        assert call.head_at - call.started < HEARTBEAT_SECONDS + LATE_SECONDS_MAX
        assert not call.frames
        assert call.finish().verdict == "complete"
    assert call.headers["content-type"].startswith("text/event-stream")


@every_surface
def test_headers_come_with_the_first_token_when_it_is_sooner(
    surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, first_delay_seconds=0.2, delay_seconds=0.1)
    with Call(chain.url, surface.path, surface.body(model)) as call:
        call.until(1)
        assert 0.2 <= call.head_at - call.started < HEARTBEAT_SECONDS
        assert call.finish().heartbeat_times == []


@pytest.mark.usefixtures("impatient_proxy")
def test_heartbeats_keep_a_silent_stream_open(chain: Chain, upstream: ScriptedUpstream, models: Models) -> None:
    """Before the upstream has answered, before its first token, and between two tokens."""
    silences = {
        "headers": Script(tokens=4, headers_delay_seconds=SILENT_SECONDS),
        "first token": Script(tokens=4, first_delay_seconds=SILENT_SECONDS),
        "between": Script(tokens=2, delay_seconds=SILENT_SECONDS),
    }
    calls = []
    for surface, script in product(SURFACES, silences.values()):
        model = models.unused()
        upstream.script(model, script)
        calls.append(Call(chain.url, surface.path, surface.body(model)))
    finish_all(calls)
    for (surface, where), call in zip(product(SURFACES, silences), calls, strict=True):
        assert call.verdict == "complete", (surface, where)
        assert call.text == silences[where].text
        beats = [call.started, *call.heartbeat_times]
        assert len(call.heartbeat_times) >= SILENT_SECONDS / HEARTBEAT_SECONDS - 1, (surface, where)
        assert max(after - before for before, after in pairwise(beats)) < HEARTBEAT_SECONDS + LATE_SECONDS_MAX


@pytest.mark.usefixtures("impatient_proxy")
def test_the_impatient_proxy_does_cut_what_is_silent(chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    """A batch answer has no heartbeat: what the test above proves is the heartbeats' doing."""
    upstream.script(model, headers_delay_seconds=SILENT_SECONDS)
    call = ask(chain.url, NATIVE.path, NATIVE.body(model, stream=False))
    assert call.status == 503
