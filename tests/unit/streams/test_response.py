"""A stream as an answer: what the client gets, and what becomes of the upstream when the client does not want it."""

import asyncio
import gc
from collections.abc import AsyncIterator
from time import monotonic

import pytest
import pytest_asyncio

from app.errors import (
    SluiceError,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from app.events import Event, Token
from app.streams.connection import Connection
from app.streams.log import Cursor
from app.streams.sse import NativeEncoder
from tests.support.asgi import Peer, no_tasks_left, until
from tests.support.providers import DONE, FOREVER, Step, Steps, tokens
from tests.support.worker import Worker, worker

PING = b": ping\n\n"
BOTH_WAYS = pytest.mark.parametrize("wire", [True, False], ids=["short way", "through ASGI"])
SURFACES = pytest.mark.parametrize("batch", [False, True], ids=["stream", "batch"])


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Worker]:
    async with worker() as here:
        yield here


async def answered(here: Worker, peer: Peer, *steps: Step, batch: bool = False) -> Peer:
    """The peer, once it has the whole answer of a provider of these steps."""
    await asyncio.wait_for(call(here, Steps(*steps), peer, batch), 10)
    return peer


def call(here: Worker, provider: Steps, peer: Peer, batch: bool) -> asyncio.Task[None]:
    return here.serve_batch(provider, peer) if batch else here.serve(provider, peer)


def events(peer: Peer) -> list[str]:
    return [frame.event for frame in peer.frames]


# What the client gets


async def test_a_stream_is_its_tokens_and_its_end(here: Worker) -> None:
    peer = await answered(here, Peer(), *tokens(3), DONE)
    assert events(peer) == ["token", "token", "token", "done"]
    assert [frame.json()["token"] for frame in peer.frames[:3]] == ["t1 ", "t2 ", "t3 "]
    assert [frame.json()["index"] for frame in peer.frames[:3]] == [1, 2, 3]


async def test_a_stream_says_that_nobody_on_the_way_may_hold_or_change_it(here: Worker) -> None:
    peer = await answered(here, Peer(), *tokens(1), DONE)
    assert peer.status == 200
    assert peer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert peer.headers["cache-control"] == "no-store, no-transform"
    assert peer.headers["x-accel-buffering"] == "no"
    assert peer.frames[-1].json()["metadata"]["stream_id"] == peer.headers["x-stream-id"]
    assert "content-length" not in peer.headers


@BOTH_WAYS
async def test_tokens_come_in_order_whatever_their_pace(here: Worker, wire: bool) -> None:
    """The short way and the long one must not overtake each other."""
    paces = [0.0, 0.002, 0.0, 0.0, 0.001] * 20
    steps: list[Step] = [step for pair in zip(tokens(100), paces, strict=True) for step in pair if step != 0.0]
    peer = Peer(wire=wire)
    peer.send_takes_seconds = 0.003
    await answered(here, peer, *steps, DONE)
    assert [frame.json().get("index") for frame in peer.frames] == [*range(1, 101), None]


async def test_a_stream_without_tokens_still_has_an_end(here: Worker) -> None:
    peer = await answered(here, Peer(), DONE)
    assert (peer.status, events(peer)) == (200, ["done"])


@BOTH_WAYS
async def test_a_token_is_sent_when_it_is_made(here: Worker, wire: bool) -> None:
    go_on = asyncio.Event()
    peer = Peer(wire=wire)
    served = here.serve(Steps(Token("a"), go_on, Token("b"), DONE), peer)
    await until(lambda: len(peer.frames_so_far) == 1)
    go_on.set()
    await served
    assert events(peer) == ["token", "token", "done"]


async def test_a_batch_answer_is_one_document(here: Worker) -> None:
    peer = await answered(here, Peer(), Token("Hm", kind="thought"), *tokens(3), DONE, batch=True)
    assert (peer.status, peer.json) == (200, {"text": "t1 t2 t3 "})
    assert peer.headers["content-type"] == "application/json"
    assert len(peer.headers["x-stream-id"]) == 24


@BOTH_WAYS
async def test_a_burst_of_tokens_is_sent_in_few_pieces(here: Worker, wire: bool) -> None:
    """A send for each would cost a system call for each."""
    peer = await answered(here, Peer(wire=wire), Token("a"), 0.02, *tokens(999), DONE)
    assert len(peer.frames) == 1001
    assert len(peer.bodies) <= 10


