"""Bodies of the Responses API as chats: what is carried, what is refused by its name."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.api.responses_chat import echo, extra_of, instructed, messages_of, without_instructions
from app.api.responses_schemas import ResponsesBody
from app.errors import InvalidRequest
from app.providers.base import GenerationRequest

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def body(**fields: Any) -> ResponsesBody:
    return ResponsesBody.model_validate({"model": "m", "input": "Hello", **fields})


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hello", [{"role": "user", "content": "Hello"}]),
        ([{"role": "user", "content": "Hello"}], [{"role": "user", "content": "Hello"}]),
        (
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}] * 2}],
            [{"role": "user", "content": "aa"}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,", "detail": "low"}]}],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}]}],
        ),
        (
            [{"type": "reasoning", "summary": []}, CALL, CALL | {"call_id": "c2"}, OUTPUT],
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
                        for name in ("c1", "c2")
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
            ],
        ),
    ],
)
def test_items_become_messages(given: Any, messages: list[dict[str, Any]]) -> None:
    assert messages_of(given) == messages


def test_a_response_repeats_what_it_was_asked() -> None:
    asked = body(
        instructions="Be brief.",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}}},
        top_p=0.5,
    )
    request = GenerationRequest("m", [*instructed(asked), *messages_of(asked.input)], extra=extra_of(asked))
    assert request.extra["tools"] == [
        {"type": "function", "function": {name: TOOL[name] for name in ("name", "parameters", "strict")}}
    ]
    assert request.extra["response_format"] == {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    said = echo(request)
    assert said["instructions"] == "Be brief."
    assert said["tools"] == [TOOL]
    assert said["tool_choice"] == {"type": "function", "name": "f"}
    assert said["text"] == {"format": {"type": "json_schema", "name": "n", "schema": {}}}
    assert (said["reasoning"]["effort"], said["top_p"]) == ("low", 0.5)
    assert without_instructions(request.messages) == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": [{"type": "web_search_call"}]}, "input.0.type"),
        ({"input": [{"role": "nobody", "content": "a"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "user", "content": 3}]}, "input.0.content"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input.0.call_id"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_a_chat_cannot_have_is_refused_by_its_name(fields: dict[str, Any], field: str) -> None:
    asked = body(**fields)
    with pytest.raises(InvalidRequest) as caught:
        extra_of(asked) or messages_of(asked.input)
    assert caught.value.message.partition(":")[0] == field


JUNK: list[Any] = [None, True, 3, "x", [], ["x"], {}, {"type": []}, [{"type": {}}], {"format": 3}, {"type": "function"}]


@pytest.mark.parametrize("field", ["input", "tools", "tool_choice", "text", "reasoning", "instructions"])
def test_a_field_with_anything_in_it_is_carried_or_refused(field: str) -> None:
    for junk in JUNK:
        for value in (junk, [junk], {"type": junk}, [{"type": "message", "role": junk, "content": junk}]):
            try:
                asked = body(**{field: value})
                messages_of(asked.input)
                extra = extra_of(asked)
            except (ValidationError, InvalidRequest):
                continue
            echo(GenerationRequest("m", messages_of(asked.input), extra=extra))
