"""The unmodified OpenAI SDK against /v1, sync and async, in both modes: we are to it the API that it is written for."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage

from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script

HEARTBEAT_SECONDS = 0.5
SILENT_SECONDS = 1.7
CALL_SECONDS_MAX = 20.0

Flavour = Literal["sync", "async"]
every_flavour = pytest.mark.parametrize("flavour", ["sync", "async"])
every_mode = pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])

QUESTION: Any = [{"role": "user", "content": "Hello"}]
AT_ONCE = {"simulator": {"seed": 7, "tokens": 12, "tokens_per_second": 0, "first_token_ms": 0}}


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    with Chain(env, workers=2) as running:
        yield running


@dataclass
class Said:
    """What a caller has at the end, whichever way it came."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: CompletionUsage | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def add(self, chunk: ChatCompletionChunk) -> None:
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            self.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            self.finish_reason = choice.finish_reason or self.finish_reason
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                whole = self.calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                whole["id"] += call.id or ""
                whole["name"] += call.function.name or ""
                whole["arguments"] += call.function.arguments or ""

    @classmethod
    def of(cls, whole: ChatCompletion) -> "Said":
        (choice,) = whole.choices
        message = choice.message
        calls = {
            index: {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
            for index, call in enumerate(message.tool_calls or ())
            if call.type == "function"
        }
        reasoning = getattr(message, "reasoning_content", "")
        return cls(message.content or "", reasoning, choice.finish_reason, whole.usage, calls)


class Client:
    """The SDK as a person would use it, in either flavour."""

    def __init__(self, url: str, flavour: Flavour, max_retries: int = 0) -> None:
        self._settings: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": "unused",
            "max_retries": max_retries,
            "timeout": CALL_SECONDS_MAX,
        }
        self._flavour = flavour
        self.said = Said()
        """What came so far, also of a call that raises in the end."""

    def complete(self, model: str, *, stream: bool, messages: Any = None, **options: Any) -> Said:
        request = {"model": model, "messages": QUESTION if messages is None else messages, "stream": stream, **options}
        if self._flavour == "async":
            return asyncio.run(self._complete(request))
        with openai.OpenAI(**self._settings) as client:
            answer = client.chat.completions.create(**request)
            if not request["stream"]:
                return Said.of(answer)
            for chunk in answer:
                self.said.add(chunk)
            return self.said

    async def _complete(self, request: dict[str, Any]) -> Said:
        async with openai.AsyncOpenAI(**self._settings) as client:
            answer = await client.chat.completions.create(**request)
            if not request["stream"]:
                return Said.of(answer)
            async for chunk in answer:
                self.said.add(chunk)
            return self.said


