"""The unmodified OpenAI SDK over an upstream that speaks Anthropic's protocol: it cannot tell."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_messages import frame, text_block, thinking_block, tool_block
from tests.support.upstream_script import Script

QUESTION: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
every_mode = pytest.mark.parametrize("stream", [True, False], ids=["stream", "batch"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    return Models(tmp_path_factory.mktemp("sdk"), upstream, provider="anthropic")


@pytest.fixture(scope="module")
def client(models: Models) -> Iterator[openai.OpenAI]:
    with (
        Chain({"SLUICE_CONFIG": str(models.path)}, workers=1) as chain,
        openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused", max_retries=0, timeout=20) as client,
    ):
        yield client


def ask(client: openai.OpenAI, model: str, *, stream: bool, messages: Any = QUESTION, **options: Any) -> Any:
    """The completion: as it came, or put together by the SDK's own stream helper."""
    request = {"model": model, "messages": messages, **options}
    if not stream:
        return client.chat.completions.create(**request)
    with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as answer:
        return answer.get_final_completion()


@every_mode
def test_an_answer_has_its_text_its_reason_and_its_usage(
    stream: bool, client: openai.OpenAI, model: str, upstream: ScriptedUpstream
) -> None:
    script = upstream.script(model, tokens=["He", "llo ", "🌊"], usage_fields={"cache_read_input_tokens": 100})
    whole = ask(client, model, stream=stream, max_tokens=3, stop=["\n\n"])
    (choice,) = whole.choices
    assert (choice.message.content, choice.finish_reason) == (script.text, "stop")
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (107, 3, 110)
    assert upstream.requests(model)[-1].body == {
        "model": model,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 3,
        "stop_sequences": ["\n\n"],
        "stream": True,
    }


@every_mode
def test_thoughts_come_beside_the_text(
    stream: bool, client: openai.OpenAI, model: str, upstream: ScriptedUpstream
) -> None:
    upstream.script(model, reasoning=["Let me ", "see."], tokens=["Yes."])
    message = ask(client, model, stream=stream).choices[0].message
    assert (message.reasoning_content, message.content) == ("Let me see.", "Yes.")


@every_mode
def test_tools_are_called_and_their_results_go_back_with_the_signed_thoughts(
    stream: bool, client: openai.OpenAI, model: str, upstream: ScriptedUpstream
) -> None:
    events = [
        *thinking_block(0, "Let me see.", signature="c2ln"),
        *text_block(1, "I look."),
        *tool_block(2, "toolu_1", "weather", '{"city": ', '"Köln"}'),
        *tool_block(3, "toolu_2", "weather"),
    ]
    upstream.script(model, Script(events=events, finish_reason="tool_calls"), Script(tokens=["Rain."]))
    options: Any = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True}
    asked = ask(client, model, stream=stream, **options).choices[0]
    assert asked.finish_reason == "tool_calls"
    calls = [(call.id, call.function.name, call.function.arguments) for call in asked.message.tool_calls]
    assert calls == [("toolu_1", "weather", '{"city": "Köln"}'), ("toolu_2", "weather", "{}")]
    results = [{"role": "tool", "tool_call_id": call[0], "content": "Rain."} for call in calls]
    said = asked.message.to_dict()
    said.pop("parsed", None)
    messages = [*QUESTION, said, *results]
    assert ask(client, model, stream=stream, messages=messages, tools=TOOLS).choices[0].message.content == "Rain."
    first, second = (entry.body for entry in upstream.requests(model))
    assert (first["tools"][0]["name"], first["tool_choice"]) == ("weather", {"type": "any"})
    _, turn, answered = second["messages"]
    assert turn["content"][0] == {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
    assert [block["type"] for block in turn["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["tool_use_id"] for block in answered["content"]] == ["toolu_1", "toolu_2"]


@every_mode
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": 3}, "seed"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {"messages": [*QUESTION, {"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages.2.content.0.type",
        ),
        ({"extra_body": {"of_tomorrow": 1}}, "of_tomorrow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_upstreams_protocol_cannot_say_is_a_bad_request_that_names_the_field(
    options: dict[str, Any], field: str, stream: bool, client: openai.OpenAI, model: str, upstream: ScriptedUpstream
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, stream=stream, **options)
    assert f"{field}:" in caught.value.message
    assert not upstream.requests(model)


@every_mode
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (529, openai.InternalServerError),
    ],
)
def test_the_upstream_s_refusal_is_the_sdk_s_exception(
    status: int,
    error: type[openai.APIStatusError],
    stream: bool,
    client: openai.OpenAI,
    model: str,
    upstream: ScriptedUpstream,
) -> None:
    upstream.script(model, status=status, headers={"retry-after": "7"})
    with pytest.raises(error) as caught:
        ask(client, model, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "script",
    [Script(error_at=3, error_frame=frame(OVERLOADED).decode().rstrip()), Script(die_after=3)],
    ids=["error", "cut"],
)
def test_a_failure_mid_stream_raises_behind_the_text(
    script: Script, client: openai.OpenAI, model: str, upstream: ScriptedUpstream
) -> None:
    upstream.script(model, script)
    chunks = client.chat.completions.create(model=model, messages=QUESTION, stream=True)
    assert "".join(next(chunks).choices[0].delta.content or "" for _ in range(4)) == "tok0 tok1 tok2 "
    with pytest.raises(openai.APIError):
        next(chunks)
