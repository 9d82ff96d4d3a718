"""The deadlines of an answer, over real sockets."""

import asyncio
from contextlib import aclosing
from time import monotonic
from typing import Any

import pytest

from app.errors import UpstreamStalled, UpstreamTimeout
from tests.support.upstream import ScriptedUpstream
from tests.unit.providers.conftest import Provide
from tests.unit.providers.drive import asked, closed, collect

ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TRICKLES = {"silence": "", "bytes of a line": "x", "comments": ": ping\n\n", "role chunks": ROLE}


@pytest.mark.parametrize("trickle", TRICKLES)
async def test_an_upstream_without_a_first_token_times_out(
    upstream: ScriptedUpstream, provide: Provide, trickle: str
) -> None:
    upstream.script("mute", stall_after=0, trickle=TRICKLES[trickle])
    outcome = await collect(provide(first_token_seconds=0.6, idle_seconds=0.3), "mute")
    assert isinstance(outcome.error, UpstreamTimeout)
    assert 0.55 < outcome.seconds < 3
    assert (await closed(upstream, "mute")).tokens == 0


async def test_an_upstream_that_does_not_even_answer_times_out(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("deaf", headers_delay_seconds=60)
    outcome = await collect(provide(first_token_seconds=0.6), "deaf")
    assert isinstance(outcome.error, UpstreamTimeout)
    assert 0.55 < outcome.seconds < 3
    await closed(upstream, "deaf")


async def test_headers_do_not_start_the_first_tokens_time_anew(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("late-headers", headers_delay_seconds=0.6, stall_after=0)
    outcome = await collect(provide(first_token_seconds=1), "late-headers")
    assert isinstance(outcome.error, UpstreamTimeout)
    assert 0.95 < outcome.seconds < 1.55


@pytest.mark.parametrize("trickle", TRICKLES)
async def test_an_upstream_that_stops_in_the_middle_is_stalled(
    upstream: ScriptedUpstream, provide: Provide, trickle: str
) -> None:
    upstream.script("stalls", stall_after=3, trickle=TRICKLES[trickle])
    outcome = await collect(provide(first_token_seconds=30, idle_seconds=0.5), "stalls")
    assert isinstance(outcome.error, UpstreamStalled)
    assert len(outcome.tokens) == 3
    assert 0.45 < outcome.seconds < 3
    assert (await closed(upstream, "stalls")).tokens == 3


async def test_tokens_within_the_idle_time_go_on_for_longer_than_it(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("steady", tokens=12, delay_seconds=0.2)
    outcome = await collect(provide(idle_seconds=1.2), "steady")
    assert outcome.done is not None
    assert outcome.seconds > 2


async def test_a_stream_that_never_ends_is_over_at_its_total_time(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("endless", tokens=10_000, delay_seconds=0.05)
    outcome = await collect(provide(total_seconds=1), "endless")
    assert isinstance(outcome.error, UpstreamTimeout)
    assert len(outcome.tokens) >= 5
    assert 0.95 < outcome.seconds < 3
    await closed(upstream, "endless")


@pytest.mark.parametrize("fields", [{"headers_delay_seconds": 30}, {"stall_after": 0}])
async def test_the_total_time_holds_before_the_first_token_too(
    upstream: ScriptedUpstream, provide: Provide, fields: dict[str, Any]
) -> None:
    upstream.script("total-first", **fields)
    outcome = await collect(provide(total_seconds=0.5, first_token_seconds=30), "total-first")
    assert isinstance(outcome.error, UpstreamTimeout)
    assert outcome.seconds < 3


async def test_a_slow_consumer_makes_no_upstream_look_stalled(upstream: ScriptedUpstream, provide: Provide) -> None:
    """The idle time once ran while the consumer was busy, and took its slowness for the upstream's."""
    upstream.script("fast", tokens=6, delay_seconds=0.1)
    count = 0
    async with aclosing(provide(idle_seconds=0.4).generate(asked("fast"))) as events:
        async for _ in events:
            count += 1
            await asyncio.sleep(0.6)
    assert count == 7


async def test_a_stall_is_counted_from_when_the_slow_consumer_waits(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("stalls-late", stall_after=1)
    events = provide(idle_seconds=0.5).generate(asked("stalls-late"))
    await anext(events)
    await asyncio.sleep(1.2)
    started = monotonic()
    with pytest.raises(UpstreamStalled):
        await anext(events)
    assert 0.45 < monotonic() - started < 3


async def test_a_held_loop_makes_no_upstream_look_stalled(upstream: ScriptedUpstream, provide: Provide) -> None:
    """Timers can run before the socket is read: then the idle time is over, though tokens are there."""
    upstream.script("held", tokens=16, delay_seconds=0.15)
    provider = provide(idle_seconds=0.5)
    task = asyncio.create_task(collect(provider, "held"))
    await asyncio.to_thread(upstream.wait_started, "held")
    await asyncio.sleep(0.2)
    threading_sleep(0.9)
    outcome = await task
    assert outcome.error is None
    assert len(outcome.tokens) == 16


def threading_sleep(seconds: float) -> None:
    """Hold the event loop."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        pass


async def test_after_the_finish_reason_only_a_short_wait_is_left(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("no-end", missing_done=True, eof_delay_seconds=60, tokens=2)
    outcome = await collect(provide(idle_seconds=30), "no-end")
    assert outcome.done is not None
    assert outcome.seconds < 5
    await closed(upstream, "no-end")


async def test_tokens_cost_no_timers(
    upstream: ScriptedUpstream, provide: Provide, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script("many", tokens=300, delay_seconds=0.002)
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        # uvloop's class takes no other methods; what is counted is the same code.
        assert (await collect(provide(), "many")).done is not None
        return
    timers = 0
    call_at = loop.call_at

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*arguments, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    outcome = await collect(provide(), "many")
    assert len(outcome.tokens) == 300
    assert timers < 20
