"""A client that leaves takes its generation along: the upstream is let go within a second, and nothing stays behind."""

from collections.abc import Iterator
from typing import Literal

import psutil
import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI, SURFACES, Surface
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import all_active_streams, until

# The promise; what is measured is a few milliseconds.
LET_GO_SECONDS_MAX = 1.0
COUNTED_SECONDS_MAX = 2.0
RUDE_CALLS = 40
TOKENS = 30
# NGINX keeps some to a worker, and a worker some to the upstream.
KEPT_CONNECTIONS_MAX = 8
# An idle worker takes one or two.
CPU_PERCENT_MAX = 25
AT_ONCE = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}

Leave = Literal["fin", "rst"]
every_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
every_way = pytest.mark.parametrize("how", ["fin", "rst"])


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    with Chain({"SLUICE_CONFIG": str(models.path)}, workers=2) as running:
        yield running


def let_go(chain: Chain, upstream: ScriptedUpstream, model: str, left: float) -> None:
    """The one generation that there was ended with the client that asked for it."""
    entry = upstream.wait_closed(model)
    assert entry.closed_at is not None
    assert 0 < entry.closed_at - left < LET_GO_SECONDS_MAX
    assert len(upstream.requests(model)) == 1
    until(lambda: sum(all_active_streams(chain)) == 0, COUNTED_SECONDS_MAX, "no stream is counted any more")


@every_way
@every_surface
def test_leaving_before_the_upstream_has_answered_ends_the_generation(
    surface: Surface, how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, headers_delay_seconds=20)
    with Call(chain.url, surface.path, surface.body(model)) as call:
        upstream.wait_started(model)
        let_go(chain, upstream, model, call.leave(how))


@every_way
@every_surface
def test_leaving_before_the_first_token_ends_the_generation(
    surface: Surface, how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, first_delay_seconds=20)
    with Call(chain.url, surface.path, surface.body(model)) as call:
        upstream.wait_started(model)
        let_go(chain, upstream, model, call.leave(how))


@every_way
@every_surface
def test_leaving_mid_stream_ends_the_generation(
    surface: Surface, how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=1000, delay_seconds=0.05)
    with Call(chain.url, surface.path, surface.body(model)) as call:
        call.until(4)
        assert sum(all_active_streams(chain)) == 1
        let_go(chain, upstream, model, call.leave(how))


def test_who_asks_for_his_end_gets_it_though_he_has_a_key_to_come_back_with(
    chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=1000, delay_seconds=0.05)
    with Call(chain.url, NATIVE.path, NATIVE.body(model), headers={"Idempotency-Key": model}) as call:
        let_go(chain, upstream, model, call.until(4).leave("fin"))


def test_each_surface_has_the_operators_policy_for_who_asks_for_none(
    upstream: ScriptedUpstream, models: Models
) -> None:
    cancelled, kept = models.unused(), models.unused()
    for model in (cancelled, kept):
        upstream.script(model, tokens=60, delay_seconds=0.05)
    policies = {"SLUICE_ON_DISCONNECT": "cancel", "SLUICE_ON_DISCONNECT_OPENAI": "finish"}
    with Chain({"SLUICE_CONFIG": str(models.path), **policies}, workers=1) as chain:
        asked = NATIVE.body(cancelled)
        del asked["on_disconnect"]
        with Call(chain.url, NATIVE.path, asked, headers={"Idempotency-Key": cancelled}) as call:
            let_go(chain, upstream, cancelled, call.until(4).leave("fin"))
        with Call(chain.url, OPENAI.path, OPENAI.body(kept)) as call:
            call.until(4).leave("fin")
        upstream.wait_tokens(kept, 60)


@every_way
@every_surface
def test_leaving_while_the_upstream_stalls_ends_the_generation(
    surface: Surface, how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    """No token comes whose sending could fail."""
    upstream.script(model, stall_after=3)
    with Call(chain.url, surface.path, surface.body(model)) as call:
        call.until(3)
        let_go(chain, upstream, model, call.leave(how))


@every_way
@every_surface
def test_leaving_a_batch_answer_ends_the_generation(
    surface: Surface, how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=1000, delay_seconds=0.05)
    with Call(chain.url, surface.path, surface.body(model, stream=False)) as call:
        upstream.wait_tokens(model, 3)
        let_go(chain, upstream, model, call.leave(how))


@every_surface
def test_leaving_at_every_token_leaves_nothing_behind(
    surface: Surface, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=TOKENS, delay_seconds=0.01)
    idle = [worker.num_fds() for worker in workers(chain)]
    for frames in range(1, TOKENS + 1):
        with Call(chain.url, surface.path, surface.body(model)) as call:
            call.until(frames)
    assert len(upstream.requests(model)) == TOKENS
    is_at_rest(chain, idle)
    assert all(entry.finished for entry in upstream.requests(model))


@every_way
def test_calls_that_leave_at_once_leave_nothing_behind(
    how: Leave, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    """Some are gone before anybody looks whether they are."""
    upstream.script(model, first_delay_seconds=20)
    idle = [worker.num_fds() for worker in workers(chain)]
    for number in range(RUDE_CALLS):
        surface = SURFACES[number % 2]
        Call(chain.url, surface.path, surface.body(model, stream=number % 4 < 2)).leave(how)
    is_at_rest(chain, idle)
    # The chain takes the next one as if nothing had been.
    assert ask(chain.url, NATIVE.path, NATIVE.body("simulator", stream=False, simulator=AT_ONCE)).status == 200


def test_a_neighbour_does_not_notice(chain: Chain, upstream: ScriptedUpstream, models: Models) -> None:
    staying, leaving = models.unused(), models.unused()
    upstream.script(staying, tokens=50, delay_seconds=0.02)
    upstream.script(leaving, tokens=1000, delay_seconds=0.02)
    with Call(chain.url, NATIVE.path, NATIVE.body(staying)) as call:
        for _ in range(RUDE_CALLS // 2):
            with Call(chain.url, NATIVE.path, NATIVE.body(leaving)) as other:
                other.until(1).leave("rst")
        assert call.finish().verdict == "complete"
    assert call.text == "".join(f"tok{number} " for number in range(50))


def test_the_log_has_no_complaint(chain: Chain) -> None:
    """After everything above."""
    for complaint in ("Traceback", "cancel scope", "was destroyed", "never retrieved", "different Context"):
        assert complaint not in chain.log


def workers(chain: Chain) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in chain.worker_pids()]


def is_at_rest(chain: Chain, idle_fds: list[int]) -> None:
    """No stream is counted, no connection is open, and no worker is busy with what is over."""
    until(lambda: sum(all_active_streams(chain)) == 0, COUNTED_SECONDS_MAX, "no stream is counted any more")

    def closed() -> bool:
        return all(
            worker.num_fds() <= before + KEPT_CONNECTIONS_MAX
            for worker, before in zip(workers(chain), idle_fds, strict=True)
        )

    until(closed, COUNTED_SECONDS_MAX, "connections are closed")
    for worker in workers(chain):
        assert worker.cpu_percent(interval=0.5) < CPU_PERCENT_MAX
