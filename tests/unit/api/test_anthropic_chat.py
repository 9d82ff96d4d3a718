"""Anthropic's requests in OpenAI's terms: what is carried, what is listed as left out, and what is refused at once."""

import contextlib
from typing import Any

import pydantic
import pytest

from app.api.anthropic_chat import Chat
from app.api.anthropic_schemas import MessagesBody
from app.errors import InvalidRequest

USER = {"role": "user", "content": "Hello"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain."}
TEXT = {"type": "text", "text": "And now?"}
TOOL = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}


def chat(*messages: dict[str, Any], **fields: Any) -> Chat:
    return Chat({"messages": list(messages) or [USER], **fields})


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def asked(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def left(found: Chat) -> list[str]:
    """The names of what is left out."""
    return [reason.partition(":")[0] for reason in found.uncarried]


def test_a_plain_question_stays_plain() -> None:
    found = chat()
    assert (found.messages, found.extra, found.uncarried) == ([USER], {}, [])


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be brief.", "cache_control": {}}]])
def test_instructions_are_the_first_message(system: Any) -> None:
    assert chat(system=system).messages == [{"role": "system", "content": "Be brief."}, USER]


def test_instructions_in_parts_are_one_text() -> None:
    found = chat(system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Rhyme."}])
    assert found.messages[0]["content"] == "Be brief.\n\nRhyme."


def test_instructions_later_on_stay_where_they_are() -> None:
    assert chat(USER, {"role": "system", "content": "Rhyme."}, USER).messages[1]["role"] == "system"


def test_calls_and_results_are_messages_of_their_own() -> None:
    found = chat(USER, said({"type": "text", "text": "I look."}, USE), asked(RESULT, TEXT))
    function = {"name": "weather", "arguments": '{"city":"Köln"}'}
    assert found.messages == [
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "Rain."},
        {"role": "user", "content": "And now?"},
    ]
    assert not found.uncarried


def test_a_result_that_is_an_error_says_so() -> None:
    found = chat(USER, said(USE), asked({**RESULT, "is_error": True}))
    assert found.messages[-1]["content"] == "Error: Rain."


def test_a_result_may_have_no_content_or_several_texts() -> None:
    assert chat(asked({**RESULT, "content": None})).messages[-1]["content"] == ""
    assert chat(asked({**RESULT, "content": [TEXT, TEXT]})).messages[-1]["content"] == "And now?\n\nAnd now?"


def test_thoughts_are_nobody_elses() -> None:
    found = chat(USER, said({"type": "thinking", "thinking": "hm", "signature": "s"}, USE), asked(RESULT))
    assert found.messages[1]["content"] is None
    assert not found.uncarried


def test_images_and_documents_are_parts() -> None:
    found = chat(
        asked(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Rain."}},
            {**TEXT, "cache_control": {"type": "ephemeral"}},
        )
    )
    assert found.messages[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,aGk="}},
        {"type": "text", "text": "Rain."},
        TEXT,
    ]
    assert not found.uncarried


def test_tools_are_functions() -> None:
    found = chat(tools=[{**TOOL, "cache_control": {"type": "ephemeral"}, "type": "custom"}])
    function = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}
    assert found.extra == {"tools": [{"type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "weather"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
    ],
)
def test_a_choice_of_tools_has_its_counterpart(choice: dict[str, Any], made: dict[str, Any]) -> None:
    extra = chat(tools=[TOOL], tool_choice=choice).extra
    extra.pop("tools")
    assert extra == made


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"stop_sequences": ["a"], "top_p": 0.5, "top_k": 3}, {"stop": ["a"], "top_p": 0.5, "top_k": 3}),
        ({"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
        ({"output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "disabled"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}}, {}),
        ({"temperature": 0.5, "inference_geo": None}, {}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_options_have_their_counterparts_or_no_effect(fields: dict[str, Any], made: dict[str, Any]) -> None:
    found = chat(**fields)
    assert (found.extra, found.uncarried) == (made, [])


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, ["thinking"]),
        ({"output_config": {"effort": "max", "of_tomorrow": 1}}, ["output_config.effort", "output_config.of_tomorrow"]),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, ["tools.1.type"]),
        ({"speed": "fast", "of_tomorrow": 1, "context_management": {}}, ["context_management", "of_tomorrow", "speed"]),
    ],
)
def test_fields_without_a_counterpart_are_listed(fields: dict[str, Any], names: list[str]) -> None:
    assert left(chat(**fields)) == names


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (asked({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages.0.content.0"),
        (asked({"type": "document", "source": {"type": "url", "url": "https://a.test"}}), "messages.0.content.0"),
        (asked({"type": "search_result"}), "messages.0.content.0"),
        (asked({**RESULT, "content": [{"type": "image", "source": {}}]}), "messages.0.content.0.content.0"),
        (said({"type": "server_tool_use"}), "messages.0.content.0"),
    ],
)
def test_blocks_without_a_counterpart_are_listed(message: dict[str, Any], name: str) -> None:
    assert left(chat(message, USER)) == [name]


def test_the_beginning_of_an_answer_is_listed() -> None:
    assert left(chat(USER, {"role": "assistant", "content": "It is"})) == ["messages.1"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "all"}}, "tool_choice.type"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"messages": [asked({"type": "text"})]}, "messages.0.content.0.text"),
        ({"messages": [asked({"type": "tool_result"})]}, "messages.0.content.0.tool_use_id"),
        ({"messages": [said({"type": "tool_use", "id": "a"})]}, "messages.0.content.0.name"),
        (
            {"messages": [asked({"type": "document", "source": {}, "citations": {"enabled": True}})]},
            "messages.0.content.0.citations",
        ),
    ],
)
def test_what_no_upstream_s_answer_could_bring_back_is_refused(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Chat({"messages": [USER], **fields})
    assert caught.value.message.partition(":")[0] == name


JUNK: list[Any] = [None, True, 3, "x", [], ["x"], [3], [[]], {}, {"type": []}, {"type": {}}, [{"type": []}], [{"x": 1}]]
BLOCKS: list[dict[str, Any]] = [
    USE,
    RESULT,
    TEXT,
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
    {"type": "document", "source": {"type": "text", "data": "a"}, "citations": {"enabled": False}, "title": "a"},
]


@pytest.mark.parametrize("field", ["tool_choice", "thinking", "output_config", "metadata", "container", "mcp_servers"])
def test_a_field_with_anything_in_it_is_carried_listed_or_refused(field: str) -> None:
    for junk in JUNK:
        accepted_or_refused({"messages": [USER], "tools": [TOOL], field: junk})
        accepted_or_refused({"messages": [USER], "tools": [TOOL | {"type": junk}], field: {"type": junk}})
        accepted_or_refused({"messages": [USER], "output_config": {"effort": junk, "format": junk}})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block["type"]))
def test_a_block_with_anything_in_it_is_carried_listed_or_refused(block: dict[str, Any]) -> None:
    for role in ("user", "assistant", "system"):
        for junk in JUNK:
            for name in block:
                accepted_or_refused({"messages": [{"role": role, "content": [block | {name: junk}]}]})
            if "source" in block:
                for name in block["source"]:
                    changed = block | {"source": block["source"] | {name: junk}}
                    accepted_or_refused({"messages": [{"role": role, "content": [changed]}]})


def accepted_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(pydantic.ValidationError, InvalidRequest):
        whole = MessagesBody.model_validate({"model": "m", "max_tokens": 5, **body})
        Chat(whole.model_dump(exclude_unset=True, exclude={"model", "max_tokens"}))