@every_mode
@every_flavour
def test_an_answer_has_its_text_and_its_finish_reason(
    flavour: Flavour, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    script = upstream.script(model, tokens=["He", "llo ", "wörld ", "🌊"], finish_reason="length", delay_seconds=0.01)
    said = Client(chain.url, flavour).complete(model, stream=stream)
    assert said.text == script.text
    assert said.finish_reason == "length"


@every_flavour
def test_the_simulator_says_the_same_in_both_modes(flavour: Flavour, chain: Chain) -> None:
    client = Client(chain.url, flavour)
    streamed = client.complete("simulator", stream=True, extra_body=AT_ONCE)
    batch = client.complete("simulator", stream=False, extra_body=AT_ONCE)
    assert streamed.text == batch.text
    assert len(batch.text.split()) == 12
    assert streamed.finish_reason == batch.finish_reason == "stop"


@every_flavour
def test_usage_comes_when_it_is_asked_for(
    flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, tokens=5, usage=True)
    client = Client(chain.url, flavour)
    assert client.complete(model, stream=True).usage is None
    streamed = client.complete(model, stream=True, stream_options={"include_usage": True}).usage
    batch = client.complete(model, stream=False).usage
    assert streamed is not None
    assert streamed == batch
    assert (streamed.prompt_tokens, streamed.completion_tokens, streamed.total_tokens) == (7, 5, 12)


@every_mode
@every_flavour
def test_tool_calls_come_whole(
    flavour: Flavour, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    second = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city": ', '"Köln"}')]
    upstream.script(
        model, tokens=0, tool_calls=[[first], [pieces[0]], [pieces[1]], [second]], finish_reason="tool_calls"
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    said = Client(chain.url, flavour).complete(model, stream=stream, tools=tools)
    assert said.calls == {
        0: {"id": "call_1", "name": "weather", "arguments": '{"city": "Köln"}'},
        1: {"id": "call_2", "name": "time", "arguments": "{}"},
    }
    assert said.finish_reason == "tool_calls"
    assert upstream.requests(model)[0].body["tools"] == tools


@every_mode
@every_flavour
def test_thoughts_come_beside_the_text(
    flavour: Flavour, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, reasoning=["Let me ", "see."], tokens=["Yes."])
    said = Client(chain.url, flavour).complete(model, stream=stream)
    assert (said.reasoning, said.text) == ("Let me see.", "Yes.")


@every_mode
@every_flavour
def test_unknown_fields_are_taken_and_passed_on(
    flavour: Flavour, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model)
    options = {"top_p": 0.5, "seed": 3, "user": "somebody", "extra_body": {"of_tomorrow": {"a": [1]}}}
    assert Client(chain.url, flavour).complete(model, stream=stream, **options).text
    sent = upstream.requests(model)[0].body
    assert {name: sent[name] for name in ("top_p", "seed", "user", "of_tomorrow")} == {
        "top_p": 0.5,
        "seed": 3,
        "user": "somebody",
        "of_tomorrow": {"a": [1]},
    }


@every_mode
@every_flavour
def test_a_model_that_is_not_there_is_not_found(flavour: Flavour, stream: bool, chain: Chain) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        Client(chain.url, flavour).complete("gpt-nothing", stream=stream)
    assert caught.value.code == "model_not_found"
    assert caught.value.request_id


@every_mode
@every_flavour
@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"temperature": 3}, "temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_out_is_a_bad_request_that_names_the_field(
    options: dict[str, Any], param: str, flavour: Flavour, stream: bool, chain: Chain
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        Client(chain.url, flavour).complete("simulator", stream=stream, **options)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@every_mode
@every_flavour
@pytest.mark.parametrize(
    ("script", "error", "code"),
    [
        (Script(status=401), openai.AuthenticationError, "upstream_unauthorized"),
        (Script(status=429, headers={"Retry-After": "7"}), openai.RateLimitError, "upstream_rate_limited"),
        (Script(status=500), openai.InternalServerError, "upstream_error"),
        (Script(die_after=0), openai.InternalServerError, "upstream_truncated"),
    ],
    ids=["401", "429", "500", "cut"],
)
def test_the_upstream_s_refusal_is_the_sdk_s_exception(
    script: Script,
    error: type[openai.APIStatusError],
    code: str,
    flavour: Flavour,
    stream: bool,
    chain: Chain,
    upstream: ScriptedUpstream,
    model: str,
) -> None:
    upstream.script(model, script)
    with pytest.raises(error) as caught:
        Client(chain.url, flavour).complete(model, stream=stream)
    assert caught.value.code == code
    assert caught.value.response.headers.get("retry-after") == script.headers.get("Retry-After")


@every_mode
@every_flavour
@pytest.mark.parametrize("status", [429, 500])
def test_the_sdk_s_own_retry_gets_the_answer(
    status: int, flavour: Flavour, stream: bool, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    """One more generation, begun by the SDK: we ourselves never send a request twice."""
    upstream.script(model, Script(status=status, headers={"retry-after-ms": "10"}), Script())
    said = Client(chain.url, flavour, max_retries=2).complete(model, stream=stream)
    assert said.text == Script().text
    assert len(upstream.requests(model)) == 2


@every_flavour
@pytest.mark.parametrize(
    "script", [Script(error_at=3), Script(die_after=3), Script(die_after=3, how="fin")], ids=["error", "cut", "FIN"]
)
def test_a_failure_mid_stream_raises_behind_the_text(
    script: Script, flavour: Flavour, chain: Chain, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, script)
    client = Client(chain.url, flavour, max_retries=2)
    with pytest.raises(openai.APIError) as caught:
        client.complete(model, stream=True)
    assert client.said.text == "tok0 tok1 tok2 "
    assert client.said.finish_reason is None
    assert caught.value.code in ("upstream_error", "upstream_truncated")
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
    said = Client(chain.url, flavour).complete(model, stream=True)
    assert said.text == script.text
    assert said.finish_reason == "stop"


def test_leaving_the_stream_ends_the_generation(chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(model, tokens=1000, delay_seconds=0.02)
    with openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused") as client:
        with client.chat.completions.create(model=model, messages=QUESTION, stream=True) as answer:
            assert len([chunk for chunk, _ in zip(answer, range(5), strict=False)]) == 5
        assert upstream.wait_closed(model, seconds=1).tokens < 1000


def test_the_sdk_s_stream_helper_sees_a_whole_answer(chain: Chain, upstream: ScriptedUpstream, model: str) -> None:
    upstream.script(model, tokens=5)
    with (
        openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused") as client,
        client.chat.completions.stream(model=model, messages=QUESTION) as answer,
    ):
        kinds = {event.type for event in answer}
        whole = answer.get_final_completion()
    assert "content.done" in kinds
    assert whole.choices[0].message.content == Script(tokens=5).text


@every_flavour
def test_the_models_are_listed(flavour: Flavour, chain: Chain) -> None:
    names = {"simulator", *(f"model-{number}" for number in range(Models.COUNT))}
    if flavour == "sync":
        with openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused") as client:
            assert {model.id for model in client.models.list()} == names
            assert client.models.retrieve("simulator").id == "simulator"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("gpt-nothing")
        return

    async def listed() -> set[str]:
        async with openai.AsyncOpenAI(base_url=f"{chain.url}/v1", api_key="unused") as client:
            return {model.id async for model in client.models.list()}

    assert asyncio.run(listed()) == names
