"""An OpenAI-compatible upstream over real sockets: what it is asked, what comes of its answers, how it is left."""

import asyncio
import gc
import json
import logging
from contextlib import aclosing
from itertools import pairwise
from time import monotonic
from typing import Any

import psutil
import pytest

from app.errors import (
    InvalidRequest,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRejected,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from app.events import Done, Token, Usage
from app.providers.base import GenerationRequest
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.unit.providers.conftest import Provide
from tests.unit.providers.drive import asked, closed, collect

KEY = "canary-key-0123456789"


async def test_the_tokens_of_an_answer_come_in_order_and_end_in_done(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    script = upstream.script("plain", tokens=20)
    outcome = await collect(provide(), "plain")
    assert [token.text for token in outcome.tokens] == script.texts
    assert all(token.kind == "content" and token.index == 0 for token in outcome.tokens)
    assert outcome.done is not None
    assert outcome.done.finish_reason == "stop"
    assert outcome.done.usage == Usage(7, 20)


async def test_tokens_are_handed_on_as_they_come(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("paced", tokens=5, delay_seconds=0.2)
    async with aclosing(provide().generate(asked("paced"))) as events:
        at = [monotonic() async for _ in events]
    assert all(later - earlier > 0.1 for earlier, later in pairwise(at[:5]))


async def test_an_upstream_that_takes_no_stream_options_gets_none(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("plain")
    request = GenerationRequest("plain", [{"role": "user", "content": "a"}], extra={"stream_options": {"a": 1}})
    async with aclosing(provide(usage_chunk=False).generate(request)) as events:
        done = [event async for event in events][-1]
    assert "stream_options" not in upstream.requests("plain")[-1].body
    assert isinstance(done, Done)
    assert done.usage == Usage(1, 8)  # counted here


async def test_the_callers_fields_go_under_ours(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("asks")
    extra = {
        "top_p": 0.5,
        "model": "other",
        "messages": [],
        "stream": False,
        "max_tokens": 1,
        "stream_options": {"include_usage": False, "include_obfuscation": False},
    }
    messages = [{"role": "user", "content": "é\u2028🙂"}]
    request = GenerationRequest("asks", messages, 32, 0.5, extra=extra)
    async with aclosing(provide(api_key=KEY).generate(request)) as events:
        assert [event async for event in events]
    assert upstream.requests("asks")[-1].body == {
        "model": "asks",
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "max_tokens": 32,
        "temperature": 0.5,
        "top_p": 0.5,
    }


async def test_the_upstreams_own_name_of_the_model_is_used(upstream: ScriptedUpstream, provide: Provide) -> None:
    outcome = await collect(provide(model="its-name"), "our-name")
    assert outcome.done is not None
    assert upstream.requests("its-name")
    assert not upstream.requests("our-name")


async def test_trace_headers_are_passed_on_and_ours_are_kept(upstream: ScriptedUpstream, provide: Provide) -> None:
    headers = {"traceparent": "00-1-2-01", "Authorization": "Bearer theirs", "Accept-Encoding": "gzip"}
    await collect(provide(api_key=KEY), "headers", headers=headers)
    sent = upstream.requests("headers")[-1].headers
    assert sent["traceparent"] == "00-1-2-01"
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["accept-encoding"] == "identity"
    assert sent["content-type"] == "application/json"


async def test_without_a_key_nothing_is_authorized(upstream: ScriptedUpstream, provide: Provide) -> None:
    await collect(provide(), "no-key")
    assert "authorization" not in upstream.requests("no-key")[-1].headers


async def test_cookies_are_not_kept(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("cookies", headers={"Set-Cookie": "session=1; Path=/"})
    provider = provide()
    await collect(provider, "cookies")
    await collect(provider, "cookies")
    assert "cookie" not in upstream.requests("cookies")[-1].headers


async def test_a_large_request_arrives_whole(upstream: ScriptedUpstream, provide: Provide) -> None:
    text = "word " * 500_000
    outcome = await collect(provide(), "large", messages=[{"role": "user", "content": text}])
    assert outcome.done is not None
    assert upstream.requests("large")[-1].body["messages"][0]["content"] == text


async def test_text_that_is_no_unicode_is_the_callers_mistake(provide: Provide) -> None:
    with pytest.raises(InvalidRequest):
        await collect(provide(), "surrogate", messages=[{"role": "user", "content": "\ud800"}])


async def test_text_arrives_as_sent_when_every_byte_is_a_segment(upstream: ScriptedUpstream, provide: Provide) -> None:
    texts = ["漢字", "🙂", "a\u2028b\u0085c\x0bd\x1ce", "\n\ndata: [DONE]\n\n", "\rid: 1\r\r"]
    upstream.script("split", tokens=texts, split_at=1, bom=True, newline="\r\n", between=": ping\r\n\r\n")
    outcome = await collect(provide(), "split")
    assert [token.text for token in outcome.tokens] == texts
    assert outcome.done is not None


@pytest.mark.parametrize("split_at", [0, 1, 3])
@pytest.mark.parametrize("first_frame", [": ping\n\n", "event: ping\ndata: {}\n\n", "\n\n", 'data: {"choices":[]}\n\n'])
async def test_nothing_is_concluded_from_the_first_read(
    upstream: ScriptedUpstream, provide: Provide, first_frame: str, split_at: int
) -> None:
    script = upstream.script("first", tokens=2, first_frame=first_frame, split_at=split_at)
    assert (await collect(provide(), "first")).text == script.text


COMPLETE = {
    "finish reason and DONE": Script(),
    "DONE only": Script(finish_reason=None),
    "finish reason only": Script(missing_done=True),
    "finish reason, then a broken connection": Script(
        missing_done=True, framing="content_length", eof_delay_seconds=0.1
    ),
    "DONE, and the connection stays open": Script(eof_delay_seconds=30),
    "until the connection closes": Script(framing="until_close"),
    "of known length": Script(framing="content_length"),
    "without a role chunk": Script(role_chunk=False),
}


@pytest.mark.parametrize("name", COMPLETE)
async def test_an_answer_is_complete(upstream: ScriptedUpstream, provide: Provide, name: str) -> None:
    script = upstream.script("complete", COMPLETE[name])
    outcome = await collect(provide(), "complete")
    assert outcome.text == script.text
    assert outcome.done is not None
    assert outcome.done.finish_reason == "stop"
    assert outcome.seconds < 3


TRUNCATED = {
    "end of the body": Script(missing_done=True, finish_reason=None),
    "end of the body after some": Script(die_after=3, how="fin"),
    "end of a body without a token": Script(die_after=0, how="fin"),
    "no last chunk": Script(die_after=3, how="no_zero_chunk"),
    "a reset": Script(die_after=3, how="rst"),
    "less than the announced length": Script(die_after=3, framing="content_length"),
    "a close where that is the end": Script(die_after=3, framing="until_close"),
    "a reset after the headers": Script(die_after=0, how="rst", role_chunk=False),
}


@pytest.mark.parametrize("name", TRUNCATED)
async def test_an_answer_is_truncated(upstream: ScriptedUpstream, provide: Provide, name: str) -> None:
    script = upstream.script("truncated", TRUNCATED[name])
    outcome = await collect(provide(), "truncated")
    assert isinstance(outcome.error, UpstreamTruncated)
    assert outcome.done is None
    kept = len(script.texts) if script.die_after is None else script.die_after
    assert [token.text for token in outcome.tokens] == script.texts[:kept]


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_connection_that_breaks_before_the_answer_was_unreachable(
    upstream: ScriptedUpstream, provide: Provide, how: Any
) -> None:
    upstream.script("no-answer", response_hex="", how=how)
    assert isinstance((await collect(provide(), "no-answer")).error, UpstreamUnreachable)


@pytest.mark.parametrize("how", ["rst", "no_zero_chunk"])
@pytest.mark.parametrize("missing_done", [False, True])
async def test_a_connection_that_breaks_after_the_end_breaks_nothing(
    upstream: ScriptedUpstream, provide: Provide, missing_done: bool, how: Any
) -> None:
    script = upstream.script("breaks-after", missing_done=missing_done, die_at_end=True, how=how)
    outcome = await collect(provide(), "breaks-after")
    assert outcome.text == script.text
    assert outcome.done is not None


async def test_what_came_before_a_broken_connection_reaches_a_slow_consumer(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    """The client library drops what it has buffered when the connection breaks: a whole answer was lost with it."""
    script = upstream.script("breaks", tokens=20, delay_seconds=0.01, die_at_end=True, how="rst")
    texts: list[str] = []
    async with aclosing(provide().generate(asked("breaks"))) as stream:
        async for event in stream:
            if not texts:
                await asyncio.sleep(0.5)
            texts.append(event.text if isinstance(event, Token) else event.finish_reason)
    assert texts == [*script.texts, "stop"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529])
async def test_an_error_status_is_passed_on(upstream: ScriptedUpstream, provide: Provide, status: int) -> None:
    upstream.script("status", status=status, headers={"Retry-After": "7"})
    error = (await collect(provide(), "status")).error
    assert isinstance(error, UpstreamRejected)
    assert (error.status, error.retry_after_seconds) == (status, 7)
    assert error.message == (
        f"scripted {status}" if status not in {401, 403} else f"The upstream answered with status {status}."
    )


async def test_an_endless_error_body_is_not_read_on(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("endless-error", status=500, body="x" * 5_000_000, headers={"Content-Type": "text/plain"})
    outcome = await collect(provide(), "endless-error")
    assert isinstance(outcome.error, UpstreamRejected)
    assert len(outcome.error.detail) < 10_000
    await closed(upstream, "endless-error")


async def test_an_error_body_that_stalls_does_not_hold_the_status_back(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("slow-error", status=503, eof_delay_seconds=60)
    outcome = await collect(provide(), "slow-error")
    assert outcome.error is not None
    assert (outcome.error.status, outcome.error.message) == (503, "scripted 503")
    assert outcome.seconds < 5


async def test_a_redirect_is_not_followed(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("moved", status=307, headers={"Location": f"{upstream.base_url}/elsewhere"})
    assert isinstance((await collect(provide(), "moved")).error, UpstreamInvalid)
    assert len(upstream.requests("moved")) >= 1


IN_BAND = {
    "first frame": Script(first_frame='data: {"error":{"message":"no","code":429}}\n\n', role_chunk=False),
    "error event": Script(first_frame='event: error\ndata: {"message":"no","code":"429"}\n\n', role_chunk=False),
    "after the role chunk": Script(error_at=0, error_frame='data: {"error":{"message":"no","code":429}}'),
    "JSON body": Script(plain_json=True, body='{"error":{"message":"no","status":429}}'),
}


@pytest.mark.parametrize("split_at", [0, 1])
@pytest.mark.parametrize("name", IN_BAND)
async def test_an_error_under_status_200_is_a_rejection_before_any_token(
    upstream: ScriptedUpstream, provide: Provide, name: str, split_at: int
) -> None:
    fields = {field: getattr(IN_BAND[name], field) for field in IN_BAND[name].__struct_fields__}
    upstream.script("in-band", **{**fields, "split_at": split_at})
    outcome = await collect(provide(), "in-band")
    assert isinstance(outcome.error, UpstreamRejected)
    assert (outcome.error.status, outcome.error.message, outcome.tokens) == (429, "no", [])


async def test_an_error_between_tokens_ends_what_they_began(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("breaks-down", error_at=3)
    outcome = await collect(provide(), "breaks-down")
    assert isinstance(outcome.error, UpstreamRejected)
    assert outcome.error.status == 500
    assert len(outcome.tokens) == 3


async def test_a_plain_completion_is_accepted(upstream: ScriptedUpstream, provide: Provide) -> None:
    script = upstream.script("json", plain_json=True, tokens=3)
    outcome = await collect(provide(), "json")
    assert [token.text for token in outcome.tokens] == [script.text]
    assert outcome.done is not None
    assert outcome.done.usage == Usage(7, 3)


@pytest.mark.parametrize(
    "script",
    [
        Script(html=True),
        Script(body_hex=b"It works!".hex(), headers={"Content-Type": "text/plain"}),
        Script(body_hex=b"data: nonsense\n\n".hex()),
        Script(body_hex=b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'.hex()),
        Script(response_hex=b"SSH-2.0-OpenSSH_9.2\r\n".hex()),
        Script(response_hex=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".hex()),
    ],
    ids=["HTML", "text", "no JSON", "no UTF-8", "another protocol", "broken chunks"],
)
async def test_what_is_not_the_protocol_is_an_error(
    upstream: ScriptedUpstream, provide: Provide, script: Script
) -> None:
    upstream.script("rubbish", script)
    error = (await collect(provide(), "rubbish")).error
    assert isinstance(error, UpstreamInvalid | UpstreamTruncated)


async def test_a_giant_line_is_refused_before_it_fills_memory(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("giant", giant_line_bytes=64 * 1024 * 1024)
    before = psutil.Process().memory_info().rss
    outcome = await collect(provide(), "giant")
    grown = psutil.Process().memory_info().rss - before
    assert isinstance(outcome.error, UpstreamInvalid)
    assert grown < 24 * 1024 * 1024
    await closed(upstream, "giant")


@pytest.mark.parametrize(
    "script",
    [
        Script(status=401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})),
        Script(status=500, body=json.dumps({"error": {"message": "cannot reach 127.0.0.1:9 with " + KEY}})),
        Script(status=502, html=True, body="<html>127.0.0.1</html>"),
        Script(first_frame=f'data: {{"error":{{"message":"127.0.0.1 says {KEY}"}}}}\n\n'),
        Script(die_after=1, how="rst"),
        Script(html=True, body=f"<p>127.0.0.1 {KEY}</p>"),
        Script(response_hex=b"127.0.0.1 \r\n\r\n".hex()),
        Script(response_hex="", how="rst"),
        Script(stall_after=1),
        Script(headers_delay_seconds=30),
    ],
)
async def test_no_error_names_the_upstream_or_the_key(
    upstream: ScriptedUpstream, provide: Provide, script: Script
) -> None:
    upstream.script("leaks", script)
    error = (await collect(provide(api_key=KEY, first_token_seconds=0.5, idle_seconds=0.3), "leaks")).error
    assert error is not None
    shown = repr(error.as_event()) + str(error)
    assert KEY not in shown + error.detail
    for canary in ("127.0.0.1", "localhost", str(upstream.port), "aiohttp", "Traceback"):
        assert canary not in shown


@pytest.mark.parametrize("token", range(4))
async def test_closing_at_any_token_closes_the_upstream(
    upstream: ScriptedUpstream, provide: Provide, token: int, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script("left", tokens=1000, delay_seconds=0.05)
    events = provide().generate(asked("left"))
    for _ in range(token + 1):
        await anext(events)
    left = monotonic()
    await asyncio.create_task(_close(events))
    entry = await closed(upstream, "left")
    assert entry.closed_at is not None
    assert entry.closed_at - left < 1
    assert entry.tokens <= token + 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _close(events: Any) -> None:
    """In a task of its own: what a scope held across a yield cannot survive."""
    await events.aclose()


MOMENTS = {
    "before the headers": (Script(headers_delay_seconds=60), 0),
    "before the first token": (Script(stall_after=0), 0),
    "between tokens": (Script(stall_after=2), 2),
    "while tokens come": (Script(tokens=10_000, delay_seconds=0.01), 3),
}


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_cancelling_closes_the_upstream(
    upstream: ScriptedUpstream, provide: Provide, moment: str, cancels: int
) -> None:
    script, tokens = MOMENTS[moment]
    upstream.script("cancelled", script)
    provider = provide()
    started = len(upstream.requests("cancelled"))
    outcome = asyncio.create_task(collect(provider, "cancelled"))
    await asyncio.to_thread(upstream.wait_tokens, "cancelled", tokens, started + 1)
    await asyncio.sleep(0.05)
    left = monotonic()
    for _ in range(cancels):
        outcome.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await outcome
    entry = await closed(upstream, "cancelled")
    assert entry.closed_at is not None
    assert entry.closed_at - left < 1


async def test_a_consumer_that_leaves_while_it_is_slow_closes_the_upstream(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("slow-left", tokens=100_000)
    events = provide().generate(asked("slow-left"))
    await anext(events)
    await asyncio.sleep(0.3)
    await events.aclose()
    await closed(upstream, "slow-left")


async def test_an_abandoned_answer_closes_its_upstream_when_it_is_collected(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("abandoned", stall_after=1)
    events = provide().generate(asked("abandoned"))
    await anext(events)
    del events
    gc.collect()
    await closed(upstream, "abandoned")


async def test_nothing_is_sent_before_the_first_step(upstream: ScriptedUpstream, provide: Provide) -> None:
    events = provide().generate(asked("unstarted"))
    await asyncio.sleep(0.1)
    await events.aclose()
    assert upstream.requests("unstarted") == []


async def test_streams_survive_garbage_collection(upstream: ScriptedUpstream, provide: Provide) -> None:
    script = upstream.script("collected", tokens=20, delay_seconds=0.01)
    provider = provide()
    running = asyncio.gather(*(collect(provider, "collected") for _ in range(20)))
    while not running.done():
        gc.collect()
        await asyncio.sleep(0.02)
    assert {outcome.text for outcome in await running} == {script.text}


async def test_a_flood_of_tokens_leaves_the_loop_to_others(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("flood", tokens=["word " * 200] * 5000)
    task = asyncio.create_task(collect(provide(), "flood"))
    worst = 0.0
    while not task.done():
        before = monotonic()
        await asyncio.sleep(0.005)
        worst = max(worst, monotonic() - before)
    assert len((await task).tokens) == 5000
    assert worst < 0.25


async def test_errors_are_all_of_one_tree(upstream: ScriptedUpstream, provide: Provide) -> None:
    """Whatever bytes the upstream answers with, only its own errors come out."""
    for raw in (
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 204 N\r\n\r\n",
    ):
        upstream.script("raw", response_hex=raw.hex())
        assert isinstance((await collect(provide(first_token_seconds=2), "raw")).error, UpstreamError)
