"""The unmodified Anthropic SDK against /v1/messages, sync and async, over upstreams of either protocol."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, ToolParam

from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_messages import frame, text_block, thinking_block, tool_block
from tests.support.upstream_script import Script
from tests.support.workers import until_replaced

HEARTBEAT_SECONDS = 0.5
SILENT_SECONDS = 1.7
CALL_SECONDS_MAX = 20.0
CLAUDES = 100

Flavour = Literal["sync", "async"]
every_flavour = pytest.mark.parametrize("flavour", ["sync", "async"])
every_mode = pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])
every_upstream = pytest.mark.parametrize("model", ["anthropic", "openai"], indirect=True)

QUESTION: list[MessageParam] = [{"role": "user", "content": "Hello"}]
AT_ONCE = {"simulator": {"seed": 7, "tokens": 12, "tokens_per_second": 0, "first_token_ms": 0}}
WEATHER: ToolParam = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    """Half of them at an upstream that speaks Anthropic's protocol, half at one that speaks OpenAI's."""
    found = Models(tmp_path_factory.mktemp("sdk"), upstream)
    for number in range(CLAUDES):
        found.add(f"claude-{number}", provider="anthropic")
    return found


@pytest.fixture(scope="module")
def claudes() -> Iterator[str]:
    return (f"claude-{number}" for number in range(CLAUDES))


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    with Chain(env, workers=2) as running:
        yield running


@pytest.fixture
def model(request: pytest.FixtureRequest, models: Models, claudes: Iterator[str]) -> str:
    """A model that nobody asked before, at Anthropic's upstream unless a test says otherwise."""
    return models.unused() if getattr(request, "param", "") == "openai" else next(claudes)


class Client:
    """The SDK as a person would use it, in either flavour."""

    def __init__(self, url: str, flavour: Flavour, max_retries: int = 0) -> None:
        self._settings: dict[str, Any] = {
            "base_url": url,
            "api_key": "unused",
            "max_retries": max_retries,
            "timeout": CALL_SECONDS_MAX,
        }
        self._flavour = flavour
        self.text = ""
        """What came so far, also of a call that raises in the end."""

    def ask(self, model: str, *, stream: bool, messages: Any = None, max_tokens: int = 64, **options: Any) -> Message:
        request = {"model": model, "messages": messages or QUESTION, "max_tokens": max_tokens, **options}
        if self._flavour == "async":
            return asyncio.run(self._ask(request, stream))
        with anthropic.Anthropic(**self._settings) as client:
            if not stream:
                message: Message = client.messages.create(**request)
                return message
            with client.messages.stream(**request) as answer:
                for text in answer.text_stream:
                    self.text += text
                return answer.get_final_message()

    async def _ask(self, request: dict[str, Any], stream: bool) -> Message:
        async with anthropic.AsyncAnthropic(**self._settings) as client:
            if not stream:
                message: Message = await client.messages.create(**request)
                return message
            async with client.messages.stream(**request) as answer:
                async for text in answer.text_stream:
                    self.text += text
                return await answer.get_final_message()


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def kinds(message: Message) -> list[str]:
    return [block.type for block in message.content]


@every_upstream
@every_mode
@every_flavour
def test_an_answer_has_its_text_its_reason_and_its_usage(
    flavour: Flavour, stream: bool, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    script = upstream.script(model, tokens=["He", "llo ", "wörld ", "🌊"], finish_reason="length", usage=True)
    client = Client(chain.url, flavour)
    message = client.ask(model, stream=stream)
    assert text_of(message) == script.text
    assert client.text == (script.text if stream else "")
    assert (message.stop_reason, message.model, message.role) == ("max_tokens", model, "assistant")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 4)
    assert message.id.startswith("msg_")


@every_flavour
def test_the_simulator_says_the_same_in_both_modes(flavour: Flavour, chain: Chain) -> None:
    client = Client(chain.url, flavour)
    streamed = client.ask("simulator", stream=True, extra_body=AT_ONCE)
    batch = client.ask("simulator", stream=False, extra_body=AT_ONCE)
    assert text_of(streamed) == text_of(batch)
    assert len(text_of(batch).split()) == 12
    assert streamed.stop_reason == batch.stop_reason == "end_turn"
    assert streamed.usage == batch.usage


