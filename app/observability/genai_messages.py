"""What was asked and said, as OpenTelemetry's conventions for generative AI have it in a span: JSON in an attribute.

https://github.com/open-telemetry/semantic-conventions-genai (gen_ai.input.messages, gen_ai.output.messages)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def input_messages(messages: Sequence[Mapping[str, Any]], characters_max: int) -> str:
    """The newest messages with that many characters of text, the oldest of them cut to fit."""
    left, told = characters_max, []
    for message in reversed(messages):
        if left <= 0:
            break
        parts = list(_parts(message, left))
        left -= sum(len(part.get("content", "")) for part in parts)
        told.append({"role": message.get("role", "user"), "parts": parts})
    return json.dumps(told[::-1])


def output_messages(text: str, finish_reason: str | None, characters_max: int) -> str:
    """The beginning of an answer."""
    parts = [{"type": "text", "content": text[:characters_max]}]
    return json.dumps([{"role": "assistant", "parts": parts, "finish_reason": finish_reason or "error"}])


def _parts(message: Mapping[str, Any], left: int) -> Iterator[dict[str, str]]:
    """Of what is no text, such as pictures and calls of tools, only that it was there."""
    content = message.get("content")
    for part in content if isinstance(content, list) else [{"type": "text", "text": content}] if content else ():
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            yield {"type": "text", "content": text[: max(0, left)]}
            left -= len(text)
        else:
            yield {"type": str(part.get("type", "unknown")) if isinstance(part, dict) else "unknown"}
    for _ in message.get("tool_calls") or ():
        yield {"type": "tool_call"}
