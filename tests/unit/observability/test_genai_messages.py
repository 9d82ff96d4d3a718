"""Content in spans: whole JSON of the conventions' shape, however long the conversation is."""

import json
from typing import Any

from app.observability.genai_messages import input_messages, output_messages

QUESTION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
]


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def test_messages_have_the_conventions_shape() -> None:
    assert json.loads(input_messages(QUESTION, 100)) == [
        {"role": "system", "parts": [text("Be brief.")]},
        {"role": "user", "parts": [text("What is it?"), {"type": "image_url"}]},
        {"role": "assistant", "parts": [{"type": "tool_call"}]},
    ]
    assert json.loads(output_messages("A weir.", "stop", 6)) == [
        {"role": "assistant", "parts": [text("A weir")], "finish_reason": "stop"}
    ]


def test_of_a_long_conversation_the_newest_is_told() -> None:
    messages = [{"role": "user", "content": str(number) * 10} for number in range(5)]
    told = json.loads(input_messages(messages, 25))
    assert [message["parts"][0]["content"] for message in told] == ["2" * 5, "3" * 10, "4" * 10]


def test_one_text_that_is_too_long_is_cut_and_the_json_is_whole() -> None:
    parts = [{"type": "text", "text": '"\\' * 50}, {"type": "text", "text": "behind"}, "no part"]
    (message,) = json.loads(input_messages([{"role": "user", "content": parts}], 30))
    assert message["parts"] == [text('"\\' * 15), text(""), {"type": "unknown"}]