async def test_what_comes_while_a_send_is_on_its_way_goes_out_together(here: Worker) -> None:
    peer = Peer(wire=False)
    peer.send_takes_seconds = 0.1
    await answered(here, peer, *[step for token in tokens(60) for step in (token, 0.005)], DONE)
    assert [frame.json()["index"] for frame in peer.frames[:-1]] == list(range(1, 61))
    assert len(peer.bodies) <= 20


# Silence


async def test_headers_wait_for_the_first_token(here: Worker) -> None:
    """Until then a failure can have its own status."""
    first = asyncio.Event()
    peer = Peer()
    served = here.serve(Steps(first, Token("a"), DONE), peer)
    await asyncio.sleep(0.1)
    assert peer.messages == []
    first.set()
    await served
    assert peer.status == 200


async def test_a_heartbeat_comes_before_a_late_first_token(here: Worker) -> None:
    here.heartbeat_seconds = 0.1
    first = asyncio.Event()
    peer = Peer()
    served = here.serve(Steps(first, Token("a"), DONE), peer)
    began = monotonic()
    await until(lambda: peer.body)
    assert 0.09 <= monotonic() - began < 1
    assert (peer.status, peer.bodies[0]) == (200, PING)
    first.set()
    await served
    assert events(peer) == ["token", "done"]


async def test_heartbeats_fill_a_silence_between_tokens(here: Worker) -> None:
    here.heartbeat_seconds = 0.1
    peer = await answered(here, Peer(), Token("a"), 0.55, Token("b"), DONE)
    assert 2 <= peer.bodies.count(PING) <= 5
    assert events(peer) == ["token", "token", "done"]


@BOTH_WAYS
async def test_no_heartbeat_comes_while_tokens_flow(here: Worker, wire: bool) -> None:
    here.heartbeat_seconds = 0.4
    peer = await answered(here, Peer(wire=wire), *[step for token in tokens(80) for step in (token, 0.01)], DONE)
    assert PING not in peer.body


async def test_a_batch_answer_has_no_heartbeat(here: Worker) -> None:
    here.heartbeat_seconds = 0.05
    peer = await answered(here, Peer(), 0.3, Token("a"), DONE, batch=True)
    assert (peer.status, peer.json) == (200, {"text": "a"})


# Failure


FAILURES = [
    (UpstreamRejected(429, "Slow down.", retry_after_seconds=7), 429, "upstream_rate_limited"),
    (UpstreamRejected(401, "Who are you?"), 401, "upstream_unauthorized"),
    (UpstreamUnreachable("No upstream."), 502, "upstream_unreachable"),
    (UpstreamTimeout("Too late."), 504, "upstream_timeout"),
    (UpstreamTruncated("Half."), 502, "upstream_truncated"),
    (ValueError("sk-canary at 10.1.2.3"), 500, "internal_error"),
]
EACH_FAILURE = pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=[code for *_, code in FAILURES])


@SURFACES
@EACH_FAILURE
async def test_a_failure_before_the_first_event_has_its_own_status(
    here: Worker, error: Exception, status: int, code: str, batch: bool
) -> None:
    peer = await answered(here, Peer(), 0.01, error, batch=batch)
    assert (peer.status, peer.json["error"]["code"]) == (status, code)
    assert peer.headers["content-type"] == "application/json"
    assert peer.headers.get("retry-after") == ("7" if status == 429 else None)
    assert len(peer.headers["x-stream-id"]) == 24
    assert b"canary" not in peer.body
    assert b"10.1.2.3" not in peer.body
    assert peer.note["outcome"] == code


async def test_a_failure_has_the_shape_of_its_surface(here: Worker) -> None:
    native = await answered(here, Peer("/api/v1/generate"), UpstreamTimeout("Too late."))
    assert native.json == {
        "error": {"code": "upstream_timeout", "message": "Too late.", "retryable": True, "request_id": ""}
    }
    openai = await answered(here, Peer("/v1/chat/completions"), UpstreamTimeout("Too late."))
    assert openai.json["error"]["type"] == "server_error"


