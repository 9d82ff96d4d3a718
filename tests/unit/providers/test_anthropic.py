"""An upstream of Anthropic's over real sockets: what it is asked, what comes of its answers, how it is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from app.errors import InvalidRequest, UpstreamInvalid, UpstreamRejected, UpstreamTimeout, UpstreamTruncated
from app.events import Token, Usage
from app.providers.anthropic import VERSION, AnthropicProvider
from app.providers.own_terms import with_original
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_messages import frame, text_block, thinking_block
from tests.support.upstream_script import Script
from tests.unit.providers.drive import asked, closed, collect

KEY = "canary-key-0123456789"
QUESTION = [{"role": "user", "content": "two words"}]


@pytest_asyncio.fixture
async def provider(upstream: ScriptedUpstream) -> AsyncIterator[AnthropicProvider]:
    made = AnthropicProvider(base_url=upstream.base_url, api_key=KEY, first_token_seconds=2, idle_seconds=1)
    yield made
    await made.aclose()


def own(messages: list[dict[str, Any]], beta: str | None = None, **body: Any) -> dict[str, Any]:
    """The fields of a request that came by Anthropic's surface."""
    return {
        "max_tokens": 64,
        "messages": QUESTION,
        "extra": with_original({}, QUESTION, {"messages": messages, **body}, []),
        "headers": {"anthropic-version": "2020-01-01"} | ({"anthropic-beta": beta} if beta else {}),
    }


