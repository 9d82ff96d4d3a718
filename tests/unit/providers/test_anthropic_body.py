"""OpenAI's requests in Anthropic's terms: what is carried, under which name, and what is refused."""

import contextlib
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.providers.anthropic_body import MAX_TOKENS, messages_body
from app.providers.base import GenerationRequest

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
FUNCTION = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}
SIGNED = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}


def body(messages: list[dict[str, Any]] | None = None, **extra: Any) -> dict[str, Any]:
    fields = {name: extra.pop(name) for name in ("max_tokens", "temperature") if name in extra}
    return messages_body(GenerationRequest("m", [USER] if messages is None else messages, extra=extra, **fields))


def turns(*messages: dict[str, Any]) -> Any:
    return body(list(messages))["messages"]


def refused(messages: list[dict[str, Any]] | None = None, **extra: Any) -> str:
    """The name of the field that the refusal begins with."""
    with pytest.raises(InvalidRequest) as caught:
        body(messages, **extra)
    return caught.value.message.partition(":")[0]


def test_a_plain_question_stays_plain() -> None:
    assert body() == {"max_tokens": MAX_TOKENS, "messages": [USER]}


def test_numbers_keep_their_names() -> None:
    assert body(max_tokens=5, temperature=0.5, top_p=0.9) == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "messages": [USER],
    }


def test_instructions_are_a_field() -> None:
    system = {"role": "system", "content": "Be brief."}
    developer = {"role": "developer", "content": [{"type": "text", "text": "Rhyme."}]}
    assert body([system, USER])["system"] == "Be brief."
    assert body([system, developer, USER])["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Rhyme."},
    ]


def test_tool_calls_and_their_results_are_blocks() -> None:
    asked = {"role": "assistant", "content": "I look.", "tool_calls": [CALL, {**CALL, "id": "call_2"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("call_1", "call_2")]
    use = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Köln"}}
    assert turns(USER, asked, *results, {"role": "user", "content": "And now?"}) == [
        USER,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use, {**use, "id": "call_2"}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "call_1"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "call_2"},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]


def test_thoughts_that_came_with_a_call_go_back_before_it() -> None:
    signed = {**CALL, "extra_content": {"anthropic": {"thinking": [SIGNED]}}}
    (_, turn) = turns(USER, {"role": "assistant", "content": "I look.", "tool_calls": [signed]})
    assert [block["type"] for block in turn["content"]] == ["thinking", "text", "tool_use"]
    assert turn["content"][0] == SIGNED


def test_an_id_that_the_api_would_refuse_is_changed_alike_in_call_and_result() -> None:
    asked = {"role": "assistant", "tool_calls": [{**CALL, "id": "functions.weather:0"}]}
    _, called, answered = turns(USER, asked, {"role": "tool", "tool_call_id": "functions.weather:0", "content": "x"})
    assert called["content"][0]["id"] == answered["content"][0]["tool_use_id"] == "functions_weather_0"


def test_turns_of_one_side_become_one() -> None:
    assert turns(USER, USER) == [{"role": "user", "content": [{"type": "text", "text": "Hello"}] * 2}]


def test_messages_that_say_nothing_are_left_out() -> None:
    for empty in ({"role": "assistant", "content": ""}, {"role": "assistant", "content": None}):
        assert turns(USER, empty) == [USER]


def test_images_and_files_have_their_bytes_or_their_address() -> None:
    (turn,) = turns(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://example.test/a.png", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
                {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
            ],
        }
    )
    assert turn["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
        {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
    ]


def test_functions_are_tools() -> None:
    tool = {"name": "weather", "description": "Tells it.", "input_schema": FUNCTION["parameters"]}
    assert body(tools=[{"type": "function", "function": FUNCTION}])["tools"] == [tool]
    assert body(tools=[{"type": "function", "function": {"name": "now"}}])["tools"] == [
        {"name": "now", "input_schema": {"type": "object", "properties": {}}}
    ]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_a_choice_of_tools_has_its_counterpart(given: dict[str, Any], made: dict[str, Any] | None) -> None:
    assert body(tools=[{"type": "function", "function": FUNCTION}], **given).get("tool_choice") == made


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"stop": "\n\n"}, {"stop_sequences": ["\n\n"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        ),
        ({"response_format": {"type": "text"}}, {}),
        ({"thinking": {"type": "adaptive"}, "top_k": 3}, {"thinking": {"type": "adaptive"}, "top_k": 3}),
        (
            {"store": True, "metadata": {"a": "b"}, "service_tier": "flex", "stream_options": {"include_usage": True}},
            {},
        ),
        ({"n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}, {}),
        ({"seed": None, "of_tomorrow": None}, {}),
    ],
)
def test_options_have_their_counterparts_or_no_effect(given: dict[str, Any], made: dict[str, Any]) -> None:
    assert body(**given) == {"max_tokens": MAX_TOKENS, "messages": [USER]} | made


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"temperature": 1.5}, "temperature"),
        ({"seed": 3}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [FUNCTION]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "all"}, "tool_choice"),
        ({"of_tomorrow": 1}, "of_tomorrow"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(extra: dict[str, Any], field: str) -> None:
    assert refused(**extra) == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "system", "content": "late"}, "messages.1.role"),
        ({"role": "function", "name": "f", "content": "x"}, "messages.1.role"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages.1.function_call"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}, "messages.1.tool_calls.0"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]},
            "messages.1.tool_calls.0.function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]},
            "messages.1.tool_calls.0.function.arguments",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages.1.content.0.type"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}, "messages.1.content.0"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "messages.1.content.0"),
    ],
)
def test_a_part_that_has_no_counterpart_is_refused_by_its_place(message: dict[str, Any], field: str) -> None:
    assert refused([USER, message]) == field


JUNK: list[Any] = [None, True, 3, "x", [], ["x"], [3], [[]], {}, {"type": []}, {"type": "function"}, [{"type": []}]]
FIELDS = ["tools", "tool_choice", "stop", "user", "response_format", "reasoning_effort", "output_config", "thinking"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_with_anything_in_it_is_carried_or_refused(field: str) -> None:
    for junk in JUNK:
        accepted_or_refused([USER], **{field: junk})
        accepted_or_refused([USER], tools=[{"type": "function", "function": FUNCTION | {field: junk}}])
        tools = {"tools": [{"type": "function", "function": FUNCTION}]}
        accepted_or_refused([USER], **(tools | {field: {"function": junk}}))
        accepted_or_refused([USER], response_format={"type": "json_schema", "json_schema": junk})


@pytest.mark.parametrize("field", ["content", "tool_calls", "tool_call_id", "function_call", "name"])
def test_a_message_with_anything_in_it_is_carried_or_refused(field: str) -> None:
    for role in ("user", "assistant", "tool"):
        for junk in JUNK:
            message = {"role": role, "content": "a", "tool_calls": [CALL], field: junk}
            if field != "content" or junk is None or isinstance(junk, str):  # the surface has seen to its type
                accepted_or_refused([USER, message])
            call = CALL | {"function": junk, "extra_content": junk}
            accepted_or_refused([USER, {"role": role, "content": "a", "tool_calls": [call]}])
            accepted_or_refused([USER, {"role": role, "tool_calls": [CALL | {"extra_content": {"anthropic": junk}}]}])
            for kind in ("text", "refusal", "image_url", "file"):
                accepted_or_refused([USER, {"role": role, "content": [{"type": kind, kind: junk}]}])


def accepted_or_refused(messages: list[dict[str, Any]], **extra: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        body(messages, **extra)