@every_flavour
def test_the_stream_of_raw_events_is_read_too(flavour: Flavour, chain: Chain) -> None:
    request: Any = {"model": "simulator", "messages": QUESTION, "max_tokens": 3, "stream": True, "extra_body": AT_ONCE}
    settings: Any = {"base_url": chain.url, "api_key": "unused"}

    async def types() -> list[str]:
        async with anthropic.AsyncAnthropic(**settings) as client:
            return [event.type async for event in await client.messages.create(**request)]

    if flavour == "async":
        found = asyncio.run(types())
    else:
        with anthropic.Anthropic(**settings) as client:
            found = [event.type for event in client.messages.create(**request)]
    assert found == [
        *("message_start", "content_block_start"),
        *["content_block_delta"] * 3,
        *("content_block_stop", "message_delta", "message_stop"),
    ]


def tool_script(upstream: ScriptedUpstream, model: str) -> None:
    """Says that it looks, and calls two tools: in the protocol that the model's upstream speaks."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city": ', '"Köln"}')]
    second = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    upstream.script(
        model,
        Script(
            tokens=["I ", "look."],
            tool_calls=[[first], [pieces[0]], [pieces[1]], [second]],
            events=[
                *text_block(0, "I ", "look."),
                *tool_block(1, "call_1", "weather", '{"city": ', '"Köln"}'),
                *tool_block(2, "call_2", "now"),
            ],
            finish_reason="tool_calls",
        ),
        Script(tokens=["Rain."]),
    )


@every_upstream
@every_flavour
def test_tools_are_called_and_their_results_go_back(
    flavour: Flavour, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    tool_script(upstream, model)
    client = Client(chain.url, flavour)
    asked = client.ask(model, stream=True, tools=[WEATHER], tool_choice={"type": "any"})
    assert kinds(asked) == ["text", "tool_use", "tool_use"]
    assert asked.stop_reason == "tool_use"
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert [(call.id, call.name, call.input) for call in calls] == [
        ("call_1", "weather", {"city": "Köln"}),
        ("call_2", "now", {}),
    ]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain."} for call in calls]
    messages = [*QUESTION, {"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    assert text_of(client.ask(model, stream=True, messages=messages, tools=[WEATHER])) == "Rain."
    first, second = (entry.body for entry in upstream.requests(model))
    if model.startswith("claude"):
        assert (first["tools"], first["tool_choice"]) == ([WEATHER], {"type": "any"})
        assert second["messages"][-1]["content"] == results
    else:
        assert first["tools"][0]["function"]["name"] == "weather"
        assert first["tool_choice"] == "required"
        assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool", "tool"]
        assert [call["id"] for call in second["messages"][1]["tool_calls"]] == ["call_1", "call_2"]


@every_upstream
@every_flavour
def test_a_whole_answer_has_the_calls_too(
    flavour: Flavour, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    tool_script(upstream, model)
    message = Client(chain.url, flavour).ask(model, stream=False, tools=[WEATHER])
    assert kinds(message) == ["text", "tool_use", "tool_use"]


@every_upstream
@every_mode
@every_flavour
def test_thinking_comes_in_blocks_of_its_own(
    flavour: Flavour, stream: bool, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    upstream.script(model, reasoning=["Let me ", "see."], tokens=["Yes."])
    message = Client(chain.url, flavour).ask(model, stream=stream, thinking={"type": "adaptive"})
    thinking, text = message.content
    assert (thinking.type, text.type) == ("thinking", "text")
    assert thinking.type == "thinking"
    assert thinking.thinking == "Let me see."


@every_mode
@every_flavour
def test_signed_thoughts_go_back_as_they_came_with_the_results_of_tools(
    flavour: Flavour, stream: bool, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    """The API refuses the results of a tool without the thoughts, signed, that led to its call."""
    events = [
        *thinking_block(0, "Let me ", "see.", signature="c2ln"),
        *text_block(1, "I look."),
        *tool_block(2, "call_1", "weather", "{}"),
    ]
    upstream.script(model, Script(events=events, finish_reason="tool_calls"), Script(tokens=["Rain."]))
    options: dict[str, Any] = {"tools": [WEATHER], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    client = Client(chain.url, flavour)
    asked = client.ask(model, stream=stream, max_tokens=2048, **options)
    assert kinds(asked) == ["thinking", "text", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "Rain."}
    messages = [*QUESTION, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    client.ask(model, stream=stream, messages=messages, max_tokens=2048, **options)
    sent = upstream.requests(model)[-1].body
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
    assert sent["thinking"] == options["thinking"]


@every_flavour
def test_a_request_reaches_its_own_protocol_unchanged(
    flavour: Flavour, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    document = {"type": "document", "source": {"type": "url", "url": "https://example.test/a.pdf"}}
    messages = [{"role": "user", "content": [image, document, cached]}]
    options: dict[str, Any] = {
        "system": [cached],
        "stop_sequences": ["\n\n"],
        "metadata": {"user_id": "u-1"},
        "output_config": {"effort": "max"},
        "tools": [WEATHER | {"cache_control": {"type": "ephemeral"}}],
    }
    Client(chain.url, flavour).ask(
        model,
        stream=True,
        messages=messages,
        extra_headers={"anthropic-beta": "a-1"},
        extra_body={"of_tomorrow": {"a": [1]}},
        **options,
    )
    sent = upstream.requests(model)[-1]
    assert sent.body == {
        "model": model,
        "messages": messages,
        "max_tokens": 64,
        "stream": True,
        "of_tomorrow": {"a": [1]},
        **options,
    }
    assert sent.headers["anthropic-beta"] == "a-1"
    assert "x-api-key" not in sent.headers, "the caller's key is for us"


def test_what_was_read_from_the_cache_counts_as_input(chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(model, usage_fields={"cache_read_input_tokens": 100, "cache_creation_input_tokens": 20})
    assert Client(chain.url, "sync").ask(model, stream=True).usage.input_tokens == 127


@every_mode
@every_flavour
def test_a_model_that_is_not_there_is_not_found(flavour: Flavour, stream: bool, chain: Chain) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        Client(chain.url, flavour).ask("claude-nothing", stream=stream)
    assert (caught.value.type, caught.value.error_code) == ("not_found_error", "model_not_found")
    assert caught.value.request_id


@every_mode
@every_flavour
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 3}}, "temperature"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_out_is_a_bad_request_that_names_the_field(
    options: dict[str, Any], field: str, flavour: Flavour, stream: bool, chain: Chain
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        Client(chain.url, flavour).ask("simulator", stream=stream, **options)
    assert caught.value.type == "invalid_request_error"
    assert (caught.value.api_message or "").startswith(f"{field}:")


@every_mode
@pytest.mark.parametrize("model", ["openai"], indirect=True)
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages.0.content.0"),
        ({"extra_body": {"of_tomorrow": 1}}, "of_tomorrow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_upstreams_protocol_cannot_say_is_a_bad_request_that_names_the_field(
    options: dict[str, Any], field: str, stream: bool, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        Client(chain.url, "sync").ask(model, stream=stream, **options)
    assert (caught.value.api_message or "").startswith(f"{field}:")
    assert not upstream.requests(model)


@every_upstream
@every_mode
@every_flavour
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(status=401), anthropic.AuthenticationError),
        (Script(status=404), anthropic.NotFoundError),
        (Script(status=429, headers={"Retry-After": "7"}), anthropic.RateLimitError),
        (Script(status=500), anthropic.InternalServerError),
        (Script(status=529), anthropic.OverloadedError),
        (Script(die_after=0), anthropic.InternalServerError),
    ],
    ids=["401", "404", "429", "500", "529", "cut"],
)
def test_the_upstream_s_refusal_is_the_sdk_s_exception(
    script: Script,
    error: type[anthropic.APIStatusError],
    flavour: Flavour,
    stream: bool,
    model: str,
    chain: Chain,
    upstream: ScriptedUpstream,
) -> None:
    upstream.script(model, script)
    with pytest.raises(error) as caught:
        Client(chain.url, flavour).ask(model, stream=stream)
    assert caught.value.response.headers.get("retry-after") == script.headers.get("Retry-After")
    assert caught.value.request_id


@every_mode
def test_the_sdk_s_own_retry_gets_the_answer(
    stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, Script(status=529, headers={"retry-after-ms": "10"}), Script())
    message = Client(chain.url, "sync", max_retries=2).ask(model, stream=stream)
    assert text_of(message) == Script().text
    assert len(upstream.requests(model)) == 2


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@every_flavour
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(error_at=3, error_frame=frame(OVERLOADED).decode().rstrip()), "overloaded_error"),
        (Script(die_after=3), "api_error"),
        (Script(die_after=3, how="fin"), "api_error"),
    ],
    ids=["error", "cut", "FIN"],
)
def test_a_failure_mid_stream_raises_behind_the_text(
    script: Script, kind: str, flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    client = Client(chain.url, flavour, max_retries=2)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.ask(model, stream=True)
    assert client.text == "tok0 tok1 tok2 "
    assert caught.value.type == kind
    assert len(upstream.requests(model)) == 1


@every_flavour
@pytest.mark.parametrize(
    "script",
    [
        Script(headers_delay_seconds=SILENT_SECONDS),
        Script(first_delay_seconds=SILENT_SECONDS),
        Script(tokens=2, delay_seconds=SILENT_SECONDS),
    ],
    ids=["headers", "first token", "between"],
)
def test_heartbeats_do_not_show(
    script: Script, flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    assert text_of(Client(chain.url, flavour).ask(model, stream=True)) == script.text


@every_flavour
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(headers_delay_seconds=SILENT_SECONDS, status=429), "rate_limit_error"),
        (Script(first_delay_seconds=SILENT_SECONDS, die_after=0), "api_error"),
    ],
    ids=["429", "cut"],
)
def test_a_failure_behind_a_heartbeat_raises_too(
    script: Script, kind: str, flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    with pytest.raises(anthropic.APIStatusError) as caught:
        Client(chain.url, flavour).ask(model, stream=True)
    assert caught.value.type == kind


@every_flavour
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_that_ends_mid_stream_raises(
    number: signal.Signals, flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    """Of an answer that just ended the SDK would say nothing."""
    upstream.script(model, tokens=600, delay_seconds=0.05)
    workers = set(chain.worker_pids())
    client = Client(chain.url, flavour)

    def end_workers() -> None:
        upstream.wait_tokens(model, 3)
        for pid in workers:
            os.kill(pid, number)

    with ThreadPoolExecutor(1) as others:
        others.submit(end_workers)
        with pytest.raises((anthropic.APIError, httpx2.TransportError)) as caught:
            client.ask(model, stream=True)
    until_replaced(chain, workers)
    assert "tok0" in client.text
    if number is signal.SIGTERM:
        assert isinstance(caught.value, anthropic.APIStatusError)
        assert (caught.value.type, caught.value.error_code) == ("overloaded_error", "server_shutting_down")


def test_leaving_the_stream_ends_the_generation(chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(model, tokens=1000, delay_seconds=0.02)
    with anthropic.Anthropic(base_url=chain.url, api_key="unused") as client:
        with client.messages.stream(model=model, messages=QUESTION, max_tokens=9) as answer:
            assert len([text for text, _ in zip(answer.text_stream, range(5), strict=False)]) == 5
        assert upstream.wait_closed(model, seconds=1).tokens < 1000


@every_flavour
def test_the_models_are_listed(flavour: Flavour, chain: Chain) -> None:
    settings: Any = {"base_url": chain.url, "api_key": "unused"}

    async def listed() -> set[str]:
        async with anthropic.AsyncAnthropic(**settings) as client:
            return {model.id async for model in client.models.list()}

    if flavour == "async":
        names = asyncio.run(listed())
    else:
        with anthropic.Anthropic(**settings) as client:
            names = {model.id for model in client.models.list()}
            one = client.models.retrieve("simulator")
            assert (one.type, one.display_name, one.created_at.year) == ("model", "simulator", 1970)
            with pytest.raises(anthropic.NotFoundError) as caught:
                client.models.retrieve("claude-nothing")
            assert caught.value.type == "not_found_error"
    assert {"simulator", "claude-0", "model-0"} <= names
    assert len(names) == 1 + Models.COUNT + CLAUDES