async def test_the_tokens_of_an_answer_come_in_order_and_end_in_done(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    script = upstream.script("a-plain", tokens=20)
    outcome = await collect(provider, "a-plain")
    assert [token.text for token in outcome.tokens] == script.texts
    assert outcome.done is not None
    assert (outcome.done.finish_reason, outcome.done.usage) == ("stop", Usage(7, 20))


async def test_the_request_has_the_protocols_headers_and_no_bearer(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    await collect(provider, "a-headers", headers={"traceparent": "00-1-2-01"})
    sent = upstream.requests("a-headers")[-1].headers
    assert (sent["x-api-key"], sent["anthropic-version"], sent["traceparent"]) == (KEY, VERSION, "00-1-2-01")
    assert "authorization" not in sent
    assert "anthropic-beta" not in sent


async def test_a_chat_is_translated(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    await collect(provider, "a-asks", max_tokens=9, temperature=0.5, extra={"stop": "x", "user": None})
    assert upstream.requests("a-asks")[-1].body == {
        "model": "a-asks",
        "messages": QUESTION,
        "max_tokens": 9,
        "temperature": 0.5,
        "stop_sequences": ["x"],
        "stream": True,
    }


async def test_a_request_in_its_own_terms_goes_out_as_it_came(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}]
    more = {"thinking": {"type": "enabled", "budget_tokens": 2048}, "of_tomorrow": {"a": [1]}, "temperature": 0.2}
    await collect(provider, "a-own", **own(messages, beta="a-1,b-2", **more))
    sent = upstream.requests("a-own")[-1]
    assert sent.body == {"model": "a-own", "messages": messages, "max_tokens": 64, "stream": True, **more}
    assert (sent.headers["anthropic-beta"], sent.headers["anthropic-version"]) == ("a-1,b-2", VERSION)


async def test_a_body_cannot_claim_to_be_in_its_own_terms(provider: AnthropicProvider) -> None:
    fields = own([{"role": "user", "content": "other"}])
    with pytest.raises(InvalidRequest, match=r"^anthropic:"):
        await collect(provider, "a-claim", extra=fields["extra"])


async def test_thoughts_that_nobody_signed_are_left_out(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    unsigned = {"type": "thinking", "thinking": "hm", "signature": ""}
    signed = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    text = {"type": "text", "text": "a"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [unsigned, text]},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": [signed, text]},
        {"role": "assistant", "content": [unsigned]},
        {"role": "user", "content": "c"},
    ]
    await collect(provider, "a-unsigned", **own(messages))
    assert [message["content"] for message in upstream.requests("a-unsigned")[-1].body["messages"]] == [
        *("a", [text]),
        *("b", [signed, text]),
        "c",
    ]


@pytest.mark.parametrize("terms", ["translated", "own"])
async def test_an_answer_goes_on_behind_its_beginning(
    terms: str, upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    model = f"a-prefix-{terms}"
    upstream.script(model, tokens=[" ", " and", " on"])
    outcome = await collect(provider, model, prefix="So far ", **(own(QUESTION) if terms == "own" else {}))
    assert upstream.requests(model)[-1].body["messages"][-1] == {"role": "assistant", "content": "So far"}
    assert outcome.text == "and on"


async def test_a_beginning_that_was_added_to_the_messages_is_added_in_its_own_terms_too(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    begun = {"role": "assistant", "content": "So far"}
    await collect(provider, "a-added", **own(QUESTION) | {"messages": [*QUESTION, begun]})
    assert upstream.requests("a-added")[-1].body["messages"] == [*QUESTION, begun]


async def test_splits_and_crlf_change_nothing(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    script = upstream.script("a-split", tokens=["漢字", "🙂", "a\u2028b"], split_at=1, newline="\r\n")
    assert (await collect(provider, "a-split")).text == script.text


@pytest.mark.parametrize("how", ["fin", "rst", "no_zero_chunk"])
async def test_a_connection_that_ends_too_soon_is_a_truncation(
    how: str, upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    upstream.script(f"a-{how}", die_after=3, how=how)
    outcome = await collect(provider, f"a-{how}")
    assert len(outcome.tokens) == 3
    assert isinstance(outcome.error, UpstreamTruncated)


async def test_an_end_without_the_last_event_is_whole_once_the_reason_was_said(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    upstream.script("a-no-stop", missing_done=True)
    assert (await collect(provider, "a-no-stop")).done is not None


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
async def test_an_error_status_is_the_callers_too(
    status: int, upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    upstream.script(f"a-{status}", status=status, headers={"retry-after": "7"})
    outcome = await collect(provider, f"a-{status}")
    assert isinstance(outcome.error, UpstreamRejected)
    assert (outcome.error.status, outcome.error.retry_after_seconds) == (status, 7)
    assert KEY not in outcome.error.message + outcome.error.detail


async def test_an_error_event_ends_the_answer_behind_its_tokens(
    upstream: ScriptedUpstream, provider: AnthropicProvider
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.script("a-error", error_at=2, error_frame=frame(error).decode().rstrip())
    outcome = await collect(provider, "a-error")
    assert outcome.text == "tok0 tok1 "
    assert isinstance(outcome.error, UpstreamRejected)
    assert outcome.error.status == 529


async def test_pings_are_no_tokens(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    """An upstream that is alive and says nothing is silent all the same."""
    upstream.script("a-pings", stall_after=0, trickle=frame({"type": "ping"}).decode())
    outcome = await collect(provider, "a-pings")
    assert isinstance(outcome.error, UpstreamTimeout)


async def test_what_comes_whole_in_json_is_an_answer(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    script = upstream.script("a-json", plain_json=True, tokens=3)
    outcome = await collect(provider, "a-json")
    assert outcome.text == script.text
    assert outcome.done is not None


async def test_a_page_is_no_answer(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    upstream.script("a-html", html=True)
    assert isinstance((await collect(provider, "a-html")).error, UpstreamInvalid)


async def test_thoughts_and_text_are_kept_apart(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    upstream.script("a-thinks", events=thinking_block(0, "hm", signature="s") + text_block(1, "Yes."))
    outcome = await collect(provider, "a-thinks")
    assert outcome.tokens == [Token("hm", "thought"), Token("Yes.")]


async def test_leaving_ends_the_upstreams_work(upstream: ScriptedUpstream, provider: AnthropicProvider) -> None:
    upstream.script("a-left", Script(tokens=1000, delay_seconds=0.02))
    async with aclosing(provider.generate(asked("a-left"))) as events:
        await anext(events)
    await asyncio.sleep(0)
    assert (await closed(upstream, "a-left")).tokens < 1000