@EACH_FAILURE
async def test_a_failure_after_the_first_token_is_one_event_and_the_end(
    here: Worker, error: Exception, status: int, code: str
) -> None:
    peer = await answered(here, Peer(), Token("a"), error)
    assert (peer.status, events(peer)) == (200, ["token", "error"])
    assert peer.frames[-1].json()["code"] == code
    assert b"canary" not in peer.body
    assert peer.note["outcome"] == code


async def test_a_failure_after_a_heartbeat_is_an_event(here: Worker) -> None:
    here.heartbeat_seconds = 0.05
    peer = await answered(here, Peer(), 0.3, UpstreamStalled("Silence."))
    assert (peer.status, events(peer)) == (200, ["error"])
    assert peer.frames[0].json() == {
        "code": "upstream_stalled",
        "message": "Silence.",
        "retryable": True,
        "status": 504,
    }


async def test_a_batch_answer_that_fails_half_way_has_the_failures_status(here: Worker) -> None:
    peer = await answered(here, Peer(), *tokens(3), UpstreamStalled("Silence."), batch=True)
    assert (peer.status, peer.json["error"]["code"]) == (504, "upstream_stalled")
    assert b"t1" not in peer.body


@SURFACES
async def test_a_provider_that_just_stops_is_no_complete_answer(here: Worker, batch: bool) -> None:
    peer = await answered(here, Peer(), *tokens(2), batch=batch)
    code = peer.json["error"]["code"] if batch else peer.frames[-1].json()["code"]
    assert code == peer.note["outcome"] == "upstream_truncated"


# The client leaves


@SURFACES
@pytest.mark.parametrize("before", [[], tokens(2)], ids=["before the first token", "mid-stream"])
async def test_a_client_that_leaves_takes_the_generation_with_it(
    here: Worker, before: list[Token], batch: bool
) -> None:
    provider, peer = Steps(*before, FOREVER), Peer()
    served = call(here, provider, peer, batch)
    await until(lambda: provider.started)
    await until(lambda: batch or len(peer.frames_so_far) == len(before))
    left = monotonic()
    peer.leave()
    await asyncio.wait_for(served, 5)
    await until(lambda: provider.closed)
    assert provider.closed_at - left < 1
    assert peer.note["outcome"] == "client_cancelled"
    assert not peer.complete
    await until(lambda: here.active == 0)


async def test_a_client_that_leaves_between_heartbeats_is_noticed(here: Worker) -> None:
    here.heartbeat_seconds = 0.05
    provider, peer = Steps(FOREVER), Peer()
    served = here.serve(provider, peer)
    await until(lambda: len(peer.bodies) >= 3)
    left = monotonic()
    peer.leave()
    await served
    await until(lambda: provider.closed)
    assert provider.closed_at - left < 1


@SURFACES
async def test_a_client_that_left_at_once_leaves_nothing_behind(batch: bool) -> None:
    async with no_tasks_left(), worker() as here:
        running = asyncio.all_tasks()
        for _ in range(20):
            provider, peer = Steps(*tokens(3), FOREVER), Peer(gone=True)
            await asyncio.wait_for(call(here, provider, peer, batch), 5)
            assert peer.note["outcome"] == "client_cancelled"
            await until(lambda: asyncio.all_tasks() <= running)
            assert (here.active, here.streams.live, here.drain.idle) == (0, {}, True)
            assert provider.closed == provider.started


@SURFACES
async def test_a_client_that_left_before_the_first_token_is_not_answered(here: Worker, batch: bool) -> None:
    """The access log would otherwise count it as a 200."""
    peer = Peer()
    served = call(here, Steps(FOREVER), peer, batch)
    await asyncio.sleep(0.02)
    peer.leave()
    await asyncio.wait_for(served, 5)
    assert peer.messages == []


@pytest.mark.parametrize("pace_seconds", [0.0, 0.002])
async def test_a_client_may_leave_at_any_token(here: Worker, pace_seconds: float) -> None:
    count = 12
    for index in range(count + 1):
        steps = [step for token in tokens(count) for step in (pace_seconds, token)]
        provider, peer = Steps(*steps, DONE), Peer()

        def leave_at(_message: object, peer: Peer = peer, index: int = index) -> None:
            if len(peer.frames_so_far) >= index:
                peer.leave()

        peer.on_send = leave_at
        if index == 0:
            peer.leave()
        await asyncio.wait_for(here.serve(provider, peer), 5)
        await until(lambda: here.active == 0)
        assert provider.closed == provider.started
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("produce-", "unread-"))]
        assert peer.note["outcome"] in {"client_cancelled", "completed"}


@SURFACES
async def test_a_call_that_is_cancelled_twice_cleans_up(here: Worker, batch: bool) -> None:
    provider, peer = Steps(Token("a"), FOREVER, closing_seconds=0.05), Peer()
    served = call(here, provider, peer, batch)
    await until(lambda: provider.started)
    await asyncio.sleep(0.02)
    served.cancel()
    await asyncio.sleep(0)
    served.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served
    await until(lambda: provider.closed and here.active == 0)
    assert here.drain.idle
    assert peer.note["outcome"] == "server_error"


class Stumbling(NativeEncoder):
    """Fails at the second token, as an encoder does that a provider gives what it cannot decode."""

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        if isinstance(event, Token) and event.index == 2:
            raise ValueError("no words for it")
        return super().encode(cursor, event)


@BOTH_WAYS
async def test_an_event_that_cannot_be_encoded_harms_its_own_connection_only(here: Worker, wire: bool) -> None:
    """Both streams' tokens are in one commit; the failure of one must not end the delivery to the other."""
    together = asyncio.Event()
    provider = Steps(Token("a"), together, Token("b"), FOREVER)
    failing, fine = Peer(wire=wire), Peer(wire=wire)
    failed = here.serve(provider, failing, encoder=lambda reader: Stumbling(reader.record.stream_id, "m"))
    await until(lambda: failing.frames_so_far)
    served = here.serve(Steps(Token("a"), together, Token("b"), 0.05, Token("c"), DONE), fine)
    await until(lambda: fine.frames_so_far)
    together.set()
    with pytest.raises(ValueError, match="no words"):
        await asyncio.wait_for(failed, 5)
    await asyncio.wait_for(served, 5)
    assert events(fine) == ["token", "token", "token", "done"]
    assert (len(failing.frames_so_far), failing.complete) == (1, False)
    assert failing.note["outcome"] == "server_error"
    await until(lambda: provider.closed)


# The client stalls


@SURFACES
async def test_a_client_that_takes_nothing_is_cut_off(here: Worker, batch: bool) -> None:
    here.send_seconds = 0.2
    provider, peer = Steps(Token("a"), *([DONE] if batch else [FOREVER])), Peer()
    peer.reading.clear()
    began = monotonic()
    await asyncio.wait_for(call(here, provider, peer, batch), 5)
    assert 0.18 <= monotonic() - began < 2
    assert peer.wire.aborted or peer.wire.ended_with
    assert peer.note["outcome"] == "slow_reader"
    await until(lambda: provider.closed and here.active == 0)


async def test_a_client_that_stops_taking_mid_stream_is_cut_off(here: Worker) -> None:
    here.heartbeat_seconds, here.send_seconds = 0.05, 0.3
    provider, peer = Steps(*tokens(2), FOREVER), Peer()
    served = here.serve(provider, peer)
    await until(lambda: len(peer.frames_so_far) == 2)
    peer.reading.clear()
    stalled = monotonic()
    await asyncio.wait_for(served, 5)
    await until(lambda: provider.closed)
    assert provider.closed_at - stalled < 2
    assert peer.note["outcome"] == "slow_reader"
    assert b'"reason":"slow_reader"' in (peer.wire.ended_with or b"")
    assert peer.wire.linger_seconds == here.send_seconds


async def test_a_stalled_client_holds_nobody_else(here: Worker) -> None:
    stalled, reading = Peer(), Peer()
    stalled.reading.clear()
    held = here.serve(Steps(*[step for token in tokens(50) for step in (token, 0.002)], DONE), stalled)
    await answered(here, reading, *[step for token in tokens(50) for step in (token, 0.002)], DONE)
    assert len(reading.frames) == 51
    stalled.reading.set()
    await held
    assert len(stalled.frames) == 51


async def test_a_client_that_left_is_not_taken_for_a_stalled_one(here: Worker) -> None:
    peer = await answered(here, Peer(gone=True), FOREVER)
    assert not peer.wire.aborted


# What stays behind


@pytest.mark.parametrize(
    ("steps", "outcome", "counted"),
    [
        ([*tokens(3), DONE], "completed", 3),
        ([DONE], "completed", 0),
        ([*tokens(2), UpstreamStalled("Silence.")], "upstream_stalled", 2),
        ([UpstreamTimeout("Too late.")], "upstream_timeout", 0),
        ([*tokens(2)], "upstream_truncated", 2),
        ([*tokens(1), KeyError("k")], "internal_error", 1),
    ],
)
async def test_the_access_log_is_told_how_a_stream_ended(
    here: Worker, steps: list[Step], outcome: str, counted: int
) -> None:
    peer = await answered(here, Peer(), 0.02, *steps)
    stream_id = peer.headers["x-stream-id"]
    ttft = peer.note.pop("ttft_ms", None)
    usage = {"input_tokens": 3, "output_tokens": 5} if outcome == "completed" else {}
    assert peer.note == {"stream_id": stream_id, "model": "m0", "outcome": outcome, "tokens": counted} | usage
    assert (ttft is not None) == (counted > 0)
    assert ttft is None or 15 <= ttft < 2000


async def test_no_connection_outlives_its_answer(here: Worker) -> None:
    """Neither a timer nor a finished task nor the stream may keep it in memory."""
    for steps in ([*tokens(3), DONE], [UpstreamTimeout("Too late.")]):
        await answered(here, Peer(), *steps)
    gone, stalled = Peer(), Peer()
    here.send_seconds = 0.05
    gone.leave()
    await here.serve(Steps(FOREVER), gone)
    stalled.reading.clear()
    await here.serve(Steps(Token("a"), FOREVER), stalled)
    here.calls.clear()
    await asyncio.sleep(0.02)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Connection)]


# The process stops


async def test_readers_of_a_process_that_stops_are_told_so_in_band(here: Worker) -> None:
    providers = [Steps(Token("a"), FOREVER) for _ in range(3)]
    peers = [Peer() for _ in providers]
    served = [here.serve(provider, peer) for provider, peer in zip(providers, peers, strict=True)]
    await until(lambda: all(peer.frames_so_far for peer in peers))
    here.drain.begin()
    await here.drain.finish()
    await asyncio.wait_for(asyncio.gather(*served), 5)
    for peer in peers:
        token, farewell = peer.frames
        assert (farewell.event, farewell.json()["reason"]) == ("reconnect", "drain")
        assert 100 <= (farewell.retry or 0) <= 1000
        assert farewell.id == token.id
        assert peer.note["outcome"] == "drain"
    await until(lambda: all(provider.closed for provider in providers))


async def test_a_batch_answer_of_a_process_that_stops_may_be_asked_for_again(here: Worker) -> None:
    peer = Peer()
    served = here.serve_batch(Steps(Token("a"), FOREVER), peer)
    await until(lambda: here.active == 1)
    here.drain.begin()
    await here.drain.finish()
    await asyncio.wait_for(served, 5)
    assert (peer.status, peer.json["error"]["code"], peer.headers["retry-after"]) == (503, "draining", "1")


@SURFACES
async def test_a_process_that_let_go_of_its_streams_answers_nobody_new(here: Worker, batch: bool) -> None:
    here.drain.begin()
    await here.drain.finish()
    provider, peer = Steps(DONE), Peer()
    with pytest.raises(SluiceError) as raised:
        await call(here, provider, peer, batch)
    assert (raised.value.code, raised.value.status, raised.value.retry_after_seconds) == ("draining", 503, 1)
    assert (peer.messages, provider.started) == ([], 0)


async def test_a_reader_that_can_come_back_is_moved_while_the_generation_goes_on(here: Worker) -> None:
    here.on_disconnect = "grace"
    provider, peer = Steps(Token("a"), 0.3, Token("b"), DONE), Peer()
    served = here.serve(provider, peer, resumable=True)
    await until(lambda: peer.frames_so_far)
    here.drain.begin()
    await asyncio.wait_for(served, 5)
    assert events(peer) == ["token", "reconnect"]
    assert here.active == 1
    await until(lambda: here.active == 0)
    assert provider.closed == 1


async def test_a_reader_that_can_come_back_does_not_stay_for_ever(here: Worker) -> None:
    here.age_seconds_max, here.on_disconnect = 0.1, "grace"
    peer = Peer()
    await asyncio.wait_for(here.serve(Steps(Token("a"), 0.5, DONE), peer, resumable=True), 5)
    assert (events(peer), peer.frames[-1].json()["reason"]) == (["token", "reconnect"], "max_age")
